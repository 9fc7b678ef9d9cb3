"""hwloc's XML: what we write is read back whole, other programs' is read, anything sly refused."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import hwloc, hwloc_xml, snapshot
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

SPECS = (
    "1x1x1x1",
    "1x1x4x2",
    "2x4x4x2+nodes=4",
    "2x2x4x2+dies=2",
    "1x2x2x2+4e+2lp",
    "2x1x4x1+cpuless=1",
    "2x1x4x1+memoryless=1",
    "1x1x4x1+nocache",
    "1x1x6x2+gaps=2-3+offline=5",
    "2x8x16x2",
)
CAPTURED = sorted((Path(__file__).parents[1] / "hosts").glob("*.json"))


def hosts() -> dict[str, Topology]:
    made = {spec: topology(generate(parse_spec(spec))) for spec in SPECS}
    kept = {path.stem: topology(snapshot.parse(path.read_text()).files) for path in CAPTURED}
    return {**made, **kept}


HOSTS = hosts()


@pytest.mark.parametrize("name", HOSTS)
def test_what_is_written_is_read_back(name: str) -> None:
    here = HOSTS[name]
    matrix = predicted(here)
    found = hwloc.parse(hwloc_xml.to_text(here, matrix))
    back = topology(found.files)
    for level in ("online", "cores", "cache_groups", "l2_groups", "packages", "dies"):
        assert getattr(back, level) == getattr(here, level), level
    assert [(n.node, n.cpus, n.memory_mib or 0) for n in back.nodes] == [
        (n.node, n.cpus, n.memory_mib or 0) for n in here.nodes
    ]
    assert back.model_name == here.model_name
    if len(here.online) == 1:
        assert found.latency_ns is None
        return
    assert found.latency_ns is not None
    flat = [ns for row in found.latency_ns for ns in row]
    assert flat == pytest.approx(list(matrix.ns), abs=0.001)


def document(inside: str, head: str = '<?xml version="1.0"?>') -> str:
    return f'{head}<topology version="2.0"><object type="Machine">{inside}</object></topology>'


PUS = '<object type="PU" os_index="3"/><object type="PU" os_index="1"/>'


def distances(
    values: str = "0 7 9 0", *, name: str = "x", kind: str = "6", indexes: str = "3 1"
) -> str:
    """After the objects, as hwloc writes it: the document's object is closed and opened again."""
    return (
        f'</object><distances2 type="PU" nbobjs="2" kind="{kind}" name="{name}" indexing="os">'
        f"<indexes>{indexes}</indexes><u64values>{values[:3]}</u64values>"
        f'<u64values>{values[3:]}</u64values></distances2><object type="Misc">'
    )


def test_distances_of_others_are_ns_in_the_order_of_their_indexes() -> None:
    found = hwloc.parse(document(PUS + distances()))
    assert found.latency_ns == ((0.0, 9.0), (7.0, 0.0))


def test_ours_come_before_others_and_are_ps() -> None:
    both = distances() + distances("0 5000 6000 0", name=hwloc.IN_PS) + distances("0 1 1 0")
    assert hwloc.parse(document(PUS + both)).latency_ns == ((0.0, 6.0), (5.0, 0.0))


@pytest.mark.parametrize(
    "other",
    [
        distances(kind="10"),  # a bandwidth
        distances(kind="latency"),
        distances(indexes="3 2"),
        distances().replace('"PU"', '"NUMANode"'),
        "",
    ],
)
def test_what_is_no_latency_of_all_pus_is_left_out(other: str) -> None:
    assert hwloc.parse(document(PUS + other)).latency_ns is None


def test_an_older_version_s_sockets_are_packages() -> None:
    one = '<object type="Socket" os_index="4"><object type="PU" os_index="0"/></object>'
    two = '<object type="Socket" os_index="5"><object type="PU" os_index="1"/></object>'
    back = topology(hwloc.parse(document(one + two)).files)
    assert [place.package_id for place in back.places] == [4, 5]


def test_ids_of_cores_may_be_larger_than_any_number_of_a_cpu() -> None:
    """They may be offsets in the table of ACPI that tells of them."""
    cores = "".join(
        f'<object type="Core" os_index="{70000 + 148 * cpu}"><object type="PU" os_index="{cpu}"/>'
        "</object>"
        for cpu in range(2)
    )
    found = topology(hwloc.parse(document(cores)).files)
    assert [place.core_id for place in found.places] == [70000, 70148]


def test_a_set_of_all_that_follow() -> None:
    node = '<object type="NUMANode" os_index="0" cpuset="0xf...f"/>'
    assert "1,3" in hwloc.parse(document(node + PUS)).files.values()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            document(PUS, '<!DOCTYPE topology [<!ENTITY a "b">]>'),
            "document type of its own",
        ),
        (
            document(PUS, '<!DOCTYPE topology SYSTEM "file:///etc/passwd">'),
            "document type",
        ),
        (
            document(PUS, '<!DOCTYPE topology PUBLIC "x" "http://192.0.2.1/hwloc2.dtd">'),
            "document type",
        ),
        (
            document(
                "<info name='CPUModel' value='&x;'/>" + PUS,
                '<!DOCTYPE topology SYSTEM "hwloc2.dtd" [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            ),
            "document type",
        ),
        (document("&x;" + PUS, '<!DOCTYPE topology SYSTEM "hwloc2.dtd">'), "refused"),
        (document("&x;" + PUS), "line 1"),
        (document(PUS, '<?xml-stylesheet href="http://192.0.2.1/"?>'), "processing instructions"),
        ("", "line 1"),
        ("<topology>", "line 1"),
        ("<html/>", "no hwloc topology"),
        ("<topology/>", "has no PU"),
        (document(PUS + PUS), "twice"),
        (document('<object type="PU"/>'), "os_index"),
        (document('<object type="PU" os_index="-1"/>'), "os_index"),
        (document('<object type="PU" os_index="99999999"/>'), "os_index"),
        (document(PUS + distances("0 1 2")), "distances for 2 PUs"),
        (document(PUS + distances("0 1.5 2 0")), "is no distance"),
        (document(PUS + distances().replace('"os"', '"gp"')), "OS index"),
        (document('<object type="NUMANode" os_index="0" cpuset="0xzz"/>' + PUS), "is no set"),
        ("<topology>" + "<object>" * 300, "nested too deeply"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(SyntaxFault, match=re.escape(why)) as fault:
        hwloc.parse(text, where="x.xml")
    assert str(fault.value).startswith("x.xml: ")


@given(st.data())
def test_a_damaged_document_is_read_or_refused(data: st.DataObject) -> None:
    text = hwloc_xml.to_text(HOSTS["1x1x4x2"], predicted(HOSTS["1x1x4x2"]))
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 40))
    put = data.draw(st.text(alphabet='<>/"& 0123456789abcx=,', max_size=8))
    try:
        assert hwloc.parse(text[:at] + put + text[at + length :]).files
    except SyntaxFault as fault:
        assert len(fault.text) < 200  # noqa: PT017
