"""What /proc says of a process: odd names, cut lines, rubbish, and this very process."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import procfs
from proxmox_cpu_affinity.model.errors import SyntaxFault

AFTER_COMM = (
    "S 1 4242 4242 0 -1 4194560 9 8 7 6 55 44 33 22 20 0 7 0 {start} 123456 789 "
    "18446744073709551615 1 1 0 0 0 0 0 4096 17536 0 0 0 17 {cpu} 0 0 0 0 0"
)


def line(comm: str, *, start: int = 314159, cpu: int = 5) -> str:
    """A line as the kernel writes it (proc_pid_stat(5))."""
    return f"4242 ({comm}) {AFTER_COMM.format(start=start, cpu=cpu)}\n"


@pytest.mark.parametrize(
    "comm",
    [
        "kvm",
        "CPU 0/KVM",
        "a) R 1 2 3",
        ")",
        "(((",
        ") (",
        "",
        " ",
        "kvm) S 1 (",
        "new\nline",
        "tab\there",
        "ünïcödé",
        "\udcff\udcfe",
    ],
)
def test_comm_may_hold_anything(comm: str) -> None:
    found = procfs.stat(line(comm))
    assert found == procfs.Stat(comm, "S", start_time=314159, last_cpu=5)  # type: ignore[arg-type]


@given(comm=st.text(max_size=15), start=st.integers(0, 2**64 - 1), cpu=st.integers(0, 8191))
def test_fields_are_counted_behind_any_comm(comm: str, start: int, cpu: int) -> None:
    found = procfs.stat(line(comm, start=start, cpu=cpu))
    assert (found.comm, found.start_time, found.last_cpu) == (comm, start, cpu)


@given(cut=st.integers(0, len(line("kvm").rstrip())))
def test_a_cut_line_is_a_fault_or_lacks_what_is_not_read(cut: int) -> None:
    whole = line("kvm").rstrip()
    needed = whole.index(" 17 5 ") + len(" 17 5")
    if cut < needed:
        with pytest.raises(SyntaxFault):
            procfs.stat(whole[:cut])
    else:
        assert procfs.stat(whole[:cut]) == procfs.stat(whole)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "4242",
        "4242 kvm S 1 2 3",
        "4242 )kvm( " + AFTER_COMM.format(start=1, cpu=1),
        "4242 (kvm " + AFTER_COMM.format(start=1, cpu=1),
        "4242 kvm) " + AFTER_COMM.format(start=1, cpu=1),
        line("kvm").replace("314159", "soon"),
        "\0" * 200,
    ],
)
def test_rubbish_is_a_fault_that_shows_it(text: str) -> None:
    with pytest.raises(SyntaxFault, match="no line of /proc/PID/stat") as caught:
        procfs.stat(text)
    assert len(caught.value.text) < 400


@given(text=st.text(max_size=80))
def test_any_text_is_a_stat_or_a_fault(text: str) -> None:
    try:
        found = procfs.stat(text)
    except SyntaxFault:
        return
    assert f"({found.comm})" in text


def test_this_process_is_read_as_it_is() -> None:
    found = procfs.stat(Path("/proc/self/stat").read_text())
    assert found.comm == Path("/proc/self/comm").read_text().rstrip("\n")
    assert found.state == "R"
    assert found.last_cpu in range(os.cpu_count() or 1)


def test_a_thread_with_an_odd_name_is_read_as_it_is() -> None:
    """The name is the kernel's, so this is no guess at how it writes one."""
    found: list[procfs.Stat] = []

    def run() -> None:
        folder = Path(f"/proc/self/task/{threading.get_native_id()}")
        (folder / "comm").write_text("CPU 3/KVM) S (")
        found.append(procfs.stat((folder / "stat").read_text()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0].comm == "CPU 3/KVM) S ("


@pytest.mark.parametrize(("text", "pid"), [("1\n", 1), ("4242\n", 4242), ("4242", 4242)])
def test_pidfile_is_a_number_and_a_newline(text: str, pid: int) -> None:
    assert procfs.pidfile(text) == pid


NO_PIDS = ["", "\n", "0\n", "-1\n", "007\n", " 7\n", "7 \n", "7\n\n", "7\n8\n", "7\0", "7.0"]
NO_PIDS += ["0x7", "²\n", "٣\n", "99999999999\n", "self"]


@pytest.mark.parametrize("text", NO_PIDS)
def test_anything_else_is_no_pid(text: str) -> None:
    assert procfs.pidfile(text) is None


@pytest.mark.parametrize(
    ("text", "found"), [("", ()), ("\n", ()), ("12 ", (12,)), ("12 13 14 ", (12, 13, 14))]
)
def test_children_are_numbers_with_blanks_between(text: str, found: tuple[int, ...]) -> None:
    assert procfs.tids(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("kvm\0", ("kvm",)),
        ("/usr/bin/kvm\0-id\x00100\0", ("/usr/bin/kvm", "-id", "100")),
        ("kvm\0\0-x\0", ("kvm", "", "-x")),
        ("a title without end", ("a title without end",)),
        ("\0", ("",)),
    ],
)
def test_arguments_end_with_a_null(text: str, words: tuple[str, ...]) -> None:
    assert procfs.argv(text) == words


PIDFILE = "/var/run/qemu-server/100.pid"


@pytest.mark.parametrize(
    "arguments",
    [
        ("/usr/bin/kvm", "-id", "100", "-pidfile", PIDFILE, "-daemonize"),
        ("kvm", "--pidfile", PIDFILE),
        ("/usr/bin/qemu-system-x86_64", "-pidfile", PIDFILE),
        ("/opt/my-kvm", "-pidfile", PIDFILE),
        ("kvm", "-pidfile", PIDFILE, "-pidfile", "/another"),
    ],
)
def test_pidfile_argument_of_a_qemu(arguments: tuple[str, ...]) -> None:
    assert procfs.pidfile_argument(arguments) == PIDFILE


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("kvm",),
        ("kvm", "-pidfile"),
        ("kvm", f"-pidfile={PIDFILE}"),
        ("kvm", "-name", "x-pidfile", PIDFILE),
        ("/usr/bin/grep", "-pidfile", PIDFILE),
        ("/usr/bin/kvm-tool", "-pidfile", PIDFILE),
        ("", "-pidfile", PIDFILE),
        ("/opt/qemu-system/bash", "-pidfile", PIDFILE),
    ],
)
def test_no_pidfile_argument_without_qemu_or_value(arguments: tuple[str, ...]) -> None:
    assert procfs.pidfile_argument(arguments) is None
