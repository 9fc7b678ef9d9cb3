"""The program `proxmox-cpu-affinity`: its commands by name, and the one place where errors end.

A command's module is imported when the command is called, so that --help is quick; what is heavy
(numpy, asyncio, rich) is imported by the function that needs it.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import FAILED, Group, Session
from proxmox_cpu_affinity.model.errors import AffinityError

NAME = "proxmox-cpu-affinity"
COMPLETION = "_PROXMOX_CPU_AFFINITY_COMPLETE"  # set by the shell's completion script
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Entry(NamedTuple):
    """A command: its module in `commands`, and its line in the list of commands."""

    module: str
    line: str
    hidden: bool = False


COMMANDS = {
    "status": Entry("status", "What the service knows and does."),
    "ps": Entry("ps", "List running guests and the CPUs they may use."),
    "hookscript": Entry("hookscript", "Look at guests' hookscripts, switch ours on and off."),
    "reassign": Entry("reassign", "Give running guests their CPUs anew, or let them go."),
    "explain": Entry("explain", "Say why a guest is on its CPUs, and what others would cost."),
    "plan": Entry("plan", "Show where guests would go; changes nothing."),
    "topology": Entry("topology", "Draw the CPUs of this host, or of a described one."),
    "doctor": Entry("doctor", "Check node, service and guests, and say what to do."),
    "cpuinfo": Entry("cpuinfo", "Measure the latency between the CPUs of this host."),
    "sim": Entry("sim", "A simulated Proxmox VE node, to try everything on."),
    "demo": Entry("demo", "Show the main job on a simulated Proxmox VE node."),
    "completion": Entry("completion", "Print the completion script of a shell."),
}


class _Commands(Group):
    """The commands of COMMANDS, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for name, entry in COMMANDS.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = import_module(f"proxmox_cpu_affinity.cli.commands.{entry.module}")
        command = getattr(module, entry.module)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, entry.line) for name, entry in COMMANDS.items() if not entry.hidden]
            )


@click.group(
    NAME,
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=("status", "ps 100 -v", "COMMAND --help"),
)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default="/",
    envvar="PCA_ROOT",
    metavar="PATH",
    help="Work below this directory, like that of a simulated node.  [env: PCA_ROOT]",
)
@click.pass_context
def cli(ctx: click.Context, *, root: Path) -> None:
    """CPU affinity of the virtual machines of a Proxmox VE node."""
    ctx.obj = Session(Path(os.path.realpath(root)))  # it takes a link to itself for what it is


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    ui.prepare()
    status = _status(list(sys.argv[1:] if arguments is None else arguments))
    ui.settle()
    return status


def _status(arguments: list[str]) -> int:
    """The exit status; whatever a command raised is said here."""
    try:
        status = _run(arguments)
        ui.flush()
    except AffinityError as error:
        ui.error(error.text, error.hint)
        return error.exit_status
    except click.ClickException as error:
        _show_usage(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except PermissionError as error:
        what = error.filename or error.strerror or "that"
        ui.error(f"not permitted: {what}", "run this as root, or as who made it")
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        ui.error(f"{where}{error.strerror or type(error).__name__}")
        return FAILED
    return status


def _show_usage(error: click.ClickException) -> None:
    """In our form, rather than with two lines of usage before it."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    text = " ".join(error.format_message().split())  # click lists choices on lines of their own
    if context is None:
        ui.error(text)
    elif type(error).show is click.UsageError.show:
        ui.error(text, f"see: {context.command_path} --help")
    else:  # click >= 8.2: the help itself, of a group that was given no words
        error.show()


def _run(arguments: list[str]) -> int:
    instruction = os.environ.get(COMPLETION)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, NAME, COMPLETION, instruction)
    try:
        with cli.make_context(NAME, arguments) as ctx:
            status: object = cli.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return status if isinstance(status, int) else 0
