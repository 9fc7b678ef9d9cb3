"""The measuring program's lines: what is understood, what is refused, what batches are worth."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.latency import protocol
from proxmox_cpu_affinity.latency.protocol import (
    ADAPTIVE,
    BURST_US,
    Batch,
    Failed,
    Greeting,
    Home,
    Parameters,
    Ran,
    Refused,
    Reply,
    Sampled,
    answered,
    fixed_or_adaptive,
    parse,
    sample,
)
from proxmox_cpu_affinity.model.errors import MeasureError, SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu, NodeId
from proxmox_cpu_affinity.model.latency import Method, PairSample, Verdict

PAIR = (Cpu(0), Cpu(5))


def batches(*ns: float, switches: int = 0) -> list[Batch]:
    return [Batch(value, switches) for value in ns]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("pingpong 2\n", Greeting(2)),
        (
            "sample 0 5 1 27.140:2 26:0",
            Sampled(PAIR, NodeId(1), (Batch(27.14, 2), Batch(26.0, 0))),
        ),
        ("sample 0 5 -1 27.140:0", Sampled(PAIR, None, (Batch(27.14, 0),))),
        ("error 0 5 EINVAL", Failed(PAIR, "EINVAL")),
        ("ran 1", Ran(1)),
        ("bad 12", Refused(12)),
    ],
)
def test_every_line_of_the_program_is_understood(line: str, reply: Reply) -> None:
    assert parse(line) == reply


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "pingpong",
        "pingpong one",
        "sample 0 5 0",
        "sample 0 5 27.140:0",
        "sample 0 5 0 nan:0",
        "sample 0 5 0 inf:0",
        "sample 0 5 0 -1:0",
        "sample 0 5 0 27.1",
        "sample 0 5 0 27.1:",
        "sample 0 5 0 27.1:0:0",
        "sample 0 5 -2 27.1:0",
        "sample -1 5 0 27.1:0",
        "sample 0 99999999 0 27.1:0",
        "sample ٣ 5 0 27.1:0",
        "sample 0 5 0" + " 1:0" * 10_001,
        "error 0 5",
        "error 0 5 E INVAL",
        "ran",
        "ran " + "9" * 400,
        "Segmentation fault",
        "\0" * 20,
    ],
)
def test_rubbish_is_a_located_error(line: str) -> None:
    with pytest.raises(SyntaxFault) as fault:
        parse(line)
    assert len(fault.value.text) < 200
    assert "\n" not in fault.value.text


@given(st.text(max_size=80))
def test_any_text_is_a_reply_or_a_syntax_fault(text: str) -> None:
    try:
        assert isinstance(parse(text), Reply)
    except SyntaxFault as fault:
        assert fault.text  # noqa: PT017


def sampled(*ns: float, pair: tuple[Cpu, Cpu] = PAIR) -> Sampled:
    return Sampled(pair, NodeId(0), tuple(batches(*ns)))


def test_a_measured_pair_is_a_sample_with_its_batches_lowest_first() -> None:
    got = answered(PAIR, sampled(27.0, 26.0, 26.5), agree=0.05)
    assert got == PairSample(*PAIR, (26.0, 26.5, 27.0), Verdict.TRUSTED, NodeId(0))


def test_a_pair_that_cannot_be_measured_says_why() -> None:
    assert answered(PAIR, Failed(PAIR, "ENODEV"), agree=0.05) == Failed(PAIR, "ENODEV")


OTHER = (Cpu(1), Cpu(5))


@pytest.mark.parametrize(
    "reply", [sampled(27.0, pair=OTHER), Failed(OTHER, "EINVAL"), Refused(3), Greeting(2), Ran(1)]
)
def test_an_answer_that_does_not_fit_the_question_is_refused(reply: Reply) -> None:
    with pytest.raises(MeasureError):
        answered(PAIR, reply, agree=0.05)


@pytest.mark.parametrize(
    ("got", "verdict"),
    [
        (batches(26.0, 26.1, 26.2, 26.3, 90.0), Verdict.TRUSTED),
        (batches(26.0, 30.0, 31.0), Verdict.UNSTABLE),  # the two lowest differ
        (batches(10.0, 10.1, 27.0, 27.1, 27.2), Verdict.UNSTABLE),  # the line moved nearer midway
        (batches(26.0), Verdict.UNSTABLE),  # nothing to agree with
        (batches(0.0, 0.0), Verdict.UNSTABLE),  # a clock that does not run
        (batches(26.0, 26.1) + batches(900.0, 800.0, switches=3), Verdict.UNSTABLE),
        (batches(26.0, 26.1, 26.2) + batches(900.0, 800.0, switches=3), Verdict.TRUSTED),
    ],
)
def test_the_verdict_on_a_pair(got: list[Batch], verdict: Verdict) -> None:
    assert sample(PAIR, got, agree=0.05).verdict is verdict


def test_batches_with_a_switch_are_dropped_where_others_are_left() -> None:
    mixed = batches(26.0, 27.0) + batches(900.0, switches=1)
    assert sample(PAIR, mixed, agree=0.05).batches == (26.0, 27.0)
    switched = batches(26.0) + batches(900.0, switches=1)
    assert sample(PAIR, switched, agree=0.05).batches == (26.0, 900.0)


@given(st.lists(st.tuples(st.floats(1, 1e6), st.integers(0, 3)), min_size=1, max_size=40))
def test_a_trusted_median_is_near_the_lowest_batch(got: list[tuple[float, int]]) -> None:
    made = sample(PAIR, [Batch(ns, switches) for ns, switches in got], agree=0.05)
    assert set(made.batches) <= {ns for ns, _ in got}
    if made.verdict is Verdict.TRUSTED:
        assert made.value <= made.batches[0] * protocol.STEADY


def test_adaptive_is_the_default_and_fixed_batches_are_said() -> None:
    assert fixed_or_adaptive(None, None) == ADAPTIVE
    assert not ADAPTIVE.fixed
    both = fixed_or_adaptive(10, 100_000)
    assert (both.batches_min, both.batches_max, both.trips) == (10, 10, 100_000)
    assert both.fixed
    assert fixed_or_adaptive(None, 50).batches_max == ADAPTIVE.batches_max


@pytest.mark.parametrize(("rounds", "iterations"), [(0, None), (None, 0), (-1, 5), (10**9, 1)])
def test_rounds_and_iterations_out_of_range(rounds: int | None, iterations: int | None) -> None:
    with pytest.raises(ValueError, match="1 to"):
        fixed_or_adaptive(rounds, iterations)


def test_a_longer_pair_gets_more_time() -> None:
    limits = [
        fixed_or_adaptive(r, i).pair_limit_us
        for r, i in ((None, None), (10, 10_000), (10_000, 10_000_000))
    ]
    assert limits == sorted(set(limits))


def test_limits_are_those_of_the_header() -> None:
    header = (Path(protocol.__file__).with_name("pingpong.h")).read_text()
    for name, value in [
        ("PP_BATCHES_LIMIT", protocol.BATCHES_LIMIT),
        ("PP_TRIPS_LIMIT", protocol.TRIPS_LIMIT),
        ("PP_TIME_LIMIT_US", protocol.PAIR_LIMIT_US),
        ("PP_LINES_LIMIT", protocol.LINES_LIMIT),
        ("PP_CPU_LIMIT", 65536),
    ]:
        assert f"{name} = {value}," in header


def test_parameters_are_lines_of_a_word_and_a_value() -> None:
    lines = Parameters(trips=7, method=Method.RW, home=Home.SECOND).text().splitlines()
    assert {"batch 7", "method rw", "home second"} <= set(lines)
    assert all(len(line.split()) == 2 for line in lines)
    assert all(math.isfinite(float(line.split()[1])) for line in lines[2:])


def test_an_order_is_its_rounds_and_a_limit() -> None:
    order = ADAPTIVE.order([[PAIR, OTHER], [PAIR]])
    assert order == "limit-us 531000\npair 0 5\npair 1 5\nround\npair 0 5\nround\nrun\n"
    assert ADAPTIVE.order([], burst=True) == f"limit-us {BURST_US}\nrun\n"
    assert BURST_US < 1000


@pytest.mark.parametrize("lines", [0, 17])
def test_lines_out_of_range(lines: int) -> None:
    with pytest.raises(ValueError, match="1 to 16 lines"):
        Parameters(lines=lines)
