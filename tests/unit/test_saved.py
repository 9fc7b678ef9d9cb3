"""A host in a file of any form we read; what is of none is refused."""

import json

import pytest

from proxmox_cpu_affinity.cli.latencies import ranking_document
from proxmox_cpu_affinity.formats import hwloc_xml, latency_csv, ranking_json, saved, snapshot
from proxmox_cpu_affinity.formats.snapshot import Snapshot
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

FILES = generate(parse_spec("2x1x2x2"))
HOST = topology(FILES)
MATRIX = predicted(HOST)
ROWS = tuple(tuple(MATRIX.row(cpu)) for cpu in MATRIX.cpus)
ENDLESS = [
    {"cpu": a, "ranking": [{"cpu": b, "socket": 0, "core": b, "latency_ns": 10**400}]}
    for a, b in ((0, 1), (1, 0))
]
TEXTS = {
    "csv": latency_csv.to_text(MATRIX),
    "xml": hwloc_xml.to_text(HOST, MATRIX),
    "ranking": json.dumps(ranking_document(HOST, MATRIX)),
    "snapshot": snapshot.to_text(Snapshot("x", "y", FILES, ROWS)),
}


@pytest.mark.parametrize("form", TEXTS)
def test_every_form_keeps_the_latencies(form: str) -> None:
    found = saved.parse(TEXTS[form])
    assert found.latency_ns is not None
    for ours, theirs in zip(ROWS, found.latency_ns, strict=True):
        assert theirs == pytest.approx(ours, abs=0.01)
    assert topology(found.files).online == HOST.online


@pytest.mark.parametrize("form", ["xml", "ranking", "snapshot"])
def test_forms_that_name_cores_and_packages_keep_them(form: str) -> None:
    back = topology(saved.parse(TEXTS[form]).files)
    assert (back.cores, back.packages) == (HOST.cores, HOST.packages)


@pytest.mark.parametrize("form", TEXTS)
def test_a_byte_order_mark_is_no_part_of_the_text(form: str) -> None:
    assert saved.parse(f"\ufeff{TEXTS[form]}") == saved.parse(TEXTS[form])


@pytest.mark.parametrize("form", ["xml", "ranking", "snapshot"])
def test_empty_lines_before_a_form_say_nothing(form: str) -> None:
    assert saved.parse(f"\r\n \n{TEXTS[form]}") == saved.parse(TEXTS[form])


def test_an_empty_first_line_is_the_first_row_of_a_triangle() -> None:
    """It was cut off: three CPUs were read as two, with a latency of another pair."""
    found = saved.parse("\n5.0\n6.0,7.0\n").latency_ns
    assert found == ((0.0, 5.0, 6.0), (5.0, 0.0, 7.0), (6.0, 7.0, 0.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "[1]",
        '[{"cpu": 0}]',
        '[{"cpu": 0, "ranking": []}, {"cpu": 1, "ranking": []}]',
        '[{"cpu": true, "ranking": []}, {"cpu": 1, "ranking": []}]',
        "{}",
        "<xml/>",
        "hello",
        json.dumps(ENDLESS),
        "[" * 100_000,
    ],
)
def test_what_is_of_no_form_is_a_located_fault(text: str) -> None:
    with pytest.raises(SyntaxFault) as fault:
        saved.parse(text, where="file")
    assert str(fault.value).startswith("file: ")


def neighbour(cpu: int, **other: object) -> dict[str, object]:
    return {"cpu": cpu, "socket": 0, "core": cpu, "latency_ns": 5.0, **other}


@pytest.mark.parametrize(
    "other", [{"latency_ns": "5"}, {"latency_ns": -1}, {"latency_ns": True}, {"socket": -1}]
)
def test_a_ranking_with_a_wrong_value_is_refused(other: dict[str, object]) -> None:
    document = [
        {"cpu": 0, "ranking": [neighbour(1, **other)]},
        {"cpu": 1, "ranking": [neighbour(0)]},
    ]
    with pytest.raises(SyntaxFault, match="no core ranking"):
        ranking_json.snapshot(document)
    document[0]["ranking"] = [neighbour(1)]
    assert ranking_json.snapshot(document).latency_ns == ((0.0, 5.0), (5.0, 0.0))
