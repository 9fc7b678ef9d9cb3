"""What is printed, where, and that nothing in it can move a terminal's cursor."""

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli import ui

CELLS = st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5)


@settings(deadline=None)
@given(text=st.text())
def test_no_text_has_control_characters_left(text: str) -> None:
    shown = ui.clean(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@settings(deadline=None)
@given(rows=CELLS)
def test_plain_columns_begin_below_their_headers(rows: list[tuple[str, str, str]]) -> None:
    cells = [[ui.clean(cell) for cell in row] for row in rows]
    headers = ("VMID", "Status", "Notes")
    lines = list(ui.plain_table(headers, cells))
    starts = [0]
    for column in range(2):
        widest = max(len(row[column]) for row in (headers, *cells))
        starts.append(starts[-1] + widest + 2)
    for line, row in zip(lines, (headers, *cells), strict=True):
        assert line == line.rstrip()
        for start, cell in zip(starts, row, strict=True):
            assert line[start : start + len(cell)].rstrip() == cell.rstrip()


def test_a_table_that_is_no_terminals_can_be_split(capsys: pytest.CaptureFixture[str]) -> None:
    ui.table(("VMID", "Hook-Status", "Notes"), [(100, "Skipped", "HA Managed"), (20001, "x", "")])
    said = capsys.readouterr()
    assert said.err == ""
    assert [re.split("  +", line) for line in said.out.splitlines()] == [
        ["VMID", "Hook-Status", "Notes"],
        ["100", "Skipped", "HA Managed"],
        ["20001", "x"],
    ]


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ui.talk("a\x1b[31mb")
    ui.warn("w")
    ui.error("e", "h")
    ui.error("alone")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "a\\x1b[31mb\nWarning: w\nError: e\nHint: h\nError: alone\n"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ui.progress("measuring") as line:
        for done in range(5):
            line.show(done, 5)
    assert capsys.readouterr() == ("", "")


def on_terminal(code: str, columns: int, **environment: str) -> str:
    """What a program prints whose outputs are a terminal."""
    main, other = pty.openpty()
    try:
        env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
        with subprocess.Popen(
            [sys.executable, "-c", f"from proxmox_cpu_affinity.cli import ui\n{code}"],
            stdin=subprocess.DEVNULL,
            stdout=other,
            stderr=other,
            env=env,
        ) as process:
            os.close(other)
            other = -1
            pieces = []
            try:
                while piece := os.read(main, 65536):
                    pieces.append(piece)
            except OSError:  # EIO: the other side is closed (pty(7))
                pass
            assert process.wait() == 0
        return b"".join(pieces).decode()
    finally:
        os.close(main)
        if other >= 0:
            os.close(other)


WIDE = "ui.table(('VMID', 'Notes'), [(100, 'word ' * 30), (101, '[b]x[/b]')])"


def test_a_table_fits_the_terminal_and_takes_no_markup() -> None:
    said = on_terminal(WIDE, 40, NO_COLOR="1")
    bare = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert all(len(line.rstrip()) <= 40 for line in bare.splitlines())
    assert bare.split().count("word") == 30
    assert "[b]x[/b]" in bare
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", said)


def test_progress_on_a_terminal_ends_and_is_wiped() -> None:
    said = on_terminal(
        "with ui.progress('pair') as line:\n  for i in range(1, 9): line.show(i, 8)", 80
    )
    assert "pair 8 of 8" in said
    assert said.endswith("\r\x1b[K")
    assert "\n" not in said


SHOW_PICTURE = """
import fcntl, struct, termios
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
with ui.progress('pair') as line:
  for i in range(1, 4):
    line.show(i, 3, lambda: [str(n) * {columns} for n in range({rows})])
    ui.time.sleep(0.25)
"""


def test_a_picture_is_drawn_above_the_progress_line_and_wiped() -> None:
    said = on_terminal(SHOW_PICTURE.format(columns=4, rows=3), 80)
    frames = said.split("\r\x1b[3A")
    assert len(frames) == 4  # three pictures, each drawn over the one before, and the wiping
    for done, frame in enumerate(frames[:3], 1):
        lines = [line.strip("\r") for line in frame.split("\n")]
        assert lines == [*(f"{n * 4}\x1b[K" for n in "012"), f"pair {done} of 3\x1b[K"]
    assert frames[3] == "\x1b[J"


@pytest.mark.parametrize(("columns", "rows"), [(90, 3), (4, 60)])
def test_a_picture_without_room_is_left_out(columns: int, rows: int) -> None:
    said = on_terminal(SHOW_PICTURE.format(columns=columns, rows=rows), 80)
    assert "\n" not in said
    assert said.endswith("\r\x1b[K")


@given(text=st.text(), room=st.integers(-5, 120))
def test_folded_lines_are_within_the_room_and_keep_every_word_whole(text: str, room: int) -> None:
    lines = ui.folded(text, room)
    assert [word for line in lines for word in line.split()] == ui.clean(text).split()
    assert all(len(line) <= max(room, 30) or " " not in line.strip() for line in lines)


PAIRS = """
from proxmox_cpu_affinity.cli import ui
ui.pairs([("Name", "word " * 30), ("Longer name", "short")])
"""


def test_names_and_values_are_folded_on_a_terminal_and_nowhere_else() -> None:
    lines = on_terminal(PAIRS, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line[:14] for line in lines] == ["Name:         ", " " * 14, " " * 14, "Longer name:  "]
    piped = subprocess.run(
        [sys.executable, "-c", PAIRS], capture_output=True, text=True, check=True
    )
    assert [line[:14] for line in piped.stdout.splitlines()] == [lines[0][:14], lines[-1][:14]]
