"""What a guest was given and why, said in the same words wherever it is asked; also after a
restart, and what would fit where it does not."""

import json
import os

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, cpus_of

CPUS = sorted(os.sched_getaffinity(0))
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
TWO = f"PCA_RESERVED_CPUS={','.join(map(str, CPUS[2:]))}\n" if len(CPUS) > 2 else ""


def decision_of(service: Running, vmid: int) -> dict[str, object]:
    (found,) = (d for d in service.get(f"/api/v1/decisions?vmid={vmid}").list if d["current"])
    return found


@needs_two_cpus
def test_the_hook_the_log_and_the_api_say_the_same(sim_node: Node) -> None:
    with Running(sim_node, settings=f"{TWO}PCA_WIDTH=domain\n") as service:
        add_guest(sim_node, 100, cores=2)
        said = sim_node.do("start", 100)
        guest = service.guest(100)
        why = str(guest["width_why"])
        assert why.startswith("host committed 100 %, PCA_WIDTH=domain: floats in L3 ")
        assert guest["width"] == "domain"
        assert said.count(why) == 2  # pre-start and post-start
        assert decision_of(service, 100)["width"] == why
        assert service.get("/api/v1/status").json["committed"] == 100


@needs_two_cpus
def test_the_log_says_it_when_it_changes(sim_node: Node) -> None:
    with Running(sim_node, settings=f"{TWO}PCA_WIDTH=auto\n") as service:
        for vmid in (100, 101, 102):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        why = [str(service.guest(vmid)["width_why"]) for vmid in (100, 101, 102)]
        floats = [words for words in why if words.startswith("host committed 150 %: floats in L3 ")]
        assert len(floats) >= 2, why
        for words in floats:
            service.says(words)


@needs_two_cpus
def test_a_restarted_service_still_knows_what_it_would_cost_elsewhere(sim_node: Node) -> None:
    with Running(sim_node, settings=TWO) as service:
        for vmid in (100, 101):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        before = decision_of(service, 101)
        service.kill()
        service.start()
        service.confirms(100, 101)
        after = decision_of(service, 101)
        assert (before["recomputed"], after["recomputed"]) == (False, True)
        assert after["cpus"] == before["cpus"]
        candidates = after["candidates"]
        assert isinstance(candidates, list)
        costs = {frozenset(cpus_of(one["cpus"])): one["cost"] for one in candidates}
        own = frozenset(cpus_of(str(after["cpus"])))
        (other,) = costs.keys() - {own}
        assert other == frozenset(cpus_of(str(service.guest(100)["cpus"])))
        assert costs[own] < costs[other]  # there it would share


@needs_two_cpus
def test_a_dedicated_guest_that_does_not_fit_is_told_what_would(
    sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    with Running(sim_node, settings=TWO) as service:
        add_guest(sim_node, 100)
        add_guest(sim_node, 101, cores=2, options={"tags": "cpu-dedicated"})
        sim_node.do("start", 100)
        said = sim_node.do("start", 101)
        refused = str(service.guest(101)["refused"])
        assert refused.startswith("2 CPUs of its own wanted, ")
        assert "shared (see PCA_DEDICATED_FALLBACK)" in refused
        assert f"not placed: {refused}" in said
        service.says(refused)
        words = ["--root", str(sim_node.root), "ps", "101", "-v"]
        assert main(words) == 0
        assert f"Threads of VM 101 (not placed: {refused}):" in capsys.readouterr().out
        assert main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["refused"] == refused


@needs_two_cpus
def test_a_refused_guest_that_stops_is_not_said_to_free_cpus_of_an_earlier_run(
    sim_node: Node,
) -> None:
    with Running(sim_node, settings=TWO):
        add_guest(sim_node, 100)
        add_guest(sim_node, 101, cores=2)
        sim_node.do("start", 101)
        assert "are free again" in sim_node.do("stop", 101)
        sim_node.do("set", 101, "--tags", "cpu-dedicated")
        sim_node.do("start", 100)
        assert "not placed: " in sim_node.do("start", 101)
        assert "free again" not in sim_node.do("stop", 101)
        assert "is free again" in sim_node.do("stop", 100)
