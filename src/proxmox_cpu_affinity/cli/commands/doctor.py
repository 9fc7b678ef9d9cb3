"""`doctor`: looks whether all is as it should be, and says what to do where it is not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.client import client_of
from proxmox_cpu_affinity.cli.command import DONE, FAILED, Command, Session, as_json, quiet, socket
from proxmox_cpu_affinity.formats import jsonvalue

if TYPE_CHECKING:
    from proxmox_cpu_affinity.cli.doctor.check import Finding
    from proxmox_cpu_affinity.cli.remedies import Remedies

COLUMNS = ("Check", "Status", "Finding, and -> what to do")


@click.command(cls=Command, examples=("doctor", "doctor --json"))
@as_json
@socket
@quiet
@click.pass_obj
def doctor(session: Session, /, *, as_json: bool, socket: Path | None, quiet: bool) -> int:
    """Check node, service and guests, and say what to do about what is wrong.

    Changes nothing. Exit status 1 if a check failed, 0 if not; warnings are no failure.
    """
    from proxmox_cpu_affinity.cli.doctor import node, service
    from proxmox_cpu_affinity.cli.doctor.check import Patient, Verdict, examined

    patient = Patient(session.tree, client_of(session, socket))
    found = examined(patient, (*node.CHECKS, *service.CHECKS))
    if as_json:
        ui.document(jsonvalue.plain(found))
    else:
        ui.lines(*_lines(found, patient.remedies, width=ui.width()))
    count = {verdict: sum(f.status == verdict for f in found) for verdict in Verdict}
    if not quiet:
        ui.talk(
            f"{len(found)} checks: " + ", ".join(f"{n} {verdict}" for verdict, n in count.items())
        )
    return FAILED if count[Verdict.FAILED] else DONE


def _lines(found: "Sequence[Finding]", remedies: "Remedies", *, width: int) -> Iterator[str]:
    """A table whose findings are folded. Advice is not, and has a line of its own: the commands in
    it are to be copied."""
    heads = list(ui.plain_table(COLUMNS[:2], [(one.check, one.status) for one in found]))
    size = max(map(len, heads)) + len(ui.GAP)
    yield heads[0].ljust(size) + COLUMNS[2]
    for head, one in zip(heads[1:], found, strict=True):
        first, *rest = ui.folded(one.text, width - size)
        yield head.ljust(size) + first
        yield from (" " * size + line for line in rest)
        if one.advice:
            yield f"    -> {remedies.with_path(one.advice)}"
