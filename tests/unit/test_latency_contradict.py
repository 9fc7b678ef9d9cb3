"""Where trusted latencies say something else than sysfs, and where they do not."""

from array import array
from collections.abc import Mapping

import pytest

from proxmox_cpu_affinity.latency.contradict import contradictions
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from tests.unit.engine_hosts import topology_of as host


def measured(here: Topology, other: Mapping[tuple[int, int], float] | None = None) -> LatencyMatrix:
    """All as it is predicted, but for these pairs; everything measured."""
    base = predicted(here)
    count = len(base.cpus)
    ns = array("d", base.ns)
    for (i, j), value in (other or {}).items():
        ns[i * count + j] = ns[j * count + i] = value
    flags = bytes(i != j for i in range(count) for j in range(count))
    return LatencyMatrix(base.cpus, ns, base.spread, flags, Verdict.TRUSTED)


@pytest.mark.parametrize(
    "spec",
    ["1x1x1x1", "1x1x4x2", "2x4x4x2", "1x2x2x2+4e+2lp", "2x2x4x1+nodes=2", "1x1x4x1+nocache"],
)
def test_a_host_as_predicted_contradicts_nothing(spec: str) -> None:
    here = host(spec)
    assert contradictions(measured(here), here) == ()


def test_siblings_that_are_far_apart_are_named() -> None:
    here = host("1x1x4x2")
    assert contradictions(measured(here, {(1, 5): 80.0}), here) == (
        "sysfs contradicted: CPUs 1,5: SMT siblings by sysfs, but farther apart than other cores",
    )


def test_a_cache_group_that_is_none_is_named() -> None:
    here = host("1x2x4x1")
    far = {(i, j): 200.0 for i in range(4) for j in range(i + 1, 4)}
    (said,) = contradictions(measured(here, far), here)
    assert said.startswith("sysfs contradicted: CPUs 0-3: one cache group by sysfs, but farther")


def test_what_was_not_measured_contradicts_nothing() -> None:
    here = host("1x1x4x2")
    wrong = measured(here, {(1, 5): 80.0})
    unmeasured = LatencyMatrix(
        wrong.cpus, wrong.ns, wrong.spread, bytes(len(wrong.ns)), Verdict.TRUSTED
    )
    assert contradictions(unmeasured, here) == ()


def test_a_little_slower_is_no_contradiction() -> None:
    here = host("1x1x4x2")
    assert contradictions(measured(here, {(1, 5): 40.0}), here) == ()
