"""The package in a plain Debian: installed from its own dependencies, its settings file through an
upgrade, its hook through a removal. No systemd runs here (tests/deb/in_guest for that)."""

import re
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.deb.in_guest.go import EDITED, FILES
from tests.deb.plain import Plain, plain
from tests.e2e.report import Result, say

NAME = "proxmox-cpu-affinity"
SETTINGS = f"/etc/default/{NAME}"
HOOK = f"/var/lib/vz/snippets/{NAME}-hook"
GO_SETTINGS = f"etc/default/{NAME}"
GONE = "/tmp/gone"  # of the Debian that is forgotten
# How long a file was away, looked for without a pause, until another one says that it is over.
WATCH = """
import os, sys, time
longest, since = 0.0, None
open(sys.argv[2], "w").close()
while os.path.exists(sys.argv[2]):
    now = time.monotonic()
    if os.access(sys.argv[1], os.X_OK):
        since = None
    else:
        since = since or now
        longest = max(longest, now - since)
print(f"away for {1000 * longest:.1f} ms")
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


def away(debian: Plain, doing: str) -> float:
    """The longest time, in ms, that the hook could not be run while something was done."""
    said = debian.must(
        f"python3 -c '{WATCH}' {HOOK} {GONE} >/root/away & "
        f"until [ -e {GONE} ]; do :; done; ({doing}) >/root/said 2>&1; rm {GONE}; wait; "
        "cat /root/said /root/away"
    )
    (found,) = re.findall(r"^away for ([0-9.]+) ms$", said, re.M)
    return float(found)


def check_an_upgrade_replaces_the_hook_in_one_step(debian: Plain) -> None:
    assert away(debian, "dpkg --install /root/ours.deb") == 0.0


def check_a_removal_leaves_a_stub_while_a_guest_names_it(debian: Plain) -> None:
    guests = debian.files / "etc/pve/nodes/pve1/qemu-server"
    guests.mkdir(parents=True)
    config = guests / "100.conf"
    config.write_text(f"cores: 1\n\n[before]\nhookscript: local:snippets/{NAME}-hook\n")
    gap = away(debian, f"dpkg --remove {NAME}")
    said = debian.must("cat /root/said; dpkg-divert --list")
    assert "100 (pve1)" in said, said
    say(f"  at a removal the hook was away for {gap} ms")
    assert gap == 0.0
    assert f"{NAME}-hook.diverted" not in said, said
    assert "was removed" in debian.must(f"cat {HOOK}"), "it is the package's own still"
    assert debian.must(f"{HOOK} 100 pre-start") == ""
    config.unlink()
    debian.must(f"dpkg --purge {NAME}")
    shutil.rmtree(debian.files / "etc/pve")
    nothing_is_left(debian)


def nothing_is_left(debian: Plain) -> None:
    found = debian.must("find /etc /usr /var /run -xdev -name '*proxmox*cpu*'").split()
    assert not found, found


def go_package(debian: Plain, *, edited: bool) -> str:
    """The Go project's package is installed; its settings as they are then."""
    tree = debian.files / "root/go"
    for name, text in FILES.items():
        if name not in ("DEBIAN/postinst", "DEBIAN/prerm"):  # they need a systemd
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
    debian.must("dpkg-deb --build /root/go /root/go.deb && dpkg --install /root/go.deb")
    text = FILES[GO_SETTINGS]
    if edited:
        debian.must(f"cat >>{SETTINGS} <<'END'\n{EDITED}END")
        text += EDITED
    return text


def settings(debian: Plain) -> str:
    return debian.must(f"cat {SETTINGS}; ls /etc/default/{NAME}*")


def check_a_removal_that_was_broken_off_is_mended(debian: Plain) -> None:
    """Killed after prerm: the hook is diverted. The next installation is as any other."""
    debian.must("dpkg --install /root/ours.deb")
    debian.must(f"/var/lib/dpkg/info/{NAME}.prerm remove && dpkg-divert --list | grep -q diverted")
    debian.must("dpkg --install /root/ours.deb")
    assert "diverted" not in debian.must("dpkg-divert --list; ls /var/lib/vz/snippets")
    debian.must(f"dpkg --purge {NAME}")
    nothing_is_left(debian)


def check_edited_settings_outlive_the_go_package(debian: Plain) -> None:
    before = go_package(debian, edited=True)
    debian.must("dpkg --install /root/ours.deb")
    assert settings(debian) == f"{before}{SETTINGS}\n"
    debian.must("dpkg --install /root/ours.deb")  # and an upgrade of ours asks nothing either
    assert settings(debian) == f"{before}{SETTINGS}\n"
    debian.must(f"dpkg --purge {NAME}")
    nothing_is_left(debian)


def check_unedited_settings_are_replaced(debian: Plain) -> None:
    go_package(debian, edited=False)
    debian.must("dpkg --install /root/ours.deb")
    assert "#PCA_MANAGE=tag" in settings(debian)
    debian.must(f"dpkg --purge {NAME}")


def check_edited_settings_of_a_removed_go_package(debian: Plain) -> None:
    before = go_package(debian, edited=True)
    debian.must(f"dpkg --remove {NAME}; dpkg --install /root/ours.deb")
    assert settings(debian) == f"{before}{SETTINGS}\n"
    debian.must(f"dpkg --purge {NAME}")


def check_a_failed_upgrade_gives_the_settings_back(debian: Plain) -> None:
    """The package is damaged on its way: dpkg goes back to the old one."""
    before = go_package(debian, edited=True)
    debian.must(
        "rm -rf /root/bad && dpkg-deb -R /root/ours.deb /root/bad && "
        "sed -i '$a exit 1' /root/bad/DEBIAN/preinst && dpkg-deb -b /root/bad /root/bad.deb"
    )
    assert debian.run("dpkg --install /root/bad.deb").status != 0
    assert settings(debian) == f"{before}{SETTINGS}\n"
    debian.must(f"dpkg --purge {NAME}")


def run(suite: str, deb: Path, word: str) -> Sequence[Result]:
    """All of them, in the order they are written, in one Debian. PlainError."""
    results = []
    chosen = {key: value for key, value in globals().items() if key.startswith("check_")}
    with plain(suite) as debian:
        (debian.files / "root").mkdir()
        shutil.copy(deb, debian.files / "root/ours.deb")
        for key, check in chosen.items():
            if word not in key and key != next(iter(chosen)):
                continue
            began, text = time.monotonic(), ""
            try:
                check(debian)
            except Exception:
                text = traceback.format_exc()
            name = f"plain.{key.removeprefix('check_')}"
            outcome = "FAILED" if text else "passed"
            say(f"{outcome}  {suite}: {name} ({time.monotonic() - began:.1f} s)")
            if text:
                say(text)
            results.append(Result(suite, name, passed=not text))
    return results
