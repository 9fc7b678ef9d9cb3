"""What a shell completes: words, options and the VMIDs of the node, by the program itself.

In bash, which every Debian has; for zsh and fish test_cli_help runs what their scripts call.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import NAME

CODE = "import sys; from proxmox_cpu_affinity.cli.main import main; sys.exit(main())"
ASK = """
eval "$({name} completion bash)"
COMP_WORDS=({name} {words}) COMP_CWORD={place}
_proxmox_cpu_affinity_completion {name}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(folder: Path, words: str) -> set[str]:
    """What bash offers behind these words of the command line."""
    program = folder / NAME
    program.write_text(f"#!{sys.executable}\n{CODE}\n")
    program.chmod(0o755)
    place = len(words.split(" "))
    done = subprocess.run(
        ["bash", "-c", ASK.format(name=NAME, words=words, place=place)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    return set(done.stdout.split()) or {done.stderr}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hookscript en", {"enable", "enable-all"}),
        ("dem", {"demo"}),
        ("plan --str", {"--strategy"}),
        ("plan --strategy r", {"round-robin"}),
    ],
)
def test_the_shell_completes_words_options_and_values(
    words: str, offered: set[str], tmp_path: Path
) -> None:
    assert completed(tmp_path, words) == offered


def test_vmids_are_those_of_the_node(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = root / "etc/pve/nodes/n/qemu-server"
    folder.mkdir(parents=True)
    (root / "etc/pve/local").symlink_to("nodes/n")
    for vmid in (100, 101, 2000):
        (folder / f"{vmid}.conf").touch()
    assert completed(tmp_path, f"--root {root} explain 10") == {"100", "101"}
    assert completed(tmp_path, f"--root {root} hookscript disable 2") == {"2000"}
    assert completed(tmp_path, f"--root {tmp_path} ps 1") == {""}  # no node, no guests
