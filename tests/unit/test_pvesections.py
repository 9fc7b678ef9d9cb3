"""storage.cfg and HA's resources.cfg, read as PVE reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.pvesections import (
    SectionEntry,
    ha_managed,
    parse_sections,
    parse_storages,
    snippet_path,
    write_sections,
)
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.ids import Vmid

STORAGES = """\
dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl,backup

# a comment
nfs: share
    export /x
    server 10.0.0.1
    content snippets
    nodes a,b

dir: other
\tpath /srv/other/
\tcontent snippets,iso
\tcontent-dirs snippets=my/scripts,iso=isos
\tshared 1
\tdisable

lvmthin: thin
\tvgname pve
\tcontent images,rootdir
"""


def test_storages() -> None:
    found = parse_storages(STORAGES)
    assert set(found) == {"local", "share", "other", "thin"}
    assert found["local"].content == {"iso", "vztmpl", "backup"}  # as on a fresh PVE: no snippets
    assert found["share"].nodes == {"a", "b"}
    assert (found["share"].shared, found["share"].path) == (True, "/mnt/pve/share")
    assert (found["other"].disabled, found["other"].shared) == (True, True)
    assert found["thin"].path is None
    assert [found["share"].usable_on(node) for node in ("a", "c")] == [True, False]
    assert not found["other"].usable_on("a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dir: local\n\tpath /elsewhere\n\tcontent iso\n",
        "nfs: local\n\tserver x\n",
        "dir: local\n\tcontent iso\n",
    ],
)
def test_local_is_forced(text: str) -> None:
    local = parse_storages(text)["local"]
    assert (local.type, local.path) == ("dir", "/var/lib/vz")
    assert "snippets" in local.content


def test_local_is_on_every_node() -> None:
    text = "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\tnodes other\n"
    assert parse_storages(text)["local"].usable_on("pve")


@pytest.mark.parametrize(
    ("volume", "path"),
    [
        ("local:snippets/hook", "/var/lib/vz/snippets/hook"),
        ("share:snippets/a.sh", "/mnt/pve/share/snippets/a.sh"),
        ("other:snippets/a", "/srv/other/my/scripts/a"),
    ],
)
def test_snippets(volume: str, path: str) -> None:
    assert snippet_path(parse_storages(STORAGES), volume) == path


@pytest.mark.parametrize(
    "volume",
    [
        *("", "hook", "/var/lib/vz/snippets/hook", "l:snippets/x", ":snippets/x"),
        *("none:snippets/x", "thin:snippets/x"),
        *("local:iso/x", "local:snippets/", "local:snippets/a/b", "local:snippets/.."),
    ],
)
def test_no_snippet(volume: str) -> None:
    with pytest.raises(AffinityError):
        snippet_path(parse_storages(STORAGES), volume)


@pytest.mark.parametrize(
    ("text", "managed"),
    [
        ("", False),
        ("vm: 100\n", True),
        ("vm:100\n\tstate started\n", True),
        ("vm: 100\n\tstate stopped\n", True),
        ("vm: 100\n\tstate disabled\n", True),
        ("vm: 100\n\tstate ignored\n", False),
        ("vm: 1000\n\nvm: 10\n\nct: 100\n", False),
        ("#vm: 100\n", False),
        ("ct: 200\n\tcomment vm: 100\n", False),
        ("vm: 1000\n\tstate started\n\nvm: 100\n\tgroup a\n\n", True),
    ],
)
def test_ha_managed(text: str, *, managed: bool) -> None:
    assert ha_managed(text, Vmid(100)) is managed


def test_a_section_ends_at_an_empty_line_only() -> None:
    found = parse_sections("vm: 100\n\tstate started\nvm: 101\n\tgroup g\n\nvm: 102\n")
    assert [entry.id for entry in found] == ["100", "102"]
    assert found[0].values == {"state": "started", "group": "g"}


_WORDS = st.text(st.sampled_from("abcxyz019-_./"), min_size=1, max_size=8)


@given(
    st.lists(
        st.builds(SectionEntry, _WORDS, _WORDS, st.dictionaries(_WORDS, st.just("") | _WORDS)),
        max_size=4,
    )
)
def test_sections_read_back(sections: list[SectionEntry]) -> None:
    assert parse_sections(write_sections(sections)) == tuple(sections)


def test_a_key_with_very_many_blanks_behind_it_is_read_at_once() -> None:
    many = " " * 900_000
    (entry,) = parse_sections(f"dir: local\n\tdisable{many}\n\tpath{many}/srv{many}\n")
    assert entry.values == {"disable": "", "path": "/srv"}
