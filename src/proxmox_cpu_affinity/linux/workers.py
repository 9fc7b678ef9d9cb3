"""Threads that work for the service, and what it means where the kernel gives none.

Out of scope: what is done in them, and that only so many requests may take long (service.api).
"""

import asyncio
import errno
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

from proxmox_cpu_affinity.model.errors import ExhaustedError

T = TypeVar("T")
# fork(2) and pipe(2): limits of processes, of memory, of descriptors.
_WANTING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_HINT = "look at the limits of processes, threads and files: TasksMax of the unit, pid_max"


class Workers(ThreadPoolExecutor):
    """As many as asyncio would have, all begun at once. ExhaustedError.

    Begun when it is needed, one that the kernel refuses leaves its work in the queue, and it is
    done when nobody expects it any more: a state is written that is not the last one.
    """

    def __init__(self) -> None:
        many = min(32, (os.cpu_count() or 1) + 4)
        super().__init__(many, thread_name_prefix="worker")
        together = Barrier(many)
        try:
            for _ in range(many):
                self.submit(together.wait)
        except RuntimeError as error:
            together.abort()
            self.shutdown(wait=False)
            raise (exhausted(error) or error) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, which begins threads and ends them by another one. ExhaustedError."""
    try:
        return asyncio.run(work)
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
