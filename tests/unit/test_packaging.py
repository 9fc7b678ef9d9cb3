"""What the package is made of: one version everywhere, and pages that follow the programs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.cli.main import COMMANDS, NAME
from proxmox_cpu_affinity.formats.settings import AT_START, SETTINGS
from proxmox_cpu_affinity.model.guest import TAG_OFF, TAG_ON, Policy
from tests.deb.in_guest import exposure

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install-docs` puts below /usr/share."""
    folder = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, CHECKOUT / "scripts/make-docs", folder], check=True)
    return folder


def test_package_has_the_version_of_the_program() -> None:
    first = (CHECKOUT / "debian/changelog").read_text().partition("\n")[0]
    assert first.startswith(f"{NAME} ({__version__}) ")


def test_readme_names_the_package_of_this_version() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    assert set(re.findall(r"\S+_amd64\.deb", readme)) == {f"./{NAME}_{__version__}_amd64.deb"}


def test_page_of_the_program_names_every_command(share: Path) -> None:
    page = (share / f"man/man8/{NAME}.8").read_text().replace("\\-", "-")
    for command, entry in COMMANDS.items():
        assert (f"\n.SS {command}" in page) is not entry.hidden


def test_page_of_the_service_names_its_flags(share: Path) -> None:
    page = (share / f"man/man8/{NAME}-service.8").read_text().replace("\\-", "-")
    for flag in ("--release", "--clean-dropins", "--log-file FILE", "--root DIR"):
        assert f"\n.B {flag}" in page, flag


def test_page_of_the_settings_has_each_once(share: Path) -> None:
    page = (share / f"man/man5/{NAME}.5").read_text()
    named = re.findall(r"^\.BR (PCA_\w+) ", page, re.M)
    assert sorted(named) == sorted(setting.name for setting in SETTINGS)


def test_explanation_of_each_setting_stands_for_itself(share: Path) -> None:
    """Texts of PCA_WIDEN_... went on from where the one before was cut: "the same: off, when"."""
    page = (share / f"man/man5/{NAME}.5").read_text()
    found = re.findall(r'^\.BR (PCA_\w+) "[^\n]*\n(.*)\. Must be ', page, re.M)
    texts = dict(found)
    assert len(texts) == len(SETTINGS)
    for name, text in texts.items():
        assert re.match("[A-Z]", text), (name, text)
        assert "..." not in text, (name, text)
        assert text.count("(") == text.count(")"), (name, text)
    for name in ("PCA_WIDEN_ABOVE", "PCA_WIDEN_BELOW", "PCA_WIDEN_STAY"):
        assert texts[name].startswith("With PCA_WIDEN=pressure, "), texts[name]
        assert ": " not in texts[name]


def test_settings_file_names_what_needs_a_restart() -> None:
    text = (CHECKOUT / f"scripts/{NAME}.default").read_text()
    sentence = re.search(r"^# \(([^:]*): systemctl restart", text, re.M)
    assert sentence is not None
    named = [setting.name for setting in SETTINGS if setting.target in AT_START]
    assert len(named) == len(AT_START)
    assert sentence[1].split(", ") == named


def test_page_of_the_program_names_every_tag(share: Path) -> None:
    page = (share / f"man/man8/{NAME}.8").read_text().replace("\\-", "-")
    section = page.partition("\n.SH TAGS\n")[2].partition("\n.SH ")[0]
    tags = {TAG_ON, TAG_OFF, *(f"cpu-{policy}" for policy in Policy)}
    assert set(re.findall(r"^\.B (.*)", section, re.M)) == tags


def test_shipped_texts_name_shipped_ones() -> None:
    """Of what lies in docs; the page's pictures are for who reads the sources."""
    listed = [CHECKOUT / "debian/docs", CHECKOUT / f"debian/{NAME}.examples"]
    shipped = {line for file in listed for line in file.read_text().split()}
    assert all((CHECKOUT / name).is_file() for name in shipped)
    for name in shipped:
        text = (CHECKOUT / name).read_text() if name.endswith(".md") else ""
        named = re.findall(r"\bdocs/[\w.-]*\w|\b[A-Z]+\.md|scripts/capture-host", text)
        loose = {each for each in named if each not in {"docs/page", "README.md"}} - shipped
        assert not loose, (name, loose)


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_man_shows_the_pages_without_a_warning(share: Path) -> None:
    pages = sorted(share.glob("man/man*/*"))
    assert [page.name for page in pages] == [f"{NAME}.5", f"{NAME}-service.8", f"{NAME}.8"]
    for page in pages:
        done = subprocess.run(
            ["man", "--warnings", "-l", page],
            capture_output=True,
            text=True,
            check=True,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "MANWIDTH": "80"},
        )
        assert done.stderr == ""
        assert "NAME" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_of_our_program(share: Path, shell: str) -> None:
    (script,) = share.glob(f"{shell}*/*completions*/*")
    assert NAME in script.read_text()


TABLE = """  NAME                                            DESCRIPTION         EXPOSURE
✗ SystemCallFilter=~@resources                    is included              0.2
✓ PrivateTmp=                                     has no access
✗ RestrictAddressFamilies=~AF_(INET|INET6)        Internet sockets         0.3
✗ CapabilityBoundingSet=~CAP_SYS_(NICE|RESOURCE)  may change priorities    0.1
✗ User=/DynamicUser=                              runs as root             0.4
→ Overall exposure level for x.service: 2.1 OK
"""


def test_exposure_must_be_low_and_explained_by_the_unit() -> None:
    unit = (CHECKOUT / f"scripts/{NAME}.service").read_text()
    assert list(exposure.remaining(TABLE)) == ["@resources", "INET", "SYS_NICE", "User="]
    exposure.assert_low_and_explained(TABLE, unit)
    with pytest.raises(AssertionError, match="SYS_NICE"):
        exposure.assert_low_and_explained(TABLE, unit.replace("# SYS_NICE", "# it"))
    with pytest.raises(AssertionError, match="PrivateTmp"):
        exposure.assert_low_and_explained(TABLE.replace("✓", "✗"), "".join(unit.split("# ")))
    with pytest.raises(AssertionError):
        exposure.assert_low_and_explained(TABLE.replace("2.1", "2.2"), unit)
