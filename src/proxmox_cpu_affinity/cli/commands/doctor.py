"""`doctor`: looks whether all is as it should be, and says what to do where it is not."""

from pathlib import Path

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.client import client_of
from proxmox_cpu_affinity.cli.command import DONE, FAILED, Command, Session, as_json, quiet, socket
from proxmox_cpu_affinity.formats import jsonvalue

COLUMNS = ("Check", "Status", "Finding", "What to do")


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
        rows = [(f.check, f.status, f.text, patient.remedies.with_path(f.advice)) for f in found]
        ui.table(COLUMNS, rows)
    count = {verdict: sum(f.status == verdict for f in found) for verdict in Verdict}
    if not quiet:
        ui.talk(
            f"{len(found)} checks: " + ", ".join(f"{n} {verdict}" for verdict, n in count.items())
        )
    return FAILED if count[Verdict.FAILED] else DONE
