"""Commits arrivals together: one folder sync and one transaction for all that are ready at the moment.

There is no committing thread. Whoever comes first commits for everybody who has come since the last time;
the others find their work done. So one association alone pays for no change of threads, and fifty at once
share one transaction. Nobody returns before what it asked for is durable.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from storage.arriving import Folder, sync_folders
from storage.errors import DatabaseDiskError, DatabaseUnavailableError, SpoolFullError, StorageError
from storage.health import DATABASE, Health
from storage.index import Index
from storage.records import NewInstance, Outcome

_LARGEST_GROUP = 64


@dataclass(eq=False)
class _Entry:
    """One arrival that waits: its row, its folder, and what became of it."""

    new: NewInstance
    folder: Folder
    outcome: Outcome | None = None
    error: StorageError | None = None

    @property
    def is_done(self) -> bool:
        """Whether somebody has committed it, or tried."""
        return self.outcome is not None or self.error is not None


class GroupCommit:
    """Makes placed files durable and known. Safe for any number of threads."""

    def __init__(self, index: Index, health: Health) -> None:
        self._index = index
        self._health = health
        self._lock = threading.Lock()  # for the queue
        self._turn = threading.Lock()  # held by the one who commits
        self._queue: list[_Entry] = []

    def commit(self, new: NewInstance, folder: Folder) -> Outcome:
        """Sync the folder of a synced file and commit its row.

        See `Index.add_instance` for the outcomes.

        Raises `StorageError`; the row may exist all the same when the database did not say.
        """
        entry = _Entry(new, folder)
        with self._lock:
            self._queue.append(entry)
        with self._turn:
            while not entry.is_done:
                self._commit_group()
        if entry.outcome is None:
            assert entry.error is not None  # noqa: S101 (one of the two is set)
            raise entry.error
        return entry.outcome

    def _commit_group(self) -> None:
        """Commit those who wait, the oldest first."""
        with self._lock:
            group, self._queue = self._queue[:_LARGEST_GROUP], self._queue[_LARGEST_GROUP:]
        try:
            sync_folders([entry.folder for entry in group])
            self._add(group)
        except StorageError as exc:
            if isinstance(exc, DatabaseDiskError):
                self._health.doubt(DATABASE, exc.cause)
            for entry in group:
                entry.error = exc

    def _add(self, group: list[_Entry]) -> None:
        """One transaction for all; one each when it fails for something that only one of them may be."""
        try:
            outcomes = self._index.add_instances([entry.new for entry in group])
        except (DatabaseUnavailableError, SpoolFullError):
            raise
        except StorageError:
            if len(group) == 1:
                raise
            self._add_singly(group)
            return
        for entry, outcome in zip(group, outcomes, strict=True):
            entry.outcome = outcome

    def _add_singly(self, group: list[_Entry]) -> None:
        """A transaction for each, so that one bad arrival spoils no other."""
        for entry in group:
            try:
                (entry.outcome,) = self._index.add_instances([entry.new])
            except StorageError as exc:
                entry.error = exc
