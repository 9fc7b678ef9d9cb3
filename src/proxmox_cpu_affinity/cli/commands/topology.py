"""`topology`: the CPUs of this host, or of a described one, as a map; no service is asked."""

import os

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import Command, Session, as_json, complete_file
from proxmox_cpu_affinity.cli.configured import settings_here
from proxmox_cpu_affinity.cli.topologymap import topology_map
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.model.cpuset import EMPTY


@click.command(
    cls=Command,
    needs_root=False,
    examples=("topology", "topology --host generated:2x2x4x2", "topology --json"),
)
@click.option(
    "--host",
    metavar="FILE|generated:SPEC",
    shell_complete=complete_file,
    help="A host's snapshot, or one of PACKAGESxL3xCORESxTHREADS; default: this host.",
)
@as_json
@click.pass_obj
def topology(session: Session, /, *, host: str | None, as_json: bool) -> None:
    """Draw the CPUs of this host, or of a described one.

    A line for each cache group, a word for each core. --json is what the service answers to
    GET /api/v1/topology.
    """
    from proxmox_cpu_affinity.cli.hosts import named_host, this_host

    where = (this_host(session.tree) if host is None else named_host(host)).topology
    if as_json:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start many threads
        from proxmox_cpu_affinity.service import views

        ui.document(jsonvalue.plain(views.topology(where)))
        return
    reserved = settings_here(session.tree).reserved if host is None else EMPTY
    ui.lines(*topology_map(where, reserved=reserved, width=ui.width()))
    for note in where.notes:
        ui.result(f"note: {note}")
