"""What a shell completes: words, options and the VMIDs of the node, by the shells themselves.

In bash, which every Debian has; in zsh and fish where they are installed (apt install zsh fish).
"""

import os
import pty
import shutil
import subprocess
import sys
import time
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

# A line editor is needed, so zsh runs on a terminal; what it made of the line goes into a file.
ZSH = """
PS1= ; setopt no_beep; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -D -u
eval "$({name} completion zsh)"
seen() {{ print -r -- "$BUFFER" > {seen}.new; mv {seen}.new {seen} }}
zle -N seen; bindkey '^X' seen; touch {ready}
"""
WORDS = [
    ("hookscript inst", "hookscript install"),
    ("dem", "demo"),
    ("plan --str", "plan --strategy"),
    ("plan --strategy r", "plan --strategy round-robin"),
    ("--root {root} explain 10", "--root {root} explain 100"),
]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def environment(folder: Path) -> dict[str, str]:
    """With the program in PATH."""
    program = folder / NAME
    program.write_text(f"#!{sys.executable}\n{CODE}\n")
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TERM": "dumb",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with one guest, 100."""
    folder = tmp_path / "root/etc/pve/nodes/n/qemu-server"
    folder.mkdir(parents=True)
    (tmp_path / "root/etc/pve/local").symlink_to("nodes/n")
    (folder / "100.conf").touch()
    return tmp_path / "root"


def completed(folder: Path, words: str) -> set[str]:
    """What bash offers behind these words of the command line."""
    place = len(words.split(" "))
    done = subprocess.run(
        ["bash", "-c", ASK.format(name=NAME, words=words, place=place)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(folder),
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


@needs("fish")
@pytest.mark.parametrize(("words", "line"), WORDS)
def test_fish_completes(words: str, line: str, root: Path, tmp_path: Path) -> None:
    words, line = words.format(root=root), line.format(root=root)
    ask = f'{NAME} completion fish | source; complete -C "{NAME} {words}"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", ask],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(tmp_path),
    )
    offered = [said.split("\t")[0] for said in done.stdout.splitlines()]  # then a description
    assert (offered, done.stderr) == ([line.split()[-1]], "")


@needs("zsh")
@pytest.mark.parametrize(("words", "line"), WORDS)
def test_zsh_completes(words: str, line: str, root: Path, tmp_path: Path) -> None:
    words, line = words.format(root=root), line.format(root=root)
    seen, ready = tmp_path / "seen", tmp_path / "ready"
    terminal, end = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=end, stdout=end, stderr=end, env=environment(tmp_path)
    ) as shell:
        try:
            os.write(terminal, ZSH.format(name=NAME, seen=seen, ready=ready).encode())
            wait_for(ready, terminal)
            os.write(terminal, f"{NAME} {words}\t\x18".encode())
            wait_for(seen, terminal)
        finally:
            shell.kill()
            shell.wait(10)
            os.close(terminal)
            os.close(end)
    assert seen.read_text().rstrip() == f"{NAME} {line}"


def wait_for(file: Path, terminal: int) -> None:
    """Until a file is there; what the terminal shows is read meanwhile, or it would fill up."""
    os.set_blocking(terminal, False)
    shown, deadline = b"", time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, shown
        try:
            shown += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.02)
