"""Removal of files that no row knows: what a crash left between file and row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

KnownPaths = Callable[[Collection[Path]], set[Path]]
BATCH = 500


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed."""

    files: int
    bytes: int


def sweep(trees: Iterable[Path], known_paths_fn: KnownPaths, older_than: timedelta) -> SweepReport:
    """Remove the files below the trees that are older and unknown."""
    before = time.time() - older_than.total_seconds()
    files = size = 0
    for tree in trees:
        for batch in _batches(_older(tree, before)):
            known = known_paths_fn([path for path, _ in batch])
            for path, length in batch:
                if path not in known and _remove(path):
                    files, size = files + 1, size + length
    return SweepReport(files, size)


def _older(tree: Path, before: float) -> Iterator[tuple[Path, int]]:
    """Files not changed since `before` (seconds since the epoch) with their sizes."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder) / name
            try:
                stats = path.lstat()
            except FileNotFoundError:
                continue
            if stats.st_mtime < before:
                yield path, stats.st_size


def _remove(path: Path) -> bool:
    """Unlink; False when it cannot be or somebody else did."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _batches(found: Iterator[tuple[Path, int]]) -> Iterator[list[tuple[Path, int]]]:
    """Batches small enough for one query each."""
    while batch := list(islice(found, BATCH)):
        yield batch
