"""Threads that work for the service, and what it means where the kernel gives none.

Out of scope: what is done in them, and that only so many requests may take long (service.api).
"""

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from proxmox_cpu_affinity.model.errors import ExhaustedError

P = ParamSpec("P")
T = TypeVar("T")
# fork(2) and pipe(2): limits of processes, of memory, of descriptors.
_WANTING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_HINT = "look at the limits of processes, threads and files: TasksMax of the unit, pid_max"


class Workers(ThreadPoolExecutor):
    """As many as asyncio would have, each begun when it is needed."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """ExhaustedError where no thread can be started."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            raise (exhausted(error) or error) from None


def exhausted(error: OSError | RuntimeError) -> ExhaustedError | None:
    """What it means that a process or a thread could not be started, if the machine's want is the
    cause. Python has a RuntimeError for a thread, and for other things (_thread.c)."""
    if isinstance(error, OSError):
        if error.errno not in _WANTING:
            return None
        return ExhaustedError(f"no process can be started: {error.strerror}", hint=_HINT)
    if "start new thread" not in str(error):
        return None
    return ExhaustedError("no thread can be started", hint=_HINT)
