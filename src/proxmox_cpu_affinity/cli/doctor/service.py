"""Checks of the service: settings, whether it answers and where, and what it knows of the host."""

import os
import socket
import stat
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.cli.doctor.check import (
    Check,
    Patient,
    Result,
    failed,
    ok,
    warning,
)
from proxmox_cpu_affinity.cli.words import cpus_named, listed, matrix_words
from proxmox_cpu_affinity.formats.wire import RELEASED
from proxmox_cpu_affinity.model.errors import (
    ForbiddenError,
    ServiceDownError,
    SettingError,
)
from proxmox_cpu_affinity.render.trust import to_do
from proxmox_cpu_affinity.render.words import counted
from proxmox_cpu_affinity.service.paths import SETTINGS, Paths

_TCP_PATIENCE = 5.0  # seconds
_NAMED = 4  # guests whose reasons are told


def check_settings(patient: Patient) -> Result:
    """The settings' file, as the service would read it at its next start."""
    try:
        _, warnings = patient.settings
    except SettingError as error:
        advice = error.hint or "correct it: the service does not start with it"
        return failed(error.text, advice)
    if warnings:
        return warning("; ".join(warnings), f"correct /{SETTINGS}")
    return ok("understood")


def check_service(patient: Patient) -> Result:
    try:
        now = patient.status
    except (ServiceDownError, ForbiddenError) as error:
        return failed(error.text, error.hint)
    if now.version != __version__:
        return warning(
            f"it is {now.version}, this program is {__version__}", patient.remedies.restart
        )
    if now.warnings:
        return warning("; ".join(now.warnings), f"see the lines below and {patient.remedies.log}")
    return ok(f"{now.version} answers, manages by PCA_MANAGE={now.manage}")


def check_sockets(patient: Patient) -> Result:
    """Socket and token for root alone, and the port that was written down."""
    paths = Paths(patient.tree.root)
    shown = {
        path: f"/{path.relative_to(patient.tree.root)}" for path in (paths.socket, paths.token)
    }
    if not stat.S_ISSOCK(_mode(paths.socket)):
        raise ServiceDownError(f"there is no socket at {shown[paths.socket]}")
    wide = [shown[path] for path in shown if _mode(path) & 0o077]
    if wide:
        return failed(
            f"{' and '.join(wide)} can be opened by others than root", patient.remedies.restart
        )
    host, port = patient.settings[0].host, patient.tree.text(f"{paths_name(paths)}/port")
    if port is None:
        text = "the Unix socket is served, no TCP port: it may be taken"
        return warning(
            text, f"see PCA_PORT and {patient.remedies.log}, if something is to ask over HTTP"
        )
    if not _answers(host, port.strip()):
        return failed(
            f"port {port.strip()} does not answer as the service does", patient.remedies.restart
        )
    if not os.access(paths.socket, os.W_OK):
        text = f"port {port.strip()} answers, the Unix socket may not be asked"
        return warning(text, "run this as root")
    return ok(f"Unix socket and port {port.strip()} answer")


def paths_name(paths: Paths) -> str:
    """The folder of the run time files, below the root."""
    return str(paths.run.relative_to(paths.root))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _answers(host: str, port: str) -> bool:
    """Whether the service is at the port. One that listens on all addresses is asked on loopback,
    of the same version of IP: asyncio's listeners on :: take no IPv4."""
    there = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = HTTPConnection(there, int(port) if port.isdigit() else 0, timeout=_TCP_PATIENCE)
    try:
        connection.request("GET", "/api/v1/ping", headers={"Host": "localhost"})
        return b"pong" in connection.getresponse().read()
    except (OSError, HTTPException, socket.gaierror):
        return False
    finally:
        connection.close()


