"""GET try and preview: what they say comes true, and asking changes nothing."""

import os
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, cpus_of


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    """A service that has measured already: another matrix would give another answer."""
    with Running(sim_node) as running:
        running.says("latency measured")
        yield running


def everything(service: Running) -> tuple[object, ...]:
    """What a state change would show in: also a decision, which would be kept."""
    paths = ("/api/v1/guests", "/api/v1/decisions", "/api/v1/core-vm-affinity")
    state = service.node.path("/var/lib/proxmox-cpu-affinity/state.json")
    return (*(service.get(path).body for path in paths), state.read_bytes())


def test_a_trial_is_where_the_next_guest_goes(service: Running) -> None:
    for vmid in (100, 101, 102):
        add_guest(service.node, vmid)
    service.node.do("start", 100)
    service.confirms(100)
    before = everything(service)
    told = service.get("/api/v1/try?vcpus=1").json
    assert everything(service) == before
    score = service.get("/api/v1/status").json["score"]
    assert isinstance(score, dict)
    assert told["before"] == {"slowdown": score["slowdown"], "bound": score["bound"]}
    assert told["refused"] == ""
    assert not cpus_of(str(told["cpus"])) & cpus_of(str(service.guest(100)["cpus"]))
    service.node.do("start", 101)
    service.confirms(101)
    guest, score = service.guest(101), service.get("/api/v1/status").json["score"]
    assert isinstance(score, dict)
    assert (guest["cpus"], guest["nodes"]) == (told["cpus"], told["nodes"])
    assert (guest["score"], guest["bound"]) == (told["score"], told["bound"])
    assert told["after"] == {"slowdown": score["slowdown"], "bound": score["bound"]}


def test_a_trial_says_what_the_others_lose(service: Running) -> None:
    add_guest(service.node, 100)
    service.node.do("start", 100)
    service.confirms(100)
    whole = service.get("/api/v1/status").json["cpus"]
    told = service.get(f"/api/v1/try?vcpus={whole}").json
    others = told["others"]
    assert isinstance(others, list)
    assert [other["vmid"] for other in others] == [100]
    assert others[0]["after"] > others[0]["before"] == service.guest(100)["score"]
    assert told["cost"] == pytest.approx(others[0]["after"] - others[0]["before"], abs=1e-3)


def test_a_trial_that_is_refused_says_why(service: Running) -> None:
    add_guest(service.node, 100)
    service.node.do("start", 100)
    service.confirms(100)
    whole = service.get("/api/v1/status").json["cpus"]
    told = service.get(f"/api/v1/try?vcpus={whole}&policy=dedicated").json
    assert told["refused"]
    assert (told["cpus"], told["start"], told["score"]) == ("", None, None)
    assert told["after"] == told["before"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "'vcpus'"),
        ("vcpus=0", "'vcpus'"),
        ("vcpus=many", "'vcpus'"),
        ("vcpus=1&policy=greedy", "'policy'"),
        ("vcpus=1&numa=2", "'numa'"),
        ("vcpus=1&sockets=0", "'sockets'"),
        ("vcpus=1&cores=1", "'cores'"),
    ],
)
def test_bad_input_is_named_with_a_hint(service: Running, query: str, named: str) -> None:
    answer = service.get(f"/api/v1/try?{query}")
    assert (answer.status, answer.json["code"]) == (400, "bad-request")
    assert named in str(answer.json["detail"])
    assert answer.json["hint"]


def test_a_preview_of_a_good_placement_moves_nobody(service: Running) -> None:
    add_guest(service.node, 100)
    service.node.do("start", 100)
    service.confirms(100)
    before = everything(service)
    for by in ("reassign", "rebalance"):
        told = service.get(f"/api/v1/preview?by={by}").json
        assert (told["by"], told["moves"], told["staying"]) == (by, [], [100])
        assert told["before"] == told["after"] is not None
    assert everything(service) == before
    assert service.get("/api/v1/preview").json["by"] == "reassign"
    assert service.get("/api/v1/preview?by=luck").status == 400


def test_a_preview_of_nobody_is_empty(service: Running) -> None:
    told = service.get("/api/v1/preview").json
    assert told == {
        "by": "reassign",
        "moves": [],
        "staying": [],
        "before": None,
        "after": None,
    }


def test_what_a_preview_says_is_what_reassign_does(sim_node: Node) -> None:
    """Three guests on two CPUs: two of them share one. When the third stops, one of the two that
    are left on the same CPU may have the other."""
    rest = sorted(os.sched_getaffinity(0))[2:]
    reserved = f"PCA_RESERVED_CPUS={','.join(map(str, rest))}\n"
    with Running(sim_node, settings=reserved) as service:
        service.says("latency measured")
        for vmid in (100, 101, 102):
            add_guest(service.node, vmid)
            service.node.do("start", vmid)
            service.confirms(vmid)
        service.node.do("stop", who_has_its_own(service))
        service.says("stopped")
        _preview_comes_true(service)


def _preview_comes_true(service: Running) -> None:
    moves = service.get("/api/v1/preview").json["moves"]
    assert isinstance(moves, list)
    assert len(moves) == 1
    move = moves[0]
    assert (move["gain"] > move["cost"], move["after"] != move["before"]) == (True, True)
    advised = service.get("/api/v1/preview?by=rebalance").json["moves"]
    assert isinstance(advised, list)
    assert [one["after"] for one in advised] == [move["after"]]
    rows = service.ask("POST", "/api/v1/reassign", {})
    assert rows.status == 200
    assert service.guest(move["vmid"])["cpus"] == move["after"]
    assert service.get("/api/v1/preview").json["moves"] == []


def who_has_its_own(service: Running) -> int:
    """The guest that shares its CPU with nobody, as the others do."""
    cpus = {vmid: service.guest(vmid)["cpus"] for vmid in (100, 101, 102)}
    single = [v for v, mine in cpus.items() if list(cpus.values()).count(mine) == 1]
    assert len(single) == 1
    return single[0]
