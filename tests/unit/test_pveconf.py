"""The guest file: every quirk PVE has in reading and writing it, and what we take from it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import pveconf, pveschema
from proxmox_cpu_affinity.formats.pveconf import GuestFile, Section
from proxmox_cpu_affinity.model.guest import VCPUS_MOST, GuestConfig, Policy
from proxmox_cpu_affinity.model.ids import Vmid


def config(text: str) -> GuestConfig:
    return pveconf.guest_config(text, vmid=Vmid(100), node="pve")


def main(text: str) -> dict[str, str]:
    return dict(pveconf.parse(text).main.values)


def test_sections_are_told_apart() -> None:
    file = pveconf.parse(
        "#main's\n"
        "cores: 2\n"
        "\n"
        "[PENDING]\n"
        "cores: 4\n"
        "delete: !affinity,numa\n"
        "\n"
        "[special:cloudinit]\n"
        "ipconfig0: anything goes here\n"
        "\n"
        "[before-upgrade]\n"
        "#snapshot's\n"
        "cores: 8\n"
        "snaptime: 1700000000\n"
    )
    assert file.main == Section({"cores": "2"}, {}, "main's")
    assert file.pending.values == {"cores": "4", "delete": "!affinity,numa"}
    assert pveconf.pending_deletions(file) == {"affinity": True, "numa": False}
    assert file.special["cloudinit"].values == {"ipconfig0": "anything goes here"}
    assert file.snapshots["before-upgrade"].values == {"cores": "8", "snaptime": "1700000000"}
    assert file.snapshots["before-upgrade"].description == "snapshot's"
    assert file.warnings == ()


@pytest.mark.parametrize("header", ["[PENDING]", "[pending]", "[Pending]  ", "[PENDING]\r"])
def test_pending_in_any_case_and_with_blanks(header: str) -> None:
    assert pveconf.parse(f"{header}\ncores: 3\n").pending.values == {"cores": "3"}


@pytest.mark.parametrize(
    "header", ["[special:cloudinit]", "[snap]", "[a1]", "[x]", "[]", "[two words]", "[1st]", "[-]"]
)
def test_keys_below_any_header_are_not_the_guests(header: str) -> None:
    found = config(f"cores: 2\n{header}\ncores: 64\naffinity: 1\nhookscript: local:snippets/x\n")
    assert (found.cores, found.affinity, found.hookscript) == (2, None, None)


@pytest.mark.parametrize("header", ["[x]", "[two words]", "[1st]", "[special:other]"])
def test_unknown_sections_are_skipped_up_to_the_next_known_header(header: str) -> None:
    file = pveconf.parse(f"cores: 2\n{header}\n#gone\ncores: 3\n[PENDING]\ncores: 4\n")
    assert file.snapshots == {}
    assert file.special == {}
    assert file.pending.values == {"cores": "4"}
    assert file.main.description is None
    assert file.warnings == (f"skipping unknown section: '{header[1:-1]}'",)


def test_a_repeated_section_replaces_the_first_and_warns() -> None:
    file = pveconf.parse("[snap]\ncores: 1\nname: a\n[snap]\ncores: 2\n")
    assert file.snapshots["snap"].values == {"cores": "2"}
    assert file.warnings == ("duplicate section: snap",)


@pytest.mark.parametrize(
    "comment",
    ["#hookscript: local:snippets/x", "#affinity: 1", "#[PENDING]", "#template: 1", "# cores: 9"],
)
def test_description_text_that_looks_like_a_key_is_none(comment: str) -> None:
    assert config(f"{comment}\ncores: 2\n") == GuestConfig(Vmid(100), "pve", cores=2)
    assert pveconf.parse(comment).main.description == comment[1:]


def test_description_is_percent_decoded_and_joined_from_all_its_lines() -> None:
    file = pveconf.parse("#a%3A b\ncores: 1\n#%C3%A4\ndescription: tail%0Aend\n")
    assert file.main.description == "a: b\nä\ntail\nend"
    assert pveconf.write(file) == "#a%3A b\n#%C3%A4\n#tail\n#end\ncores: 1\n"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("cores: 4", {"cores": "4"}),  # no newline at the end
        ("cores: 4\r\nname: a\r\n", {"cores": "4", "name": "a"}),
        ("cores:4", {"cores": "4"}),
        ("cores:  4  \t", {"cores": "4"}),
        ("cores: 4\ncores: 2", {"cores": "2"}),  # the last one wins
        ("cores: 4\n\n   \ncores: x", {"cores": "4"}),  # but one that is dropped does not
        ("cores: 007", {"cores": "7"}),
        ("Cores: 4", {}),
        (" cores: 4", {}),
        ("cores 4", {}),
        ("cores: 4.5", {}),
        ("cores: -1", {}),
        ("cores: ", {}),
        ("unheard-of: 1", {}),
        ("cpuaffinity: 1", {}),  # blogs mention it; PVE has no such key
        ("cpulimit: 1.5", {"cpulimit": "1.5"}),
        ("cpulimit: .5", {}),
        ("cdrom: none", {"ide2": "none"}),
        ("boot: ", {"boot": " "}),  # PVE writes it so when the boot order is empty
        ("args: -cpu host   ", {"args": "-cpu host"}),
        ("ostype: \"l26\"", {"ostype": "l26"}),
        ("name: web.example.org", {"name": "web.example.org"}),
        ("name: not a name", {}),
        ("tags: a;b,c d", {"tags": "a;b,c d"}),
        ("tags: a!", {}),
        ("delete: cores", {}),  # legal in [PENDING] only
        ("snapstate: prepare", {}),  # never survives in the main section
        ("lock: backup", {"lock": "backup"}),
        ("lock: something-new", {"lock": "something-new"}),  # enumerations are not checked
        ("numa0: cpus=0-1,hostnodes=0,policy=bind", {"numa0": "cpus=0-1,hostnodes=0,policy=bind"}),
        ("hotplug: network,disk", {"hotplug": "network,disk"}),
        ("hotplug: everything", {}),
        ("memory: 2048", {"memory": "2048"}),
        ("memory: current=2048", {"memory": "current=2048"}),
        ("memory: much", {}),
        ("hookscript: local:snippets/x", {"hookscript": "local:snippets/x"}),
        ("hookscript: /usr/bin/true", {}),
    ],
)  # fmt: skip
def test_values_of_the_main_section(text: str, values: dict[str, str]) -> None:
    assert main(text) == values


def test_what_is_dropped_is_kept_apart_with_a_warning() -> None:
    file = pveconf.parse("cores: many\nwat: 1\nnonsense\n")
    assert file.main == Section({}, {"cores": "many", "wat": "1"})
    assert file.warnings == (
        "unable to parse value of 'cores' - type check ('integer') failed - got 'many'",
        "unable to parse value of 'wat' - unknown setting 'wat'",
        "unable to parse config: nonsense",
    )
    assert pveconf.write(file) == ""


@pytest.mark.parametrize("word", ["1", "on", "yes", "true", "Yes", "TRUE"])
def test_true(word: str) -> None:
    assert config(f"template: {word}").template
    assert main(f"template: {word}") == {"template": "1"}


@pytest.mark.parametrize("word", ["0", "off", "no", "false", "No"])
def test_false(word: str) -> None:
    assert not config(f"template: {word}").template
    assert main(f"template: {word}") == {"template": "0"}


@pytest.mark.parametrize("word", ["2", "y", "enabled", "01", ""])
def test_no_boolean(word: str) -> None:
    assert main(f"template: {word}") == {}


@pytest.mark.parametrize(
    ("text", "cores", "sockets", "vcpus"),
    [
        ("", 1, 1, 1),
        ("cores: 4", 4, 1, 4),
        ("cores: 4\nsockets: 2", 4, 2, 8),
        ("cores: 4\nsockets: 2\nvcpus: 3", 4, 2, 3),
        ("cores: 4\nvcpus: 0", 4, 1, 4),  # 0 is false to Perl: as if unset
        ("cores: 0", 1, 1, 1),
        ("cores: 2\nvcpus: 9", 2, 1, 2),
        ("smp: 4", 1, 4, 4),
        ("smp: 4\ncores: 2", 2, 4, 8),
        ("smp: 4\nsockets: 3", 1, 3, 3),
        ("cpulimit: 1\ncpuunits: 50\ncores: 2", 2, 1, 2),  # neither lowers the count
    ],
)
def test_vcpus(text: str, cores: int, sockets: int, vcpus: int) -> None:
    found = config(text)
    assert (found.cores, found.sockets, found.vcpu_count) == (cores, sockets, vcpus)


@pytest.mark.parametrize("more", ["", "numa: 1\n", "numa: 1\nnuma0: cpus=0-1\n"])
def test_a_guest_of_absurdly_many_vcpus_takes_no_memory(more: str) -> None:
    """PVE takes any number of cores, from everybody who may configure a guest: what a placement
    keeps of each vCPU filled the service's memory, when such a guest was about to start."""
    found = config(f"cores: 1000000000\nsockets: 4\n{more}")
    assert found.vcpu_count == VCPUS_MOST
    assert sum(len(node.vcpus) for node in found.guest_nodes) <= VCPUS_MOST
    assert config(f"cores: 9999999\nvcpus: 999999\n{more}").vcpu_count == VCPUS_MOST


