"""All or nothing: what appears on disk, and what never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.offline.placement import Placement
from dicom_node.offline.request import OfflineError

NAMES = frozenset({"a.nii", "sub/b.nii"})


def entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_nothing_has_its_name_before_the_commit(tmp_path: Path) -> None:
    with Placement(force=False) as placement:
        placement.file(tmp_path / "r.json").write_text("{}")
        (placement.folder(tmp_path / "out", replaceable=NAMES) / "a.nii").write_text("a")
        assert not {"r.json", "out"} & entries(tmp_path)
        placement.commit()
    assert entries(tmp_path) == {"r.json", "out", "out/a.nii"}


def test_leaving_early_leaves_nothing(tmp_path: Path) -> None:
    def work() -> None:
        with Placement(force=False) as placement:
            placement.file(tmp_path / "r.json").write_text("{}")
            (placement.folder(tmp_path / "out", replaceable=NAMES) / "a.nii").write_text("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert entries(tmp_path) == set()


def test_what_exists_is_refused_and_force_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii").write_text("old")
    with Placement(force=False) as placement:
        with pytest.raises(OfflineError, match="--force"):
            placement.file(tmp_path / "r.json")
        with pytest.raises(OfflineError, match="--force"):
            placement.folder(tmp_path / "out", replaceable=NAMES)
    with Placement(force=True) as placement:
        placement.file(tmp_path / "r.json").write_text("new")
        (placement.folder(tmp_path / "out", replaceable=NAMES) / "a.nii").write_text("new")
        placement.commit()
    assert entries(tmp_path) == {"r.json", "out", "out/a.nii"}
    assert {(tmp_path / name).read_text() for name in ("r.json", "out/a.nii")} == {"new"}


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with Placement(force=True) as placement, pytest.raises(OfflineError, match=r"thesis\.txt"):
        placement.folder(tmp_path / "out", replaceable=NAMES)
    assert entries(tmp_path) == {"out", "out/thesis.txt"}


def test_a_file_is_not_a_folder_and_a_folder_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with Placement(force=True) as placement:
        with pytest.raises(OfflineError, match="is a folder"):
            placement.file(tmp_path / "folder")
        with pytest.raises(OfflineError, match="is a file"):
            placement.folder(tmp_path / "file", replaceable=NAMES)
        with pytest.raises(OfflineError, match="does not exist"):
            placement.file(tmp_path / "nowhere" / "r.json")
    assert entries(tmp_path) == {"file", "folder"}
