"""What can go wrong in the store, as one tree.

StorageError
├── SpoolError                  a file could not be made durable (any OSError but a full disk)
│   └── SpoolFullError          no space: disk, quota, the configured reserve, or the database file
├── DatabaseUnavailableError    the database did not answer, is locked for too long, or is damaged
│   └── DatabaseDiskError       the disk below the database failed to write, to sync or to read
├── StoreInUseError             another node runs on this SQLite file
├── SchemaError                 the schema of the database is unknown to this version
├── NotFoundError               no row has this key
├── TakenError                  another row has this key already
├── IllegalTransitionError      the state does not allow the event
└── LostClaimError              the claim on a job is no longer the caller's; write nothing more for it

Messages hold ids, UIDs, states and numbers only.
"""

from __future__ import annotations


class StorageError(Exception):
    """Root of every error the store raises on purpose."""


class SpoolError(StorageError):
    """A file could not be written, synced, renamed or read back. Never retry on the same file."""


class SpoolFullError(SpoolError):
    """No space is left. `free` and `needed` are bytes where known."""

    def __init__(self, message: str, *, free: int | None = None, needed: int | None = None) -> None:
        super().__init__(message)
        self.free = free
        self.needed = needed


class DatabaseUnavailableError(StorageError):
    """The database did not take the transaction. Nothing of it was kept; trying again later is safe."""


class DatabaseDiskError(DatabaseUnavailableError):
    """The disk failed the database; `cause` is the database's name for it."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the database did not take the transaction ({cause})")
        self.cause = cause


class StoreInUseError(StorageError):
    """Another node runs on this SQLite file; `holder` is its process id as it wrote it down."""

    def __init__(self, holder: str) -> None:
        who = f" (process {holder})" if holder else ""
        super().__init__(f"another node{who} runs on this SQLite database; use PostgreSQL for several nodes")
        self.holder = holder


class SchemaError(StorageError):
    """The database holds a schema this version does not know, so it is left alone."""


class NotFoundError(StorageError):
    """No row has this key."""

    def __init__(self, what: str, key: int | str) -> None:
        super().__init__(f"no {what} {key}")
        self.what = what
        self.key = key


class TakenError(StorageError):
    """Another row has this key already."""

    def __init__(self, what: str, key: str) -> None:
        super().__init__(f"the {what} {key} is taken")
        self.what = what
        self.key = key


class IllegalTransitionError(StorageError):
    """The state does not allow the event; nothing was changed."""

    def __init__(self, state: str, event: str, detail: str = "") -> None:
        super().__init__(f"{event} is not possible in state {state}" + (f": {detail}" if detail else ""))
        self.state = state
        self.event = event


class LostClaimError(StorageError):
    """The job is not RUNNING under this fencing token any more; the holder has to stop and drop its work."""

    def __init__(self, job_id: int, token: int) -> None:
        super().__init__(f"the claim on job {job_id} with token {token} is lost")
        self.job_id = job_id
        self.token = token