MANY = " " * 900_000
"""Nearly all that fits into a guest's file. Who may configure a guest may write it, for example
into its ciuser: read with the patterns of PVE it took hours, with the interpreter's lock held."""


@pytest.mark.parametrize(
    "line", [f"ciuser: x{MANY}y", f"ciuser: x{MANY}", f"args: {MANY}", f"description: {MANY}", MANY]
)
def test_a_line_of_very_many_blanks_is_read_at_once(line: str) -> None:
    found = main(f"cores: 2\n{line}\nsockets: 3\n")
    assert (found["cores"], found["sockets"]) == ("2", "3")
    assert found.get("ciuser", "x") in ("x", f"x{MANY}y")


@given(st.sampled_from(["ciuser", "args", "lock"]), st.text(" \t\fxy", max_size=12))
def test_values_are_trimmed_as_pve_s_own_patterns_do(key: str, rest: str) -> None:
    """qemu-server's parse_vm_config: these patterns, which take ages for many blanks."""
    pattern = r"(args):\s*(.*\S)\s*" if key == "args" else r"([a-z]+):\s*(.+?)\s*"
    match = re.fullmatch(pattern, f"{key}:{rest}", re.ASCII)
    # What is no line of args is one of a key, whose name is the same.
    match = match or re.fullmatch(r"([a-z]+):\s*(.+?)\s*", f"{key}:{rest}", re.ASCII)
    assert main(f"{key}:{rest}\n") == ({} if match is None else {key: match[2]})


