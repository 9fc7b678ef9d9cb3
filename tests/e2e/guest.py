"""A Debian guest under QEMU: booted from a cached image, commanded over a virtio port, thrown away.

Every wait has a limit, and ends as soon as the guest gives no sign of life any more; QEMU ends with
this process whatever becomes of it. The guest has no network, and its disk forgets. Out of scope:
what is run in it (run.py).
"""

import io
import json
import os
import secrets
import select
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.image import Image
from tests.e2e.pulse import GuestError, Pulse, last_lines
from tests.e2e.report import say
from tests.e2e.shape import Shape

BOOT_LIMIT = 480  # seconds
BOOTS = 3  # at most
STALL = 90  # seconds without a sign of life
ANSWER_LIMIT = 20  # seconds beyond a command's own limit
PLUGGABLE = ("bookworm",)  # suites whose guest can be given a CPU, see Guest.add_cpu
TIMED_OUT = 124  # timeout(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script printed on either output, and its exit status."""

    status: int
    output: bytes

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")


def emulated() -> bool:
    """Whether guests run without the processor's help, 50 times slower.

    KVM counts only where a vendor's module drives it: a KVM in software (kvm_pvm, on hosts that
    are guests themselves) runs an unmodified kernel slower than QEMU's own translation does.
    """
    modules = Path("/sys/module")
    real = any((modules / name).is_dir() for name in ("kvm_intel", "kvm_amd"))
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return not (real and usable) or (modules / "kvm_pvm").is_dir()


@contextmanager
def booted(
    image: Image, shape: Shape, *, plugged: int | None = None, patience: float = STALL
) -> Iterator["Guest"]:
    """A guest that has come up; its QEMU is gone at the end. GuestError.

    An emulated kernel may stumble over its own patching of code while it boots (int3 in
    sched_clock_cpu), or hang. Nothing of ours is in the guest by then, so that is no result: it
    boots again. `patience` is for a guest without a sign of life, in seconds.
    """
    with ExitStack() as stack:
        for left in reversed(range(BOOTS)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="e2e-"))
            guest = Guest(image, shape, Path(folder), plugged or shape.cpus, patience=patience)
            stack.callback(guest.kill)
            try:
                guest.wait_until_up()
                break
            except GuestError as error:
                guest.kill()
                if not left:
                    raise
                say(f"{image.suite}: booted again, for it did not come up: {error}")
        yield guest


