"""Drop-ins as files; what systemd makes of them is in tests/e2e."""

from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.dropins import FILE, FOLDER, DropIns
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import StoreError
from proxmox_cpu_affinity.model.ids import Vmid


@pytest.fixture
def drop_ins(tmp_path: Path) -> DropIns:
    (tmp_path / FOLDER).mkdir(parents=True)
    return DropIns(tmp_path)


def test_what_is_written_stands_until_it_is_deleted(drop_ins: DropIns) -> None:
    assert drop_ins.write(Vmid(100), CpuSet.parse("0-3,8"))
    assert not drop_ins.write(Vmid(100), CpuSet.parse("0-3,8")), "its directory was there"
    assert (drop_ins.folder / "100.scope.d" / FILE).read_text() == "[Scope]\nAllowedCPUs=0-3 8\n"
    assert drop_ins.standing() == {100}
    assert drop_ins.delete(Vmid(100))
    assert not drop_ins.delete(Vmid(100))
    assert not drop_ins.standing()
    assert drop_ins.directories() == {100}


def test_one_that_cannot_be_deleted_does_not_keep_the_others(drop_ins: DropIns) -> None:
    """Each of them would break a start: with the first fault all that came later stayed."""
    for vmid in range(100, 110):
        drop_ins.write(Vmid(vmid), CpuSet.parse("0"))
    stuck = drop_ins.folder / "104.scope.d" / FILE
    stuck.unlink()
    stuck.mkdir()
    with pytest.raises(StoreError, match="the drop-in of 104"):
        drop_ins.clean(directories=True)
    assert list(drop_ins.folder.iterdir()) == [stuck.parent]


def test_what_a_killed_service_left_half_written_goes_too(drop_ins: DropIns) -> None:
    drop_ins.write(Vmid(100), CpuSet.parse("0"))
    (drop_ins.folder / "100.scope.d" / f".{FILE}.new").write_text("[Sco")
    assert drop_ins.clean(directories=True) == 1
    assert not list(drop_ins.folder.iterdir())
