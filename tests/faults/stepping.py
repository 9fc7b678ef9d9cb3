"""strace(1) as the one who lets a system call fail, or kills whoever makes it.

First a command is run and watched: its steps are the system calls that matter, each so many times
as one of its threads makes it. Then it is run again with one fault at one step. strace counts the
calls of each thread for itself, so a fault at the second call may come in several threads.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

KILL = "KILL"
# What such a call fails with in bad times, by what it is about.
READING = {
    "openat": ("EACCES", "EIO", "EMFILE", "ENOSPC", "ENOTCONN"),
    "getdents64": ("EIO", "ENOTCONN"),
    "read": ("EIO", "ENOTCONN"),
    "readlink": ("ENOTCONN", "EACCES"),
    "newfstatat": ("EACCES", "ENOTCONN", "EIO"),
    "access": ("EACCES", "EIO"),
}
WRITING = {
    "close": ("EIO", "ENOSPC"),
    "write": ("ENOSPC", "EIO", "EINTR"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "EACCES", "ENOSPC"),
    "unlink": ("EACCES", "EIO"),
    "mkdir": ("ENOSPC", "EACCES"),
    "rmdir": ("EACCES", "EIO"),
    "symlink": ("ENOSPC", "EACCES"),
    "chmod": ("EPERM", "EIO"),
    "fchmod": ("EPERM", "EIO"),
    "ftruncate": ("EIO",),
    "flock": ("EIO", "EINTR"),
}
SOCKETS = {
    "socket": ("EMFILE", "EAFNOSUPPORT"),
    "bind": ("EADDRINUSE", "EACCES"),
    "listen": ("EADDRINUSE",),
    "accept4": ("EMFILE", "ECONNABORTED"),
    "connect": ("ECONNREFUSED", "EAGAIN", "EINTR"),
    "sendto": ("EPIPE", "EINTR"),
    "recvfrom": ("ECONNRESET", "EINTR"),
    "getsockname": ("ENOBUFS",),
    "getsockopt": ("ENOBUFS",),
    "setsockopt": ("ENOMEM",),
}
PROCESSES = {
    "sched_setaffinity": ("EINVAL", "EPERM", "ESRCH"),
    "sched_getaffinity": ("ESRCH", "EINVAL"),
    "pidfd_open": ("EMFILE", "ESRCH"),
    "move_pages": ("EPERM", "ESRCH", "ENODEV"),
    "clone3": ("EAGAIN",),
    "vfork": ("EAGAIN", "ENOMEM"),
    "execve": ("ENOMEM", "EACCES"),
    "wait4": ("ECHILD",),
    "kill": ("ESRCH", "EPERM"),
}
WAITING = {
    "pipe2": ("EMFILE",),
    "socketpair": ("EMFILE",),
    "epoll_create1": ("EMFILE",),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "poll": ("ENOMEM", "EINTR"),
}
MEMORY = {
    "mmap": ("ENOMEM",),
    "munmap": ("EINVAL",),
    "mprotect": ("ENOMEM",),
    "brk": ("ENOMEM",),
}
FAULTS = READING | WRITING | SOCKETS | PROCESSES | WAITING | MEMORY
WITHOUT_PATH = SOCKETS.keys() | PROCESSES.keys() | WAITING.keys()
# Where it makes a difference that whoever did this is gone: something is other than before.
CHANGING = (WRITING.keys() - {"close"}) | {"bind", "connect", "sendto", "sched_setaffinity"}
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_NEVER_RETURNED = re.compile(r"^\d+ .*\) += \?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One system call of a thread: on this path (all, where it is empty), for this time."""

    call: str
    path: str
    time: int

    def __str__(self) -> str:
        return f"{self.call} {self.path or '-'} #{self.time}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a step: the name of an error, or KILL."""

    step: Step
    what: str

    def __str__(self) -> str:
        return f"{self.what} at {self.step}"


@dataclass(frozen=True, slots=True)
class Tracer:
    """How a command is watched. `calls`: which; below `root`, those on its files alone."""

    log: Path
    calls: Sequence[str]
    root: Path | None = None

    def watching(self) -> list[str]:
        """In front of a command: everything is noted, nothing fails."""
        words = ["strace", "-f", "--seccomp-bpf", "-y", "-s", "300", "-o", str(self.log)]
        return [*words, "-e", f"trace={','.join(self.calls)}"]

    def spoiling(self, fault: Fault) -> list[str]:
        """In front of a command: it meets with this."""
        step = fault.step
        words = ["strace", "-f", "-y", "-o", str(self.log), "-e", f"trace={step.call}"]
        # A signal is lost where seccomp stops the call (seen with strace 6.1).
        words += [] if fault.what == KILL else ["--seccomp-bpf"]
        if step.path and self.root is not None:
            words += ["-P", str(self.root / step.path)]
        what = "signal=KILL" if fault.what == KILL else f"error={fault.what}"
        return [*words, "-e", f"inject={step.call}:{what}:when={step.time}"]

    def steps(self) -> list[Step]:
        """The steps of what was watched, in alphabetical order."""
        most: Counter[tuple[str, str]] = Counter()
        threads: Counter[tuple[str, str, str]] = Counter()
        for thread, call, path in self._calls():
            threads[thread, call, path] += 1
            most[call, path] = max(most[call, path], threads[thread, call, path])
        return sorted(
            Step(call, path, time)
            for (call, path), times in most.items()
            # What a close can fail with is what a write has left to do.
            if call != "close" or ("write", path) in most
            for time in range(1, times + 1)
        )

    def struck(self) -> bool:
        """Whether the fault came: who is killed at a call never sees its result. That somebody was
        killed is not enough, for the service kills its measuring program."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "(INJECTED)" in text or _NEVER_RETURNED.search(text) is not None

    def _calls(self) -> Iterator[tuple[str, str, str]]:
        """Thread, call and path below the root; empty for calls that have none."""
        for line in self.log.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match is None or match[2] not in FAULTS:
                continue
            thread, call, words = match.groups()
            path = "" if call in WITHOUT_PATH else self._path(words)
            if path is not None:
                yield thread, call, path

    def _path(self, words: str) -> str | None:
        """Below the root; None where it is elsewhere, or names a process of one run."""
        if self.root is None:
            return ""
        named = re.findall(r'"(/[^"]*)"|<(/[^>]*)>', words)
        paths = [one or other for one, other in named]
        below = [path for path in paths if path.startswith(f"{self.root}/")]
        if not below:
            return None
        path = below[0].removeprefix(f"{self.root}/")
        return None if re.search(r"\d{2,}/|proc/self|\.\d+$", path) else path


def faults_of(steps: Sequence[Step]) -> Iterator[Fault]:
    """Each step with each of its errors; and with a kill, where that makes a difference."""
    for step in steps:
        for error in FAULTS[step.call]:
            yield Fault(step, error)
        if step.call in CHANGING:
            yield Fault(step, KILL)
