"""The package in a plain Debian: installed from its own dependencies, its settings file through an
upgrade, its hook through a removal. No systemd runs here (tests/deb/in_guest for that)."""

import re
import shutil
from collections.abc import Mapping

from tests.deb.in_guest.go import EDITED, FILES
from tests.deb.plain import Plain
from tests.e2e.report import say

NAME = "proxmox-cpu-affinity"
SETTINGS = f"/etc/default/{NAME}"
HOOK = f"/var/lib/vz/snippets/{NAME}-hook"
GO_SETTINGS = f"etc/default/{NAME}"
LINKED = f"/usr/libexec/{NAME}/{NAME}-hook"
NEVER = {HOOK: 0.0, LINKED: 0.0}
GONE = "/tmp/gone"  # of the Debian that is forgotten
DPKG = "dpkg --refuse-unsafe-io"
# How long each of some files was away, looked for without a pause, until another one is gone.
WATCH = """
import os, sys, time
over, *files = sys.argv[1:]
longest, since = dict.fromkeys(files, 0.0), {}
open(over, "w").close()
while os.path.exists(over):
    for file in files:
        now = time.monotonic()
        if os.access(file, os.X_OK):
            since.pop(file, None)
        else:
            longest[file] = max(longest[file], now - since.setdefault(file, now))
for file in files:
    print(f"{file} was away for {1000 * longest[file]:.1f} ms")
"""


def away(debian: Plain, doing: str) -> Mapping[str, float]:
    """The longest time, in ms, that each of the hook's files could not be run while something was
    done, as safely as dpkg does it where nobody asked for speed."""
    said = debian.must(
        f"python3 -c '{WATCH}' {GONE} {HOOK} {LINKED} >/root/away & "
        f"until [ -e {GONE} ]; do :; done; ({doing}) >/root/said 2>&1; rm {GONE}; wait; "
        "cat /root/away"
    )
    found = re.findall(r"^(\S+) was away for ([0-9.]+) ms$", said, re.M)
    say("".join(f"  {doing}: {file} was away for {ms} ms\n" for file, ms in found).rstrip())
    return {file: float(ms) for file, ms in found}


def check_an_upgrade_replaces_the_hook_in_one_step(debian: Plain) -> None:
    assert away(debian, f"{DPKG} --install /root/ours.deb") == NEVER


def check_a_removal_leaves_a_stub_while_a_guest_names_it(debian: Plain) -> None:
    """Through removal, purge and what is installed after each, the hook is there; who names it is
    said, of a snapshot which one."""
    guests = debian.files / "etc/pve/nodes/pve1/qemu-server"
    guests.mkdir(parents=True)
    for vmid, storage in ((100, "local"), (101, "other")):
        config = guests / f"{vmid}.conf"
        line = f"hookscript: {storage}:snippets/{NAME}-hook\n"
        main = line if vmid == 101 else "cores: 1\n"
        config.write_text(f"{main}\n[first]\ncores: 1\n\n[before]\n{line}")
    for words in ("--remove", "--purge"):
        assert away(debian, f"{DPKG} {words} {NAME}") == NEVER
        said = debian.must("cat /root/said; dpkg-divert --list")
        named = "100 (pve1, snapshot before), 101 (pve1), 101 (pve1, snapshot before):\n"
        assert named in said, said
        assert "qm delsnapshot VMID NAME" in said, said
        assert "delete these files" in said, said
        assert f"{NAME}-hook.diverted" not in said, said
        for file in (HOOK, LINKED):
            assert "was removed" in debian.must(f"cat {file}"), "it is the package's own still"
            assert debian.must(f"{file} 100 pre-start") == ""
        assert away(debian, f"{DPKG} --install /root/ours.deb") == NEVER
        assert "was removed" not in debian.must(f"cat {HOOK} {LINKED}")
    shutil.rmtree(debian.files / "etc/pve")
    debian.must(f"dpkg --purge {NAME}")
    nothing_is_left(debian)


def check_a_purge_leaves_the_disk_as_it_was(debian: Plain) -> None:
    files = "find / -xdev ! -path '*/__pycache__*' ! -path '/var/lib/dpkg/*' | sort"
    before = debian.must(files)
    debian.must(f"dpkg --install /root/ours.deb && dpkg --purge {NAME}")
    assert debian.must(files) == before


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


def check_settings_that_cannot_be_used_are_named(debian: Plain) -> None:
    """The Go project took any value for its default; ours says at once why it does not begin, and
    lets guests go all the same when it is removed."""
    go_package(debian, edited=True)
    debian.must(f"echo PCA_ROUNDS=-5 >>/etc/default/{NAME}")
    said = debian.must("dpkg --install /root/ours.deb")
    assert "PCA_ROUNDS" in said, said
    assert "mend that, then: systemctl restart" in said, said
    said = debian.must(f"dpkg --remove {NAME}")
    assert "not all guests were let go" not in said, said
    assert "guests are let go all the same" in said, said
    debian.must(f"dpkg --purge {NAME}")


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