class Guest:
    """One running guest."""

    def __init__(
        self, image: Image, shape: Shape, folder: Path, plugged: int, *, patience: float
    ) -> None:
        self.image, self.shape, self.folder = image, shape, folder
        with self._path("qemu").open("wb") as said:
            self._process = subprocess.Popen(
                # setpriv: QEMU ends with us even if we are killed.
                ["setpriv", "--pdeathsig", "KILL", "--", *self._arguments(plugged)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "TMPDIR": str(folder)},  # what the guest writes to its disk
            )
        self._port: socket.socket | None = None
        self._pulse = Pulse(self._path("console"), self._path("beats"), patience)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _arguments(self, plugged: int) -> list[str]:
        # The Intel vendor makes the kernel take caches and dies from the leaves that -smp fills.
        cpu = "max,vendor=GenuineIntel" if emulated() else "host"
        image = self.image
        return [
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-M", "q35"),
            *("-accel", "tcg,thread=multi" if emulated() else "kvm", "-cpu", cpu),
            *self.shape.for_qemu(plugged),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append"),
            "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off nowatchdog",
            *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={self._path('port')},server=on,wait=off"),
            *("-device", "virtserialport,chardev=port,name=e2e"),
            *("-chardev", f"file,id=beats,path={self._path('beats')}"),
            *("-device", "virtserialport,chardev=beats,name=e2e-beats"),
            *("-serial", f"file:{self._path('console')}"),
            *("-qmp", f"unix:{self._path('qmp')},server=on,wait=off"),
        ]

    # -- commands -----------------------------------------------------------------------------

    def wait_until_up(self) -> None:
        """Until systemd has finished starting. GuestError."""
        end = time.monotonic() + BOOT_LIMIT
        while self._port is None:
            self._alive(end)
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(str(self._path("port")))
                self._port = port
            except OSError:
                port.close()
                time.sleep(0.1)
        # The port holds what is sent until the guest opens it.
        self.run("systemctl is-system-running --wait", limit=BOOT_LIMIT)

    def run(
        self,
        script: str,
        *,
        limit: float,
        given: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Answer:
        """Run a script of sh as root, `given` on its input; `on_line` hears each line at once.

        The status is 124 where `limit` (seconds) was not enough. GuestError.
        """
        assert self._port is not None
        token = secrets.token_hex(8)
        text = script.encode()
        head = f"{token} {limit:g} {len(text)} {len(given)}\n".encode()
        end = time.monotonic() + limit + ANSWER_LIMIT
        self._send(head + text + given, end)
        mark = f"\n{token} ".encode()
        received, told = b"", 0
        while not (mark in received and received.endswith(b"\n")):
            received += self._receive(end)
            while on_line is not None and (stop := received.find(b"\n", told)) >= 0:
                line, told = received[told:stop].decode(errors="replace"), stop + 1
                if not line.startswith(f"{token} "):
                    on_line(line)
        output, _, status = received.rpartition(mark)
        return Answer(int(status), output)

    def must(self, script: str, *, limit: float, given: bytes = b"") -> Answer:
        """Run a script that must succeed. GuestError."""
        answer = self.run(script, limit=limit, given=given)
        if answer.status != 0:
            raise GuestError(f"{script}\nended with {answer.status}: {answer.text[-2000:]}")
        return answer

    def push(self, source: Path, target: str) -> None:
        """Copy what is in a folder into a folder of the guest, as root's."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in sorted(source.iterdir()):
                tar.add(path, arcname=path.name)
        script = f"mkdir -p {target} && tar -x --no-same-owner --keep-directory-symlink -C {target}"
        self.must(script, limit=60, given=archive.getvalue())

    def _send(self, data: bytes, end: float) -> None:
        assert self._port is not None
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self._port], [], 1)
            self._alive(end)
            with suppress(ConnectionError, BlockingIOError):
                if writable:
                    view = view[self._port.send(view[:65536], socket.MSG_DONTWAIT) :]

    def _receive(self, end: float) -> bytes:
        assert self._port is not None
        while True:
            readable, _, _ = select.select([self._port], [], [], 1)
            with suppress(ConnectionError):  # QEMU's end, which is told apart below
                if readable and (data := self._port.recv(65536)):
                    return data
            self._alive(end)
            if readable:
                time.sleep(0.1)  # closed, and QEMU is about to end

    def _alive(self, end: float) -> None:
        """GuestError where QEMU has ended, the guest stands still or the time is over."""
        status = self._process.poll()
        what = f"QEMU has ended with {status}" if status is not None else self._pulse.fault()
        if not what and time.monotonic() > end:
            what = "the guest does not answer"
        if what:
            raise GuestError(f"{what}: {self._last_words()}")

    def _last_words(self) -> str:
        files = [path for name in ("qemu", "console") if (path := self._path(name)).exists()]
        return last_lines(b"".join(file.read_bytes()[-8000:] for file in files))

    # -- CPUs ---------------------------------------------------------------------------------

    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """One QMP command's answer. GuestError."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(ANSWER_LIMIT)
            peer.connect(str(self._path("qmp")))
            with peer.makefile("rwb") as lines:
                lines.readline()  # the greeting
                for name, given in (("qmp_capabilities", {}), (command, arguments or {})):
                    lines.write(json.dumps({"execute": name, "arguments": given}).encode() + b"\n")
                    lines.flush()
                    answer: dict[str, object] = {}
                    while not answer.keys() & {"return", "error"}:  # events come between
                        answer = json.loads(lines.readline() or b'{"error": "QEMU is gone"}')
                    if "error" in answer:
                        raise GuestError(f"QMP {name}: {answer['error']}")
        return answer["return"]

    def slots(self) -> list[dict[str, object]]:
        """The places for CPUs in the order of their numbers; taken ones have a `qom-path`."""
        found = self.qmp("query-hotpluggable-cpus")
        assert isinstance(found, list)
        order = ("socket-id", "die-id", "core-id", "thread-id")
        return sorted(found, key=lambda slot: [slot["props"].get(name, 0) for name in order])

    def add_cpu(self, cpu: int) -> None:
        """Plug a CPU into its free slot. On bookworm only: trixie's kernel refuses (ACPI: unable
        to map lapic), and QEMU 7.2 crashes if a CPU was removed before."""
        slot = self.slots()[cpu]
        props = slot["props"]
        assert isinstance(props, dict)
        self.qmp("device_add", {"driver": slot["type"], "id": f"cpu{cpu}", **props})

    def remove_cpu(self, cpu: int) -> None:
        """Ask the guest to give a CPU back; it does so a moment later."""
        self.qmp("device_del", {"id": self.slots()[cpu]["qom-path"]})

    def act(self, action: str, cpu: int) -> None:
        """What a check in the guest asks for. GuestError."""
        match action:
            case "add_cpu":
                self.add_cpu(cpu)
            case "remove_cpu":
                self.remove_cpu(cpu)
            case _:
                raise GuestError(f"a check asks for {action}")

    def kill(self) -> None:
        """The power plug: the disk forgets anyway."""
        if self._port is not None:
            self._port.close()
        self._process.kill()
        self._process.wait(ANSWER_LIMIT)
