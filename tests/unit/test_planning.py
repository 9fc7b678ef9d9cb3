"""A plan is what the service does: the brain is given the same guests, start by start."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli import wanted
from proxmox_cpu_affinity.cli.hosts import Described
from proxmox_cpu_affinity.cli.planning import planned
from proxmox_cpu_affinity.engine.facts import Rules, compile_host
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.guest import GuestConfig, Manage, Policy, Request, described
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Fallback, Placement, Width
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.events import HookCalled, Phase
from tests.unit.engine_hosts import topology_of

SPECS = st.sampled_from(("1x1x4x2", "2x1x4x2", "2x2x4x1", "1x2x2x2+4e", "2x2x2x2+isolated=1"))
SHAPES = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.integers(1, 3),
        st.sets(st.sampled_from(tuple(Policy)), max_size=2).map(sorted),
    ),
    min_size=1,
    max_size=6,
)
RULES = st.builds(
    Rules,
    dedicated_fallback=st.sampled_from(tuple(Fallback)),
    width=st.sampled_from(tuple(Width)),
)


def started(state: State, config: GuestConfig) -> State:
    return step(state, HookCalled(1.0, config.vmid, Phase.PRE_START, config, None))[0]


@settings(deadline=None, max_examples=60)
@given(spec=SPECS, shapes=SHAPES, rules=RULES)
def test_a_plan_is_where_the_service_puts_these_guests(
    spec: str, shapes: list[tuple[int, int, list[Policy]]], rules: Rules
) -> None:
    host = Described(topology_of(spec), predicted(topology_of(spec)))
    words, configs = [], []
    for i, (cores, sockets, policies) in enumerate(shapes):
        tags = tuple(f"cpu-{policy}" for policy in policies)
        behind = f":{';'.join(tags)}" if tags else ""
        words.append(f"{100 + i}:{cores * sockets}:{sockets}{behind}")
        configs.append(
            described(Vmid(100 + i), cores * sockets, sockets=sockets, numa=True, tags=tags)
        )
    made = planned(host, rules, wanted.given(words))
    compiled = compile_host(host.topology, host.matrix, rules)
    state = replace(
        State(compiled, Manage.ALL), configs={config.vmid: config for config in configs}
    )
    for config in configs:
        state = started(state, config)
    found: dict[Vmid, Placement] = {v: t.placement for v, t in state.tracked.items()}
    assert dict(made.placements) == found
    refused = {row.vmid for row in made.answer.guests if row.start is None}
    assert refused == set(state.refused)


@pytest.mark.parametrize(
    ("text", "vcpus", "nodes", "policy"),
    [
        ("100:4", 4, [], Policy.SHARED),
        ("100:4:1", 4, [], Policy.SHARED),
        ("100:4:2", 4, [(0, 1), (2, 3)], Policy.SHARED),
        ("100:4:cpu-pinned", 4, [], Policy.PINNED),
        ("100:4::cpu-pinned", 4, [], Policy.PINNED),
        ("100:6:3:cpu-dedicated", 6, [(0, 1), (2, 3), (4, 5)], Policy.DEDICATED),
        ("100:2:cpu-affinity;cpu-efficiency", 2, [], Policy.EFFICIENCY),
    ],
)
def test_a_guest_s_words(
    text: str, vcpus: int, nodes: list[tuple[int, ...]], policy: Policy
) -> None:
    (request,) = wanted.given([text]).requests
    assert (request.vcpus, request.policy) == (vcpus, policy)
    assert [node.vcpus for node in request.guest_nodes] == nodes


def test_two_policies_contradict_each_other_as_they_do_for_the_service() -> None:
    (request,) = wanted.given(["100:1:cpu-pinned,cpu-dedicated"]).requests
    assert request == replace(
        Request(Vmid(100), 1),
        warnings=("tags cpu-dedicated and cpu-pinned contradict each other: shared",),
    )
