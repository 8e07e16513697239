"""All or nothing on disk: files and folders grow under temporary names beside their targets.

A process that is killed outright leaves hidden ``.NAME.*.partial`` entries and never a half target.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dicom_node.offline.request import OfflineError


@dataclass(frozen=True)
class _Move:
    temporary: Path
    target: Path


class Placement:
    """Hands out temporary paths, and moves all of them to their targets at once.

    As a context manager: leaving without `commit` removes whatever was written.
    """

    def __init__(self, *, force: bool) -> None:
        self._force = force
        self._moves: list[_Move] = []

    def __enter__(self) -> Placement:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for move in self._moves:
            remove(move.temporary)

    def file(self, target: Path) -> Path:
        """A path to create in place of the file `target`; raises `OfflineError` when that cannot be."""
        if target.is_dir():
            raise OfflineError(f"{target} is a folder; name a file")
        return self._reserve(target)

    def folder(self, target: Path, *, replaceable: frozenset[str]) -> Path:
        """A new folder in place of `target`; raises `OfflineError` when that cannot be.

        An existing folder gives way only if it holds nothing but files of the names in `replaceable`: a
        mistyped OUTPUT must not cost anyone their data.
        """
        if target.exists() and not target.is_dir():
            raise OfflineError(f"{target} is a file; name a folder")
        temporary = self._reserve(target)
        if target.is_dir():
            foreign = sorted(_files_below(target) - replaceable)
            if foreign:
                raise OfflineError(
                    f"{target} holds {foreign[0]}, which this run would not write; choose another"
                )
        try:
            temporary.mkdir()
        except OSError as exc:
            raise OfflineError(f"{target} cannot be written: {exc.strerror}") from exc
        return temporary

    def commit(self) -> None:
        """Give everything its name."""
        for move in self._moves:
            try:
                _put(move)
            except OSError as exc:
                raise OfflineError(f"{move.target} cannot be written: {exc.strerror}") from exc

    def _reserve(self, target: Path) -> Path:
        """A temporary path beside the target."""
        if not target.parent.is_dir():
            raise OfflineError(f"the folder {target.parent} does not exist")
        if not self._force and (target.exists() or target.is_symlink()):
            raise OfflineError(f"{target} exists; --force replaces it")
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
        self._moves.append(_Move(temporary, target))
        return temporary


def _put(move: _Move) -> None:
    """Rename onto the target; a folder that was there is moved aside first and deleted last."""
    if not move.temporary.exists():
        return
    aside = move.temporary.with_suffix(".former")
    former = move.target.is_dir() and not move.target.is_symlink()
    if former:
        move.target.rename(aside)
    try:
        move.temporary.replace(move.target)
    except OSError:
        if former:
            aside.rename(move.target)
        raise
    if former:
        shutil.rmtree(aside)
    _sync(move.target.parent)


def _sync(folder: Path) -> None:
    """Make the new name durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def remove(path: Path) -> None:
    """Delete a file or a folder with all in it; nothing there is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
