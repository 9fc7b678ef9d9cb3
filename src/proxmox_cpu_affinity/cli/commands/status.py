"""`status` and its sub-commands: what the service knows, asked over its socket."""

import json
from collections.abc import Mapping
from pathlib import Path

import click

from proxmox_cpu_affinity.cli import ranking, ui
from proxmox_cpu_affinity.cli.answers import read, read_list, strange
from proxmox_cpu_affinity.cli.client import Client, client_of
from proxmox_cpu_affinity.cli.command import (
    Group,
    Session,
    as_json,
    not_written,
    require_root_folder,
    socket,
    warn_without_root,
)
from proxmox_cpu_affinity.cli.words import cpus_named, matrix_words
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.errors import UsageError
from proxmox_cpu_affinity.render.words import counted

_MANAGED = {
    "hook": "guests with our hookscript",
    "tag": "guests with our hookscript or the tag cpu-affinity",
    "all": "every guest",
}
_CONFINED = {"threads": "thread by thread", "scope": "by systemd scopes", "none": "not at all"}


@click.group(
    cls=Group,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    examples=("status", "status core-vm-affinity --json", "status svg -o latency.svg"),
)
@socket
@as_json
@click.pass_context
def status(ctx: click.Context, /, *, socket: Path | None, as_json: bool) -> None:
    """What the service knows and does. Exit status 1 if it does not answer."""
    if ctx.invoked_subcommand is not None:
        return
    require_root_folder(ctx.obj)
    client = _client(ctx, socket)
    warn_without_root(ctx.obj)
    if as_json:
        ui.document(client.get("status"))
        return
    read(wire.Ping, client.get("ping"))
    ui.result("Service is running (pong received)")
    now = read(wire.Status, client.get("status"))
    ui.pairs(described(now))
    for warning in now.warnings:
        ui.warn(warning)


@status.command(examples=("status ping",))
@socket
@as_json
@click.pass_context
def ping(ctx: click.Context, /, *, socket: Path | None, as_json: bool) -> None:
    """Ask whether the service answers."""
    pong = read(wire.Ping, _client(ctx, socket).get("ping")).ping
    if _json(ctx, as_json=as_json):
        ui.document(pong)
    else:
        ui.result(pong)


@status.command("core-ranking", examples=("status core-ranking", "status core-ranking --json"))
@socket
@as_json
@click.pass_context
def core_ranking(ctx: click.Context, /, *, socket: Path | None, as_json: bool) -> None:
    """For each CPU the others, nearest first."""
    answer = _client(ctx, socket).get("core_ranking")
    if _json(ctx, as_json=as_json):
        ui.document(answer)
    else:
        ui.table(ranking.COLUMNS, ranking.rows(read_list(wire.Ranking, answer)))


@status.command("core-ranking-summary", examples=("status core-ranking-summary",))
@socket
@as_json
@click.pass_context
def core_ranking_summary(ctx: click.Context, /, *, socket: Path | None, as_json: bool) -> None:
    """Figures of the latency matrix."""
    answer = _client(ctx, socket).get("core_ranking_summary")
    if _json(ctx, as_json=as_json):
        ui.document(answer)
    else:
        ui.pairs(ranking.figures(read(wire.RankingSummary, answer)))


@status.command("core-vm-affinity", examples=("status core-vm-affinity",))
@socket
@as_json
@click.pass_context
def core_vm_affinity(ctx: click.Context, /, *, socket: Path | None, as_json: bool) -> None:
    """The CPUs chosen for each guest."""
    answer = _client(ctx, socket).get("core_vm_affinity")
    if _json(ctx, as_json=as_json):
        ui.document(answer)
    else:
        ui.table(("VMID", "Selected CPUs"), _affinity_rows(answer))


@status.command(examples=("status svg -o latency.svg", "status svg --affinity > latency.svg"))
@click.option("--affinity", is_flag=True, help="Mark the guests' CPUs.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it to this file, not to stdout.",
)
@socket
@click.pass_context
def svg(ctx: click.Context, /, *, affinity: bool, output: Path | None, socket: Path | None) -> None:
    """The latency matrix as a picture."""
    if _json(ctx, as_json=False):
        raise UsageError("a picture is no JSON", hint="the same as numbers: status core-ranking")
    query = {"affinity": "1"} if affinity else {}
    picture = _client(ctx, socket).text("heatmap", query=query)
    if output is None:
        ui.raw(picture)
        return
    try:
        output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise not_written("--output", output, error) from None
    ui.talk(f"written to {output}")


