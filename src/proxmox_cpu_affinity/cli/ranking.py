"""The inherited tables of latencies: who is how far from whom, and the figures of the matrix.

Columns and names are the Go project's. Out of scope: more than these (latencies).
"""

from collections.abc import Sequence

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.words import VERDICTS
from proxmox_cpu_affinity.formats import wire

COLUMNS = ("Source", "Neighbor", "Socket", "Core", "Latency (ns)")


def rows(ranking: Sequence[wire.Ranking]) -> list[ui.Row]:
    """Of each CPU the others, nearest first."""
    return [
        (entry.cpu, other.cpu, other.socket, other.core, f"{other.latency_ns:.2f}")
        for entry in ranking
        for other in entry.ranking
    ]


def figures(summary: wire.RankingSummary) -> list[tuple[str, object]]:
    """Names and values."""
    return [
        ("CPU Count", summary.cpu_count),
        ("Socket Count", summary.socket_count),
        ("Min (Best)", f"{summary.min_latency_ns:.2f} ns"),
        ("Max (Worst)", f"{summary.max_latency_ns:.2f} ns"),
        ("Median", f"{summary.median_latency_ns:.2f} ns"),
        ("Mean", f"{summary.mean_latency_ns:.2f} ns"),
        ("Verdict", VERDICTS.get(summary.verdict, summary.verdict)),
    ]