def check_matrix(patient: Patient) -> Result:
    """Whether guests are placed by measured latencies."""
    matrix = patient.status.matrix
    if matrix.measuring:
        return ok(f"being measured: {matrix.pairs_done} of {counted(matrix.pairs_all, 'pair')}")
    again = f"it is measured again by itself; at once: {patient.remedies.restart}"
    advice = to_do(matrix.verdict, matrix.conditions, again=again)
    if matrix.verdict == "trusted":
        text = f"measured and trusted, {100 * matrix.measured_share:.0f} % of the pairs"
        return warning("; ".join((text, *matrix.conditions)), advice) if advice else ok(text)
    if matrix.verdict == "unstable":
        why = "; ".join(matrix.conditions) or "the host was busy"
        text = f"unstable, so the prediction from the topology is used ({why})"
        return warning(text, advice)
    return warning(matrix_words(matrix), f"see {patient.remedies.log} for why")


def check_confinement(patient: Patient) -> Result:
    """By what guests are held: their scopes hold more, and hold it longer, than masks."""
    now = patient.status
    if now.confinement == "scope":
        return ok("guests are held by their systemd scopes")
    text = f"guests are held thread by thread: {now.confinement_reason}"
    if patient.tree.root != Path("/"):
        return ok(text)
    return warning(text, "threads that start later are caught by the next scan, within 30 s")


def check_guests(patient: Patient) -> Result:
    """Whether every managed guest that runs is where it was put."""
    running = [
        guest
        for guest in patient.guests
        if guest.managed and guest.running and guest.reason_code != RELEASED
    ]
    lost = [guest.vmid for guest in running if guest.outcome == "failed"]
    homeless = [guest for guest in running if guest.refused]
    partly = [guest.vmid for guest in running if guest.outcome == "part"]
    if lost:
        return failed(f"{listed('VM', lost)} not held on any CPU", "see: explain VMID")
    if homeless:
        words = [f"VM {guest.vmid}: {guest.refused}" for guest in homeless[:_NAMED]]
        words += [f"and {len(homeless) - _NAMED} more"] if len(homeless) > _NAMED else []
        return failed("; ".join(words), "see: explain VMID, and plan")
    if partly:
        return warning(f"{listed('VM', partly)} held in part only", "see: explain VMID")
    if not running:
        return ok("no managed guest runs")
    full = sum(guest.outcome == "full" for guest in running)
    rest = len(running) - full
    later = f", {rest} will be after the next scan" if rest else ""
    return ok(f"managed guests that run: {full} of {len(running)} on their CPUs{later}")


def check_overcommit(patient: Patient) -> Result:
    """Whether guests have to share CPUs."""
    held = [guest for guest in patient.guests if guest.cpus]
    vcpus = sum(guest.vcpus for guest in held)
    usable = patient.status.usable
    room = cpus_named(usable) if usable else "no CPU"
    count = f"{counted(vcpus, 'vCPU')} of placed guests, {room} for guests"
    if patient.status.overlap:
        text = f"{count}; several guests share {cpus_named(patient.status.overlap)}"
        return warning(text, "no fault: they share evenly. Fewer vCPUs, or fewer guests, end it")
    return ok(f"{count}; no CPU is shared")


def check_width(patient: Patient) -> Result:
    """How far guests' threads may go, and why."""
    held = [guest for guest in patient.guests if guest.cpus]
    setting = f"PCA_WIDTH={patient.status.width}"
    if not held:
        return ok(f"{setting}; no guest is placed")
    by_width = {
        "on own CPUs": [guest.vmid for guest in held if guest.width == "exact"],
        "in L3 groups": [guest.vmid for guest in held if guest.width == "domain"],
        "in nodes, for they waited": [guest.vmid for guest in held if guest.width == "node"],
    }
    words = [f"{listed('VM', vmids)} {how}" for how, vmids in by_width.items() if vmids]
    return ok(f"{setting}, host committed {patient.status.committed} %: {'; '.join(words)}")


CHECKS = (
    Check("settings", check_settings),
    Check("service", check_service),
    Check("sockets", check_sockets),
    Check("matrix", check_matrix),
    Check("confinement", check_confinement),
    Check("guests", check_guests),
    Check("overcommit", check_overcommit),
    Check("width", check_width),
)
