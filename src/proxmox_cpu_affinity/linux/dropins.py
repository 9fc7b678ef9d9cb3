"""Drop-ins that confine a guest's scope from QEMU's first instruction on.

`/run/systemd/system/VMID.scope.d/50-proxmox-cpu-affinity.conf` holds AllowedCPUs while a start is
under way, never longer: one that stands breaks a later start of a guest that was given `affinity:`
meanwhile, since taskset(1) may not leave the scope's cpuset. The directory stays: systemd honours
a file in a directory that it has seen, and ignores one in a new directory (systemd 252 and 257;
Systemd.look_again makes it look).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import StoreError
from proxmox_cpu_affinity.model.ids import Vmid, vmid_of

FOLDER = "run/systemd/system"
FILE = "50-proxmox-cpu-affinity.conf"
_FRESH = f".{FILE}.new"  # while it is written: systemd reads *.conf only
_SUFFIX = ".scope.d"


@dataclass(frozen=True, slots=True)
class DropIns:
    """Our drop-ins below one root."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def directories(self) -> frozenset[Vmid]:
        """Guests whose scope has a drop-in directory, ours or not."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return frozenset()
        found = (vmid_of(n.removesuffix(_SUFFIX)) for n in names if n.endswith(_SUFFIX))
        return frozenset(vmid for vmid in found if vmid is not None)

    def write(self, vmid: Vmid, cpus: CpuSet) -> bool:
        """Confine the guest's next scope; whether its directory is new. StoreError."""
        directory = self._directory(vmid)
        fresh = directory / _FRESH
        try:
            new = not directory.is_dir()
            directory.mkdir(mode=0o755, exist_ok=True)
            fresh.write_text(f"[Scope]\nAllowedCPUs={str(cpus).replace(',', ' ')}\n")
            fresh.replace(directory / FILE)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise StoreError(f"the drop-in of {vmid} cannot be written: {error.strerror}") from None
        return new

    def delete(self, vmid: Vmid) -> bool:
        """Take the file away, and one that was never finished; keep the directory; whether there
        was one. StoreError."""
        directory = self._directory(vmid)
        with suppress(OSError):
            (directory / _FRESH).unlink()
        try:
            (directory / FILE).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            text = f"the drop-in of {vmid} cannot be deleted: {error.strerror}"
            raise StoreError(text) from None
        return True

    def standing(self) -> frozenset[Vmid]:
        """Guests for which a drop-in stands now."""
        return frozenset(v for v in self.directories() if (self._directory(v) / FILE).exists())

    def clean(self, *, directories: bool = False) -> int:
        """Delete every drop-in of ours (and empty directories, on removal); how many there were.

        StoreError, when all the others are gone, for one that cannot be deleted.
        """
        count, fault = 0, None
        for vmid in sorted(self.directories()):
            try:
                count += self.delete(vmid)
            except StoreError as error:
                fault = fault or error
            if directories:
                with suppress(OSError):
                    self._directory(vmid).rmdir()
        if fault is not None:
            raise fault
        return count

    def _directory(self, vmid: Vmid) -> Path:
        return self.folder / f"{vmid}{_SUFFIX}"