def test_a_description_of_very_many_lines_is_read_at_once() -> None:
    description = "".join(f"#{number}\n" for number in range(100_000))
    found = pveconf.parse(f"{description}cores: 2\n").main
    assert found.description is not None
    assert found.description.split("\n")[-1] == "99999"
    assert found.values == {"cores": "2"}


def test_legacy_smp_becomes_sockets_and_loses_cores_on_writing() -> None:
    assert pveconf.write(pveconf.parse("smp: 4\ncores: 2\n")) == "sockets: 4\n"
    assert (
        pveconf.write(pveconf.parse("smp: 4\ncores: 2\nsockets: 1\n")) == "cores: 2\nsockets: 1\n"
    )


@pytest.mark.parametrize(
    "text", ["0", "0,0", "1", "0-3,8", " 1 , 2-3 ", "900", "3-1", "all", "0-31:2/8", "^2", "99999"]
)
def test_an_affinity_is_the_administrators_will_whatever_pve_makes_of_it(text: str) -> None:
    assert config(f"affinity: {text}\n").affinity == text.strip()


def test_an_empty_affinity_line_too() -> None:
    assert config("affinity: \n").affinity is not None
    assert config("affinity:\n").affinity is None  # PVE's parser sees no key here


def test_facts_of_a_guest() -> None:
    found = config(
        "cores: 2\nname: web\nnuma: 1\ntags: cpu-affinity;cpu-pinned\nlock: backup\n"
        "hookscript: shared:snippets/proxmox-cpu-affinity-hook\nhotplug: network,cpu\n"
    )
    assert found == GuestConfig(
        vmid=Vmid(100),
        node="pve",
        name="web",
        cores=2,
        numa=True,
        hookscript="shared:snippets/proxmox-cpu-affinity-hook",
        tags=("cpu-affinity", "cpu-pinned"),
        lock="backup",
        hotplug_cpu=True,
    )
    assert found.has_hook
    assert found.policy is Policy.PINNED


