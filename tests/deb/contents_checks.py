"""What is in the package, in a plain Debian: found, served, listed, and the unit's exposure."""

import json
import re
from hashlib import sha256
from pathlib import Path

from proxmox_cpu_affinity.linux.archive import CAPTURE
from tests.deb.in_guest import exposure
from tests.deb.plain import CHECKOUT, Plain
from tests.deb.plain_checks import NAME, SETTINGS
from tests.e2e.report import say

DIST = "/usr/lib/python3/dist-packages"
PAGE = "proxmox_cpu_affinity/service/page"
BILL = f"/usr/share/doc/{NAME}/sbom.cdx.json"
# The service of a simulated node is asked for each of some paths; its answers, the length first.
SERVED = f"""
{NAME} sim create /tmp/node >/dev/null
PCA_PORT=0 {NAME}-service --root /tmp/node --stdout >/tmp/said 2>&1 &
service=$!
until [ -s /tmp/node/run/{NAME}/port ]; do
    sleep 0.1
    [ -d /proc/$service ] || {{ cat /tmp/said; exit 1; }}
done
python3 -c '
import sys, urllib.request
port, *paths = sys.argv[1:]
for path in paths:
    with urllib.request.urlopen(f"http://127.0.0.1:{{port}}{{path}}") as answer:
        print(path, answer.status, answer.headers.get_content_type(), len(answer.read()))
' $(cat /tmp/node/run/{NAME}/port) "$@"
kill $service
wait $service
{NAME} sim destroy /tmp/node >/dev/null
"""


def check_it_installs_from_dependencies_of_debian(debian: Plain) -> None:
    debian.must("apt-get install -qq -y --no-install-recommends /root/ours.deb")
    said = debian.must(f"{NAME} --version; {NAME}-service --version; dpkg -L {NAME}")
    assert said.startswith(f"{NAME} 0."), said
    assert "/usr/share/man/man5/" in said
    assert not re.search(r"python3\.\d", said), "a path with a Python version"
    debian.must(f"{NAME} plan --host generated:1x2x4x2 --guest 100:4")


def check_every_needed_package_is_imported(debian: Plain) -> None:
    """What the program imports is there: nothing came with what else was installed."""
    modules = (
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in debian.must(
            "cd /usr/lib/python3/dist-packages && find proxmox_cpu_affinity -name '*.py'"
        ).split()
        if "__main__" not in path
    )
    debian.must(f"python3 -I -c 'import {', '.join(sorted(modules))}'")


def check_texts_name_what_lies_beside_them(debian: Plain) -> None:
    """And the example that a hint names runs with the modules of the package."""
    folder = f"/usr/share/doc/{NAME}"
    texts = debian.must(f"cat {folder}/*.md")
    there = debian.must(f"cd {folder} && find . -type f -printf '%P\n'").split()
    assert "docs/" not in texts
    named = set(re.findall(r"(?<![\w/])(?:examples/[\w.-]*\w|[A-Za-z-]+\.md|example\.svg)", texts))
    assert {"api.md", "measuring.md", "example.svg", "examples/capture-host"} <= named
    assert named <= set(there), named.difference(there)
    debian.must(f"{CAPTURE} 'a host' >/tmp/host.json && {NAME} topology --host /tmp/host.json")


def page_files() -> list[Path]:
    return sorted((CHECKOUT / "src" / PAGE).iterdir())


def check_the_page_is_served(debian: Plain) -> None:
    paths = ["/" if file.name == "index.html" else f"/{file.name}" for file in page_files()]
    lines = debian.must(SERVED, *paths).splitlines()
    assert [line.split()[0] for line in lines] == paths, lines
    for file, line in zip(page_files(), lines, strict=True):
        _, status, kind, length = line.split()
        assert status == "200", line
        assert {".js": "javascript"}.get(file.suffix, file.suffix[1:]) in kind, line
        assert file.name == "index.html" or int(length) == file.stat().st_size, line


def check_the_bill_of_materials_is_of_these_files(debian: Plain) -> None:
    bill = json.loads(debian.must(f"cat {BILL}"))
    sums = {
        part["name"]: part["hashes"][0]["content"]
        for part in bill["components"]
        if part["type"] == "file"
    }
    there = debian.must(
        f"dpkg -L {NAME} | while read -r f; do [ ! -f $f ] || [ -L $f ] || sha256sum $f; done"
    )
    found = {path: total for total, path in (line.split() for line in there.splitlines())}
    assert found.pop(BILL)
    assert found == sums
    for file in page_files():
        assert found[f"{DIST}/{PAGE}/{file.name}"] == sha256(file.read_bytes()).hexdigest()


def check_the_settings_file_has_every_setting(debian: Plain) -> None:
    known = debian.must(
        "python3 -c 'from proxmox_cpu_affinity.formats.settings import SETTINGS\n"
        "print(*(s.name for s in SETTINGS))'"
    )
    named = re.findall(r"^#(PCA_\w+)=", debian.must(f"cat {SETTINGS}"), re.M)
    assert sorted(named) == sorted(known.split())


def check_exposure(debian: Plain) -> None:
    """As systemd counts it from the unit's file alone; in a booted Debian it says the same."""
    unit = f"/usr/lib/systemd/system/{NAME}.service"
    debian.must("apt-get install -qq -y --no-install-recommends systemd")
    table = debian.must(f"systemd-analyze security --offline=yes --no-pager {unit}")
    version = debian.must("systemctl --version").split()[1]
    say(f"  systemd {version}: systemd-analyze security says {exposure.level(table)}")
    exposure.assert_low_and_explained(table, debian.must(f"cat {unit}"))
