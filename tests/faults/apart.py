"""A mount namespace of one's own: disks that are full and mounts that are dead, seen by this
process and its children alone, and gone with them. Only root may have one (mount_namespaces(7)).
"""

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x00020000  # sched.h
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x4000, 0x40000, 2  # sys/mount.h


def step_aside() -> bool:
    """Take a namespace of our own; whether that is permitted."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        return False
    _mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)
    return True


def small_disk(folder: Path, *, size: str) -> None:
    """An empty file system of so many bytes over a folder."""
    _mount("tmpfs", folder, kind="tmpfs", data=f"size={size},mode=0700")


def dead_mount(folder: Path) -> None:
    """A mount over a folder whose server is gone, as pmxcfs' when it has crashed: each access is
    ENOTCONN (fuse(4))."""
    handle = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        data = f"fd={handle},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        _mount("dead", folder, kind="fuse", data=data)
    finally:
        os.close(handle)


def unmount(folder: Path) -> None:
    """Take the topmost mount of a folder away, whoever still uses it."""
    if _libc.umount2(os.fsencode(folder), _MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def _mount(source: str, folder: Path, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = (source.encode(), os.fsencode(folder), kind.encode() or None)
    if _libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
