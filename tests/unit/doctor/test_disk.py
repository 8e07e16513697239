"""The disk check on real file systems, whole and broken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.sections import StorageSection, Watermarks
from dicom_node.doctor.disk import check_disk, check_privacy, filesystem_kind
from dicom_node.doctor.findings import Finding, Level
from tests.disks import small_disk as small_disk_at


def section(directory: Path, **marks: float) -> StorageSection:
    wide = {"soft": 99.9, "hard": 100.0, "reserve": 0}
    return StorageSection(directory=directory, watermarks=Watermarks(**{**wide, **marks}))


def worst(findings: list[Finding], words: str) -> Finding:
    (found,) = [finding for finding in findings if words in finding.seen]
    assert found.level is Level.OK or (found.meaning and found.fix)
    return found


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB; skipped where mounting is not allowed."""
    with small_disk_at(tmp_path / "memory", mebibytes=4) as mounted:
        if not mounted:
            pytest.skip("no small file system can be mounted here (needs root)")
        yield tmp_path / "memory"


def test_a_good_disk_has_nothing_but_ok(tmp_path):
    findings = check_disk(section(tmp_path / "data"))

    assert {finding.level for finding in findings} <= {Level.OK}
    assert len(findings) == 3
    assert worst(findings, "synced and read back in")
    assert list((tmp_path / "data" / "staging").iterdir()) == []


def test_a_disk_below_its_reserve_or_above_its_marks_is_told(tmp_path):
    assert worst(check_disk(section(tmp_path, reserve=10**15)), "are free").level is Level.PROBLEM
    assert worst(check_disk(section(tmp_path, soft=0.001, hard=0.002)), "are free").level is Level.PROBLEM
    assert worst(check_disk(section(tmp_path, soft=0.001)), "are free").level is Level.WARNING


def test_a_folder_that_cannot_be_made_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    assert worst(check_disk(section(tmp_path / "file" / "data")), "does not exist").level is Level.PROBLEM


def test_a_folder_that_takes_no_files_is_a_problem(tmp_path):
    for tree in ("incoming", "derived"):
        (tmp_path / tree).mkdir()
    (tmp_path / "staging").write_text("in the way")
    assert worst(check_disk(section(tmp_path)), "could not be written").level is Level.PROBLEM


def test_a_full_file_system_is_a_problem(memory_disk):
    (memory_disk / "data").mkdir(mode=0o700)
    with pytest.raises(OSError, match="space"):
        (memory_disk / "ballast").write_bytes(bytes(5 * 2**20))

    findings = check_disk(section(memory_disk / "data"))

    assert Level.PROBLEM in {finding.level for finding in findings}


def test_a_disk_in_memory_is_a_warning(memory_disk):
    found = worst(check_disk(section(memory_disk / "data")), "lives in memory")
    assert found.level is Level.WARNING


def test_temporary_files_on_another_file_system_are_a_problem(tmp_path, memory_disk):
    data = tmp_path / "data"
    check_disk(section(data))
    subprocess.run(["mount", "--bind", str(memory_disk), str(data / "staging")], check=True)
    try:
        found = worst(check_disk(section(data)), "different file systems")
    finally:
        subprocess.run(["umount", "-l", str(data / "staging")], check=True)
    assert found.level is Level.PROBLEM


def test_a_store_that_others_can_enter_is_told(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    levels = []
    for mode in (0o700, 0o750, 0o755, 0o777):
        data.chmod(mode)
        levels += [[finding.level for finding in check_privacy(section(data))]]
    assert levels == [[], [], [Level.WARNING], [Level.PROBLEM]]


def test_the_mount_nearest_to_the_path_counts(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\n"
        "/dev/sdb /data/local\\040disk xfs rw 0 0\nserver:/y /database cifs rw 0 0\n"
    )
    kinds = ["/var", "/data/incoming", "/data/local disk/a", "/database"]
    assert [filesystem_kind(Path(k), mounts) for k in kinds] == ["ext4", "nfs4", "xfs", "cifs"]
    assert filesystem_kind(tmp_path, tmp_path / "absent") == ""
