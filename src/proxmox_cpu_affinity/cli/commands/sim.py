"""`sim`: makes, uses and removes a simulated Proxmox VE node; a thin front on the package `sim`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import Command, Group, as_json
from proxmox_cpu_affinity.cli.remedies import called
from proxmox_cpu_affinity.cli.words import cpus_named
from proxmox_cpu_affinity.model.errors import UsageError
from proxmox_cpu_affinity.render.words import counted


class _FreeCommand(Command):
    """They run as any user."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, needs_root=False, looks_here=False, **kwargs)


class _FreeGroup(Group):
    command_class = _FreeCommand


directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group(
    cls=_FreeGroup,
    examples=("sim create /tmp/node", "sim run /tmp/node qm start 100", "sim destroy /tmp/node"),
)
def sim() -> None:
    """A simulated Proxmox VE node, to try everything on."""


@sim.command(examples=("sim create /tmp/node", "sim create /tmp/node --model 8 --guests standin"))
@directory
@click.option(
    "--model",
    type=click.Choice(["8", "9"]),
    default="9",
    show_default=True,
    help="Which Proxmox VE it behaves like.",
)
@click.option(
    "--guests",
    type=click.Choice(["standin", "qemu"]),
    help="What guests are; default: QEMU where it is installed.",
)
@click.option(
    "--host",
    metavar="SPEC",
    help="Give it the CPUs of PACKAGESxL3xCORESxTHREADS; default: those of this host.",
)
@as_json
def create(
    *, directory: Path, model: str, guests: str | None, host: str | None, as_json: bool
) -> None:
    """Make a node in a new directory, with a short name, and start it."""
    from proxmox_cpu_affinity.sim import hookscript, node
    from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
    from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop

    files = None
    if host is not None:
        whole = generate(parse_spec(host.removeprefix("generated:")))
        files = {f"/{path}": text for path, text in whole.items() if path.startswith("sys/")}
    made = node.create(
        directory,
        guest=None if guests is None else GuestKind(guests),
        post_stop=PostStop(int(model)),
        sys_files=files,
    )
    volume = hookscript.install(made)
    if host is not None:
        _warn_of_missing_cpus(made.tree.cpus())
    if as_json:
        kind = made.tree.settings.guest
        ui.document({"root": str(made.root), "model": model, "guests": kind, "hookscript": volume})
        return
    root = shlex.quote(str(made.root))
    ui.lines(
        f"{made.root}: a simulated Proxmox VE {model} node. Try:",
        f"  {root}/usr/sbin/qm create 100 --cores 2",
        f"  PCA_ROOT={root} PCA_PORT=0 {called('proxmox-cpu-affinity-service')} --stdout &",
        f"  {called()} --root {root} hookscript enable 100",
        f"  {root}/usr/sbin/qm start 100",
        f"  {called()} --root {root} ps",
    )


def _warn_of_missing_cpus(count: int) -> None:
    """Guests run on the CPUs of this machine, whatever their node's sys says."""
    from proxmox_cpu_affinity.linux.threads import own_cpus

    usable = own_cpus()
    if count > len(usable):
        ui.warn(
            f"this machine has {counted(len(usable), 'CPU')} of the node's {count}: guests are"
            f" confined on {cpus_named(usable)} only (to see all used: plan --host)"
        )


@sim.command(examples=("sim start /tmp/node",))
@directory
@as_json
def start(*, directory: Path, as_json: bool) -> None:
    """Switch a node on again; its guests are started by qm."""
    from proxmox_cpu_affinity.sim import node

    node.open(directory)
    _say(directory, "on", as_json=as_json)


@sim.command(examples=("sim stop /tmp/node",))
@directory
@as_json
def stop(*, directory: Path, as_json: bool) -> None:
    """Pull a node's power plug.

    All its processes end, our service too, without hooks.
    """
    from proxmox_cpu_affinity.cli.ending import end_service
    from proxmox_cpu_affinity.sim.node import Node

    node = Node(directory)
    end_service(node.root)
    node.close()
    _say(directory, "off", as_json=as_json)


@sim.command(examples=("sim destroy /tmp/node",))
@directory
@as_json
def destroy(*, directory: Path, as_json: bool) -> None:
    """End all of a node's processes and remove its directory."""
    from proxmox_cpu_affinity.cli.ending import end_service
    from proxmox_cpu_affinity.sim.node import Node

    node = Node(directory)
    end_service(node.root)
    node.destroy()
    _say(directory, "gone", as_json=as_json)


def _say(directory: Path, status: str, *, as_json: bool) -> None:
    if as_json:
        ui.document({"root": str(directory), "status": status})
    else:
        ui.result(f"{directory} is {status}")


@sim.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=("sim run /tmp/node qm start 100", "sim run /tmp/node vzdump 100 --mode stop"),
)
@directory
@click.argument("words", metavar="PROGRAM [WORDS]...", nargs=-1, type=click.UNPROCESSED)
def run(*, directory: Path, words: Sequence[str]) -> int:
    """Run one of a node's programs.

    They are qm, pvesm, ha-manager, pvesh and vzdump.
    """
    from proxmox_cpu_affinity.sim.layout import PROGRAMS
    from proxmox_cpu_affinity.sim.node import Node

    if words[:1] == ("--",):
        words = words[1:]
    if not words or words[0] not in PROGRAMS:
        named = repr(words[0]) if words else "nothing"
        raise UsageError(f"{named} is no program of the node: {', '.join(PROGRAMS)}")
    done = Node(directory).run(words[0], *words[1:])
    ui.raw(done.stdout)
    ui.relay(done.stderr)
    return done.returncode
