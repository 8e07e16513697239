"""One instance while it is being written: nameless first, then durable under a name that only a row will make known.

The file is opened without a name (O_TMPFILE), so that nothing is left of it however the process ends. When
it is complete it is linked under its final, random name, never over another, and synced; the folder is synced
after it, once for every file of a group. The disk begins to write each piece at once, and the digest is taken
meanwhile, on the same thread: on a busy machine a change of threads costs more than the sync it would hide.
Where there are no nameless files the name is one in `staging` until then.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from storage.files import filesystem, write_fully
from storage.writeback import begin_writeback

Buffer = bytes | bytearray | memoryview

_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
Failed = Callable[[OSError], None]
_MOST_PIECES = 512  # of one gathered write; the system takes 1024


class Folder:
    """A folder that is open to be synced. Closed when nobody holds it any more."""

    def __init__(self, path: Path, on_failure: Failed) -> None:
        self.path = path
        self.files = 0
        self.on_failure = on_failure
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync(self) -> None:
        """Make the names in it durable."""
        try:
            os.fsync(self._descriptor)
        except OSError as exc:
            self.on_failure(exc)
            raise

    def link(self, descriptor: int, staged: Path | None, name: str) -> Path:
        """Name an open file, never over another one."""
        final = self.path / name
        if staged is None:
            # Followed, since /proc shows the descriptor as a link; Python asks for that only with a folder.
            os.link(f"/proc/self/fd/{descriptor}", final, src_dir_fd=self._descriptor, follow_symlinks=True)
        else:
            os.link(staged, final)
            staged.unlink()
        return final

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._descriptor)


class Folders:
    """Hands out the folder that new files go into; a new one after every thousand. Safe for several threads."""

    def __init__(
        self,
        root: Path,
        prepare: Callable[[Path], None],
        on_failure: Failed,
        *,
        files: int = 1000,
    ) -> None:
        """`prepare` has a folder durably; `on_failure` is told; `files` is how many go into one."""
        self._root = root
        self._prepare = prepare
        self._on_failure = on_failure
        self._files = files
        self._lock = threading.Lock()
        self._current: Folder | None = None

    def take(self) -> Folder:
        """The folder for one more file."""
        with self._lock:
            if self._current is None or self._current.files >= self._files:
                name = uuid4().hex
                path = self._root / name[0] / name[1]
                self._prepare(path)
                self._current = Folder(path, self._on_failure)
            self._current.files += 1
            return self._current


class Arriving:
    """A file that is being received. Used by one thread; `discard` is called in every case, at the end.

    `digest` is SHA-256 over the body, `size` counts the whole file.
    """

    def __init__(self, folder: Folder, staging: Path, header: Buffer) -> None:
        """Open the file and keep the header for the first write. Raises `SpoolError` or `SpoolFullError`."""
        self.folder = folder
        self._header = len(header)
        self._first: Buffer | None = header
        self._digest = hashlib.sha256()
        self._staged: Path | None = None
        self._path: Path | None = None
        self.size = 0
        with filesystem():
            self._descriptor = self._open(staging)

    def _open(self, staging: Path) -> int:
        """A nameless file in the folder, or one in `staging`."""
        try:
            return os.open(self.folder.path, os.O_RDWR | os.O_TMPFILE, 0o600)
        except OSError as exc:
            if exc.errno not in _NO_NAMELESS:
                raise
        self._staged = staging / uuid4().hex
        return os.open(self._staged, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    @property
    def digest(self) -> str:
        """SHA-256 over what was written so far, without the header."""
        return self._digest.hexdigest()

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Append the pieces in one gathered write. Raises `SpoolError` or `SpoolFullError`."""
        gathered = [self._first, *pieces] if self._first is not None else list(pieces)
        self._first = None
        with filesystem():
            try:
                for start in range(0, len(gathered), _MOST_PIECES):
                    self._write(gathered[start : start + _MOST_PIECES])
            except OSError as exc:
                self.folder.on_failure(exc)
                raise
        begin_writeback(self._descriptor)
        for piece in pieces:
            self._digest.update(piece)

    def _write(self, pieces: list[Buffer]) -> None:
        """Write every byte of the pieces."""
        wanted = sum(map(len, pieces))
        written = os.writev(self._descriptor, pieces)
        self.size += wanted
        for piece in pieces:
            if written >= len(piece):
                written -= len(piece)
            else:
                write_fully(self._descriptor, memoryview(piece)[written:])
                written = 0

    @contextmanager
    def body(self) -> Iterator[memoryview]:
        """The body as it stands in the file, without reading it into memory."""
        if self.size <= self._header:
            yield memoryview(b"")
            return
        with filesystem():
            mapped = mmap.mmap(self._descriptor, self.size, prot=mmap.PROT_READ)
        with mapped, memoryview(mapped) as whole, whole[self._header :] as body:
            yield body

    def place(self) -> Path:
        """Give the file its final name and sync it; `folder.sync` has to follow before a row may name it.

        After a failed sync nothing of the file is kept (R2: no second sync of the same file).
        """
        if self._first is not None:
            self.write([])
        with filesystem():
            self._path = self.folder.link(self._descriptor, self._staged, uuid4().hex)
            try:
                os.fsync(self._descriptor)
            except OSError as exc:
                self.folder.on_failure(exc)
                self.remove()
                raise
        return self._path

    def remove(self) -> None:
        """Drop the file although it has its name: no row will name it."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None

    def discard(self) -> None:
        """Close the file; without a name it is gone. Any number of calls."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)
        if self._staged is not None and self._path is None:
            with suppress(OSError):
                self._staged.unlink(missing_ok=True)


def sync_folders(folders: Sequence[Folder]) -> None:
    """Sync each folder once. Raises `SpoolError` or `SpoolFullError`."""
    for folder in dict.fromkeys(folders):
        with filesystem():
            folder.sync()
