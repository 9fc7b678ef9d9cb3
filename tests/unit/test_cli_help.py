"""Help, usage errors and imports of every command, found by walking the program itself."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.cli.command import Command, Group
from proxmox_cpu_affinity.cli.main import COMMANDS, NAME, cli, main


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group below one."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in (*command.list_commands(context), *(["completion"] if not words else [])):
            below = command.get_command(context, name)
            assert below is not None
            yield from walk(below, (*words, name))


EVERY = [pytest.param(words, id=" ".join(words) or NAME) for words in walk(cli)]


def found(words: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        below = command.get_command(click.Context(command), word)
        assert below is not None
        command = below
    return command


@pytest.mark.parametrize("words", EVERY)
def test_help_exits_0_with_an_example(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    long = capsys.readouterr()
    assert main([*words, "-h"]) == 0
    assert capsys.readouterr() == long
    assert long.out.startswith("Usage: ")
    assert "Example" in long.out
    assert long.err == ""


@pytest.mark.parametrize("words", EVERY)
def test_examples_are_of_the_command_and_are_not_wrapped(words: tuple[str, ...]) -> None:
    command = found(words)
    if not isinstance(command, Command | Group):
        return
    text = command.get_help(click.Context(command, info_name=NAME))
    for example in command.examples:
        assert f"  {NAME} {example}\n" in f"{text}\n"
        assert example.startswith(" ".join(words)) or words == ()


@pytest.mark.parametrize("words", EVERY)
def test_an_unknown_option_is_a_usage_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    if words == ("sim", "run"):
        return  # its words are another program's
    assert main([*words, "--frobnicate"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--frobnicate" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("ps", "99"),
        ("ps", "0100"),
        ("ps", "100", "101"),
        ("hookscript", "enable"),
        ("hookscript", "status", "--", "-100"),
        ("status", "svg", "--json"),
        ("status", "--json", "svg"),
        ("reassign", "1e3"),
        ("cpuinfo", "--rounds", "0"),
        ("cpuinfo", "--iterations", "x"),
        ("plan", "--strategy", "best"),
        ("completion", "tcsh"),
        ("sim", "create"),
        ("--root", "/nowhere/at/all", "ps"),
    ],
)
def test_wrong_words_are_usage_errors(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Error: " in said.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("--vresion",), "Did you mean --version?"),
        (("ps", "--verbos"), "Did you mean --verbose?"),
        (("statsu",), "Did you mean status?"),
        (("hookscript", "enabel", "100"), "Did you mean enable or enable-all?"),
        (("status", "pong"), "Did you mean ping?"),
        (("frobnicate",), ""),
    ],
)
def test_a_word_that_there_is_not_brings_those_spelled_alike(
    words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    error, _ = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: No such ")
    assert error.endswith(meant or f"'{words[-1]}'.")


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["ps", "--frobnicate"], f"{NAME} ps"),
        (["frobnicate"], NAME),
        (["hookscript", "enable"], f"{NAME} hookscript enable"),
        (["plan", "--strategy", "best"], f"{NAME} plan"),
    ],
)
def test_wrong_words_bring_one_line_of_error_and_one_of_help(
    words: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: ")
    assert hint == f"Hint: see: {where} --help"


def test_a_missing_choice_is_told_on_one_line_without_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """click has each choice on a line of its own: `completion` said \\n\\t between them."""
    assert main(["completion"]) == 2
    error, _ = capsys.readouterr().err.splitlines()
    assert "\\" not in error
    assert error.endswith("Choose from: bash, zsh, fish")


@pytest.mark.parametrize("words", [(), ("status",), ("hookscript",), ("sim",)])
def test_no_line_of_a_list_of_commands_is_cut_off(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    assert not [line for line in capsys.readouterr().out.splitlines() if line.endswith("...")][1:]


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    for name, entry in COMMANDS.items():
        command = found((name,))
        if isinstance(command, Command | Group):
            assert (command.help or "").split("\n")[0].startswith(entry.line.rstrip(".")), name
            assert command.hidden is entry.hidden


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{NAME} {__version__}\n"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], {"numpy", "aiohttp", "rich", "asyncio", "http", "subprocess"}),
        (["status", "--help"], {"numpy", "aiohttp", "rich", "asyncio"}),
        (["ps", "--help"], {"numpy", "aiohttp", "rich", "asyncio", "http", "statistics"}),
        (["ps"], {"numpy", "asyncio", "http", "json", "proxmox_cpu_affinity.formats.wire"}),
        (["hookscript", "list"], {"numpy", "asyncio", "http", "proxmox_cpu_affinity.formats.wire"}),
        (["plan", "--help"], {"numpy", "aiohttp", "rich", "asyncio"}),
        (["plan", "--host", "generated:1x1x2x1", "--guest", "100:1"], {"aiohttp", "rich"}),
    ],
)
def test_what_is_heavy_is_imported_only_where_it_is_needed(
    words: list[str], absent: set[str]
) -> None:
    code = (
        "import sys; from proxmox_cpu_affinity.cli.main import main; main(sys.argv[1:]);"
        "print('modules:', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.partition("modules: ")[2].split())
    assert "click" in modules
    assert not absent & modules


def test_importing_the_program_imports_no_command() -> None:
    code = "import sys, proxmox_cpu_affinity.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    folder = "proxmox_cpu_affinity.cli.commands"
    assert not [name for name in done.stdout.split() if name.startswith(folder)]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("plan --host", "file"),
        ("plan --latency", "file"),
        ("topology --host", "file"),
        ("cpuinfo --from", "file"),
        ("cpuinfo --compare a", "file"),
        ("cpuinfo --svg", "file"),
        ("status svg -o", "file"),
        ("demo --output", "dir"),
    ],
)
def test_what_takes_a_file_completes_files(
    words: str, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_PROXMOX_CPU_AFFINITY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"{NAME} {words} x")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) + 1))
    assert main([]) == 0
    assert capsys.readouterr().out == f"{kind},x\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_the_program_back(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{shell}_complete" in script
    monkeypatch.setenv("_PROXMOX_CPU_AFFINITY_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", f"{NAME} hookscript en")
    monkeypatch.setenv("COMP_CWORD", "en" if shell == "fish" else "2")
    assert main([]) == 0
    assert "enable-all" in capsys.readouterr().out