@status.command(examples=("status watch", "status watch --json"))
@socket
@as_json
@click.pass_context
def watch(ctx: click.Context, /, *, socket: Path | None, as_json: bool) -> None:
    """What happens, as it happens.

    Until it is interrupted: on a terminal the host with its guests and their load; else a line for
    each event, with --json one JSON object a line.
    """
    from proxmox_cpu_affinity.cli.following import follow
    from proxmox_cpu_affinity.cli.live import show
    from proxmox_cpu_affinity.cli.watching import line_of

    session = ctx.find_object(Session)
    assert session is not None
    client, wanted = _client(ctx, socket), _json(ctx, as_json=as_json)
    if ui.on_terminal() and not wanted:
        show(client, session.tree)
        return
    for told in follow(client, ui.warn):
        if wanted:
            ui.line_out(json.dumps({"event": told.name, "id": told.number, "data": told.data}))
        elif (line := line_of(told)) is not None:
            ui.line_out(ui.clean(line))


def described(now: wire.Status) -> list[tuple[str, object]]:
    """The status in plain words: names and values."""
    return [
        ("Version", f"{now.version}, up {duration(now.uptime_s)}"),
        ("Node", now.node or "(not a Proxmox VE node)"),
        ("Host", _host(now)),
        ("Guests may use", cpus_named(now.usable) if now.usable else "no CPUs"),
        ("Manages", f"{_MANAGED.get(now.manage, now.manage)} (PCA_MANAGE={now.manage})"),
        ("Strategy", f"{now.strategy}, width {now.width}"),
        ("Confined", _confined(now)),
        ("Guests", f"{now.guests_running} placed and running, {now.guests_confined} on their CPUs"),
        ("Shared CPUs", now.overlap or "none"),
        ("Slowdown", _score_words(now.score)),
        ("Latencies", matrix_words(now.matrix)),
    ]


def duration(seconds: float) -> str:
    """A time in its two largest units: `2 d 3 h`, `45 s`."""
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in units:
        amount, rest = divmod(rest, size)
        if amount or parts:
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _score_words(score: wire.ScoreView | None) -> str:
    """What guests lose to one another and to distance, in per cent of a vCPU's time."""
    if score is None:
        return "no guest is placed"
    others = (score.bound, score.no_pinning, score.round_robin, score.packed)
    best, free, turn, packed = (f"{100 * share:.1f} %" for share in others)
    placed = f"{100 * score.slowdown:.1f} % of a vCPU's time"
    return f"{placed}; at best {best}, without pinning {free}, in turn {turn}, packed {packed}"


def _confined(now: wire.Status) -> str:
    why = f" ({now.confinement_reason})" if now.confinement_reason else ""
    return f"{_CONFINED.get(now.confinement, now.confinement)}{why}"


def _host(now: wire.Status) -> str:
    groups = counted(now.cache_groups, "cache group")
    parts = f"{counted(now.packages, 'package')}, {counted(now.nodes, 'node')}, {groups}"
    return f"{now.model_name or 'unknown model'}, {counted(now.cpus, 'CPU')} ({parts})"


def _affinity_rows(answer: object) -> list[ui.Row]:
    if not isinstance(answer, Mapping) or not all(isinstance(c, list) for c in answer.values()):
        raise strange("no CPUs by VMID")
    held = sorted((int(vmid), cpus) for vmid, cpus in answer.items())
    return [(vmid, ",".join(map(str, cpus))) for vmid, cpus in held]


def _client(ctx: click.Context, path: Path | None) -> Client:
    """The client; --socket may stand before or after the sub-command's name."""
    session = ctx.find_object(Session)
    assert session is not None
    outer = ctx.parent.params.get("socket") if ctx.parent else None
    return client_of(session, path or outer)


def _json(ctx: click.Context, *, as_json: bool) -> bool:
    """Whether JSON is wanted; --json too may stand before the sub-command's name."""
    assert ctx.parent is not None
    return as_json or bool(ctx.parent.params.get("as_json"))
