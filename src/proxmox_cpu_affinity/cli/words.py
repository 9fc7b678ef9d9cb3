"""Words that several commands use: lists, who is managed, what a matrix is worth. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxmox_cpu_affinity.model.guest import GuestConfig, Manage
from proxmox_cpu_affinity.render.words import counted

if TYPE_CHECKING:  # most commands need no type of the API
    from proxmox_cpu_affinity.formats import wire

MANAGED_BY = {"hook": "its hookscript", "tag": "its tag cpu-affinity", "all": "PCA_MANAGE=all"}
"""What makes a guest ours, as the API has it, in words."""

HELD_SINCE = {
    "first instruction": "since its first instruction",
    "scope": "since its scope appeared",
    "later": "since it was up",
}
"""From when on a guest was on its CPUs (GuestView.held_since)."""

VERDICTS = {
    "trusted": "measured and trusted",
    "unstable": "measured, but not to be relied on",
    "predicted": "predicted from the topology, not measured",
}
"""What a matrix is worth."""


def listed(noun: str, numbers: Iterable[object], *, most: int = 10) -> str:
    """`VM 100`, `VMs 100, 101 and 3 more`."""
    words = [str(number) for number in numbers]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"{noun}{'' if len(words) == 1 else 's'} {', '.join(words[:most])}{more}"


def cpus_named(cpus: object) -> str:
    """`CPU 3`, `CPUs 2-3`."""
    text = str(cpus)
    return f"CPU{'' if text.isdigit() else 's'} {text}"


def managed(config: GuestConfig | None, manage: Manage | None) -> tuple[str, str]:
    """What makes a guest ours (hook, tag, all), and why it is not ours; one of them is empty.

    Both are empty where its configuration or PCA_MANAGE is not known.
    """
    if config is None or manage is None:
        return "", ""
    reason = config.exclusion(manage)
    return ("", reason.value) if reason else (str(config.chosen_by(manage)), "")


def managed_cell(config: GuestConfig | None, manage: Manage | None) -> str:
    """The same for a column: `tag`, `no: affinity`."""
    by, reason = managed(config, manage)
    return by or (f"no: {reason}" if reason else "-")


def matrix_words(matrix: "wire.MatrixState") -> str:
    """What the latency matrix is worth, and how far a measurement is."""
    from proxmox_cpu_affinity.model.latency import ONLY_PREDICTED
    from proxmox_cpu_affinity.render.trust import to_do

    words = VERDICTS.get(matrix.verdict, matrix.verdict)
    if 0 < matrix.measured_share < 1:
        words += f" ({100 * matrix.measured_share:.0f} % of the pairs)"
    if matrix.measuring:
        words += f"; measuring now, {matrix.pairs_done} of {counted(matrix.pairs_all, 'pair')}"
    known = [text for text in matrix.conditions if text != ONLY_PREDICTED]
    advice = to_do(matrix.verdict, matrix.conditions, again="it is measured again by itself")
    return "; ".join(filter(None, (words, *known, advice)))
