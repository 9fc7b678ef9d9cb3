"""What to do about latencies that cannot be trusted, or that say something odd, in plain words.

Why they cannot is said by the matrix itself, see latency.judge.
"""

from collections.abc import Sequence

from proxmox_cpu_affinity.model.latency import Verdict


def to_do(verdict: str, conditions: Sequence[str], *, again: str) -> str:
    """One line of advice, empty where nothing is to be done; `again`: how one measures anew."""
    said = "; ".join(conditions)
    if verdict == Verdict.UNSTABLE:
        return again
    if "contradicted" in said:
        return "compare lscpu -e with the mainboard's manual: placing goes by what sysfs says"
    if "third NUMA node" in said:
        return "free memory on the full NUMA node, then measure again"
    return ""