@pytest.mark.parametrize(
    ("text", "hotplug"), [("", False), ("1", False), ("0", False), ("cpu", True)]
)
def test_hotplug_of_vcpus_is_off_unless_named(text: str, *, hotplug: bool) -> None:
    assert config(f"hotplug: {text}").hotplug_cpu is hotplug


def test_writing_order() -> None:
    file = GuestFile(
        main=Section({"sockets": "1", "cores": "2"}, {}, "first\nsecond: %"),
        pending=Section({"name": "b"}, {}, ""),
        special={"cloudinit": Section({"name": "c"}), "fleecing": Section({"x": "y"})},
        snapshots={"zz": Section({"cores": "1"}), "aa": Section({"cores": "3"}, {}, "note")},
    )
    assert pveconf.write(file) == (
        "#first\n#second%3A %25\ncores: 2\nsockets: 1\n"
        "\n[PENDING]\n#\nname: b\n"
        "\n[special:cloudinit]\nname: c\n"
        "\n[special:fleecing]\nx: y\n"
        "\n[aa]\n#note\ncores: 3\n"
        "\n[zz]\ncores: 1\n"
    )


def test_changing_the_main_section() -> None:
    file = pveconf.parse("cores: 2\naffinity: 9-1\n#text\n[snap]\naffinity: 1\n")
    changed = file.with_main({"cores": None, "name": "a", "affinity": None, "description": "new"})
    assert changed.main == Section({"name": "a"}, {}, "new")
    assert changed.snapshots == file.snapshots


def test_bytes_that_are_not_utf8_survive() -> None:
    text = b"#caf\xe9\nargs: -name \xff\n".decode("utf-8", "surrogateescape")
    file = pveconf.parse(text)
    assert pveconf.write(file) == "#caf%E9\nargs: -name \udcff\n"
    assert pveconf.parse(pveconf.write(file)) == file


# Two pairs of quotes lose one at every reading, in PVE too; so the property leaves quotes out.
_LINES = st.one_of(
    st.text(st.characters(exclude_characters='\n"', codec="utf-8"), max_size=20),
    st.sampled_from(
        [
            *("cores: 4", "cores: x", "smp: 2", "sockets: 0", "template: yes", "boot: ", "vcpus:3"),
            *("[PENDING]", "[snap]", "[x]", "[special:Cloudinit]", "delete: a, !b", "# a%3A", "#"),
            *("description: x%0A%0D", "x snapstate: delete", "affinity: 9-1", "cdrom: a\r", "#%"),
        ]
    ),
)


@given(st.lists(_LINES, max_size=12))
def test_what_is_written_reads_back_as_itself(lines: list[str]) -> None:
    written = pveconf.write(pveconf.parse("\n".join(lines)))
    again = pveconf.parse(written)
    assert pveconf.write(again) == written
    assert again.warnings == ()


@given(st.text())
def test_nothing_in_a_file_is_an_error(text: str) -> None:
    assert config(text).vcpu_count >= 1


def test_every_key_of_the_documentation_has_a_kind() -> None:
    keys = "cores sockets vcpus cpu cpulimit cpuunits affinity numa numa7 hugepages keephugepages"
    keys += " memory balloon hookscript template tags name lock hotplug onboot startup args kvm"
    keys += " freeze reboot vmgenid vmstate runningmachine runningcpu running-nets-host-mtu parent"
    assert [key for key in keys.split() if pveschema.kind_of(key) is None] == []
