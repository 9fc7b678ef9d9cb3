"""Guests of `make e2e` that hang: told with their last words, booted again, not waited for."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.guest import BOOTS, booted
from tests.e2e.image import Image
from tests.e2e.pulse import BEGAN, GuestError, Pulse, last_lines
from tests.e2e.shape import Shape

PATIENCE = 0.2  # seconds


def hanging(folder: Path) -> Image:
    """A kernel by its header (Linux, Documentation/arch/x86/boot.rst) that jumps to itself."""
    code = bytearray(4096)
    code[0x1F1] = 1  # sectors of set-up
    code[0x200:0x208] = b"\xeb\xfeHdrS\x04\x02"  # jmp to itself; protocol 2.4
    code[0x22C:0x230] = b"\xff\xff\xff\x37"  # where an initrd may lie at most
    image = Image("none", folder / "disk", folder / "kernel", folder / "initrd")
    image.kernel.write_bytes(code)
    image.initrd.write_bytes(b"\0" * 512)
    image.disk.write_bytes(b"\0" * 65536)
    return image


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86")
def test_guest_that_hangs_in_its_boot_is_booted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(GuestError, match=r"no sign of life for .* s: "),
        booted(hanging(tmp_path), Shape(1, 1, 1, 1, 1), patience=PATIENCE),
    ):
        pytest.fail("it came up")
    assert capsys.readouterr().out.count("booted again") == BOOTS - 1


def until_faulty(pulse: Pulse) -> str:
    while not (fault := pulse.fault()):
        pass
    return fault


def test_console_and_beat_are_signs_of_life(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "console", tmp_path / "beats", PATIENCE)
    for file in (pulse.console, pulse.beats):
        assert "no sign of life" in until_faulty(pulse)
        file.write_bytes(BEGAN)
        assert pulse.fault() == ""


def test_agent_that_was_started_again_is_told(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "console", tmp_path / "beats", 3600)
    pulse.beats.write_bytes(BEGAN + b"...")
    assert pulse.fault() == ""
    pulse.beats.write_bytes(BEGAN + b"..." + BEGAN)
    assert "started again" in pulse.fault()


def test_last_lines_are_those_that_say_something() -> None:
    said = b"\x1b[0;32m  OK  \x1b[0m Started a thing.\r\n"
    said += b"\r\x1b[K[ \x1b[0;31m*\x1b[0m  ] Job b running\r\nend"
    assert last_lines(said) == "OK   Started a thing.\nend"
    assert last_lines(b"") == "it said nothing"
