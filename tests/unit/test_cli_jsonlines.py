"""`plan --json-lines`: a conversation, line for line, and what is wrong with one."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from proxmox_cpu_affinity.cli.jsonlines import converse
from proxmox_cpu_affinity.cli.main import main

# Two cache groups of two cores of two CPUs; CPU n and n + 4 are siblings.
CPUS = [
    {"cpu": n, "core": n % 4, "l3": n % 4 // 2, "node": 0, "socket": 0, "kind": "P"}
    for n in range(8)
]


def _ns(i: int, j: int) -> float:
    if i == j:
        return 0.0
    if i % 4 == j % 4:
        return 8.0
    return 20.0 if i % 4 // 2 == j % 4 // 2 else 80.0


MACHINE = {
    "op": "machine",
    "name": "two groups",
    "n": 8,
    "lat": [[_ns(i, j) for j in range(8)] for i in range(8)],
    "cpus": CPUS,
    "reserved": [],
    "expected": 8,
    "weights": {"thread": 0.25, "smt_cross": 0.15, "smt_own": 0.12, "lat_ns": 0.002, "ecore": 0.4},
}
Message = dict[str, object]


def start(vm: int, vcpus: int, *, exclusive: bool = False) -> Message:
    return {"op": "start", "vm": vm, "vcpus": vcpus, "exclusive": exclusive}


def stop(vm: int) -> Message:
    return {"op": "stop", "vm": vm}


def answers(*messages: object) -> list[dict[str, object]]:
    said: list[str] = []
    converse([json.dumps(message) for message in messages], said.append)
    return [json.loads(line) for line in said]


def cpus(answer: dict[str, object]) -> list[int]:
    found = answer["cpus"]
    assert isinstance(found, list)
    return found


def group(cpu: int) -> int:
    return cpu % 4 // 2


def test_a_conversation() -> None:
    said = answers(MACHINE, start(1, 4), start(2, 2), start(3, 2), stop(2), stop(3), stop(1))
    assert said[0] == {"ok": True}
    first, second, third = (cpus(answer) for answer in said[1:4])
    assert sorted(first + second + third) == list(range(8))
    assert len({group(cpu) for cpu in first}) == 1
    assert said[1]["moves"] == {}
    assert [answer["moves"] for answer in said[4:6]] == [{}, {}]
    assert len(said) == 7


def test_vcpus_are_in_order_of_cache_group_core_and_number() -> None:
    said = answers(MACHINE, start(1, 8))
    assert cpus(said[1]) == [0, 4, 1, 5, 2, 6, 3, 7]


def test_a_machine_file_is_a_message_without_the_rest() -> None:
    plain = {key: MACHINE[key] for key in ("name", "lat", "cpus")}
    assert answers({"op": "machine", **plain}, start(1, 3))[0] == {"ok": True}


def test_reserved_cpus_are_not_given_and_a_larger_guest_gets_all_others() -> None:
    said = answers({**MACHINE, "reserved": [0, 4]}, start(1, 8), start(2, 2))
    assert sorted(cpus(said[1])) == [1, 2, 3, 5, 6, 7]
    assert not {0, 4} & set(cpus(said[2]))


def test_weights_that_are_sent_decide() -> None:
    """A full host: two CPUs on one core where that is cheap, else on two."""
    far = {**MACHINE, "weights": {"smt_cross": 0.0, "smt_own": 0.9, "lat_ns": 0.0}}
    near = {**MACHINE, "weights": {"smt_cross": 0.3, "smt_own": 0.1, "lat_ns": 0.002}}
    apart, together = (cpus(answers(told, start(1, 2))[1]) for told in (far, near))
    assert len({cpu % 4 for cpu in apart}) == 2
    assert len({cpu % 4 for cpu in together}) == 1


def test_a_dedicated_guest_is_alone_on_its_cores_and_shares_where_it_does_not_fit() -> None:
    said = answers(MACHINE, start(1, 2, exclusive=True), start(2, 2), start(3, 4, exclusive=True))
    cores = {cpu % 4 for cpu in cpus(said[1])}
    assert not cores & {cpu % 4 for cpu in cpus(said[2])}
    assert len(cpus(said[3])) == 4
    assert not cores & {cpu % 4 for cpu in cpus(said[3])}


def test_a_guest_for_which_dedicated_ones_leave_too_little_is_refused() -> None:
    said = answers(MACHINE, start(1, 6, exclusive=True), start(2, 4), start(3, 2))
    assert "leave 2 CPUs" in str(said[2]["error"])
    assert len(cpus(said[3])) == 2


def test_a_stop_may_move_another_guest_to_a_better_place() -> None:
    """Guests in the holes of both groups come together when one group has room."""
    holes = [start(vm, 1) for vm in range(1, 7)]
    said = answers(MACHINE, *holes, start(7, 2), *(stop(vm) for vm in range(1, 7)))
    placed = cpus(said[7])
    moved = [answer["moves"] for answer in said[8:]]
    last = next((m["7"] for m in reversed(moved) if isinstance(m, dict) and "7" in m), placed)
    assert len({group(cpu) for cpu in last}) == 1


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["nonsense"], "not JSON"),
        (["[]"], "not a JSON object"),
        (['{"op":"fly"}'], "'fly'"),
        (['{"vm":1}'], "'op'"),
        ([json.dumps(start(1, 2))], "no machine"),
        ([json.dumps({**MACHINE, "cpus": []})], "'cpus'"),
        ([json.dumps({**MACHINE, "cpus": CPUS + CPUS[:1]})], "'cpus'"),
        ([json.dumps({**MACHINE, "lat": [[0.0]]})], "8 rows"),
        ([json.dumps({**MACHINE, "lat": [[-1.0] * 8] * 8})], "'lat'"),
        ([json.dumps({**MACHINE, "weights": {"weight": 1}})], "'weight'"),
        ([json.dumps({**MACHINE, "weights": 3})], "'weights'"),
        ([json.dumps({**MACHINE, "reserved": 3})], "'reserved'"),
        ([json.dumps({**MACHINE, "cpus": [{**CPUS[0], "kind": "X"}]})], "'kind'"),
        ([json.dumps(MACHINE), json.dumps(stop(5))], "VM 5"),
        ([json.dumps(MACHINE), json.dumps(start(1, 0))], "'vcpus'"),
        ([json.dumps({**MACHINE, "reserved": list(range(8))}), json.dumps(start(1, 1))], "no CPU"),
    ],
)
def test_what_is_wrong_is_answered_and_ends_nothing(lines: Sequence[str], named: str) -> None:
    said: list[str] = []
    converse([*lines, json.dumps(MACHINE), json.dumps(start(9, 2))], said.append)
    assert named in json.loads(said[len(lines) - 1])["error"]
    assert json.loads(said[-2]) == {"ok": True}
    assert len(json.loads(said[-1])["cpus"]) == 2


def test_bytes_that_are_no_text_are_answered_and_end_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxmox_cpu_affinity", "plan", "--json-lines"],
        input=b"\xff\n" + json.dumps(MACHINE).encode() + b"\n",
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},  # as in most locales
        capture_output=True,
        check=True,
    )
    assert [list(json.loads(line)) for line in done.stdout.splitlines()] == [["error"], ["ok"]]
    assert done.stderr == b""


def test_a_conversation_with_nobody_ends_at_once() -> None:
    program = f"{sys.executable} -m proxmox_cpu_affinity plan --json-lines <&-"
    done = subprocess.run(["sh", "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_nothing_is_said_after_quit() -> None:
    assert answers({"op": "quit"}, MACHINE) == []


def test_the_program_answers_each_line_before_the_next_is_sent() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "proxmox_cpu_affinity", "plan", "--json-lines"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for message, key in ((MACHINE, "ok"), (start(1, 2), "cpus"), (stop(1), "moves")):
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            assert key in json.loads(process.stdout.readline())
        process.stdin.write('{"op":"quit"}\n')
        process.stdin.close()
        assert process.wait(30) == 0


def test_the_option_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--json-lines", "--guest=100:1"]) == 2
    assert "--json-lines stands alone" in capsys.readouterr().err
