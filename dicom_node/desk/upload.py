"""DICOM files and ZIP files of them from a browser, taken through the same door as a C-STORE.

An upload counts as an association of its own, so a series it carries stays open until the upload ends. A ZIP file is
read member by member, counted as it unfolds; names in it are never used, archives inside it never opened.
"""

from __future__ import annotations

import threading
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO
from typing import IO, BinaryIO

from pydicom import dcmread

from config.settings import Settings
from dicom_node.errors import NodeError
from dicom_node.imaging.elements import quiet
from dicom_node.intake.receiver import Receiver
from dicom_node.network.received import AssociationInfo, StoreRequest
from storage.errors import NotFoundError
from storage.store import Store

CALLING = "UPLOAD"
_CHUNK = 1024**2
_HEAD = 64 * 1024
_MOST_MEMBERS = 20_000
_RATIO = 200
_RATIO_FROM = 64 * 1024**2
_IDLE = timedelta(minutes=10)


class UploadRefusedError(NodeError):
    """The upload is too large, holds too many files, or is no DICOM at all."""


@dataclass
class Upload:
    """One upload in progress. `refused` counts by reason code."""

    id: str
    actor: str
    association: AssociationInfo
    touched_at: datetime
    received: int = 0
    bytes: int = 0
    skipped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Uploads:
    """The uploads of this process. Safe for several threads."""

    def __init__(self, store: Store, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self._receiver = Receiver(store, largest=settings.receiving.largest_object)
        self._run_id = f"web-{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}

    @property
    def limit(self) -> int:
        """Unpacked bytes that one upload may bring."""
        return self._settings.api.max_upload

    def begin(self, *, actor: str, peer: str) -> Upload:
        """Open an upload; uploads that nothing was heard of for ten minutes end as lost."""
        self._drop_idle()
        called = self._settings.node.ae_titles[0]
        number = self._store.index.open_association(CALLING, called, peer, self._run_id)
        upload = Upload(uuid.uuid4().hex, actor, AssociationInfo(number, CALLING, called, peer), self._now())
        with self._lock:
            self._open[upload.id] = upload
        return upload

    def get(self, upload_id: str, *, actor: str) -> Upload:
        """An open upload of this person. Raises `NotFoundError`."""
        with self._lock:
            upload = self._open.get(upload_id)
        if upload is None or upload.actor != actor:
            raise NotFoundError("upload", upload_id[:32])
        return upload

    def take(self, upload: Upload, file: BinaryIO) -> None:
        """Take one file that lies complete in `file`: a DICOM object, or a ZIP file of them.

        Raises `UploadRefusedError`; what was taken before stands.
        """
        with upload.lock:
            upload.touched_at = self._now()
            file.seek(0)
            if file.read(4) == b"PK\x03\x04":
                self._take_zip(upload, file)
            else:
                file.seek(0)
                self._take_object(upload, file, guard=lambda _: None)

    def finish(self, upload: Upload, *, complete: bool) -> list[int]:
        """End the upload; the numbers of the series it carried. They close after their quiet period."""
        with self._lock:
            self._open.pop(upload.id, None)
        self._store.index.close_association(upload.association.id, "released" if complete else "aborted")
        data = {
            "actor": upload.actor,
            "received": upload.received,
            "skipped": upload.skipped,
            "refused": dict(upload.refused),
        }
        self._store.trail.append("upload.finished", association_id=upload.association.id, data=data)
        return self._store.finder.series_of_association(upload.association.id)

    # --- private

    def _take_zip(self, upload: Upload, file: BinaryIO) -> None:
        try:
            with zipfile.ZipFile(file) as archive:
                members = [info for info in archive.infolist() if not info.is_dir()]
                if len(members) > _MOST_MEMBERS:
                    raise UploadRefusedError(f"the ZIP file holds more than {_MOST_MEMBERS} files")
                if any(info.flag_bits & 0x1 for info in members):
                    raise UploadRefusedError("the ZIP file is encrypted")
                for info in members:
                    with archive.open(info) as member:
                        self._take_object(upload, member, guard=_ratio_guard(info.compress_size))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as exc:
            raise UploadRefusedError("the ZIP file is damaged or of an unknown kind") from exc

    def _take_object(self, upload: Upload, file: IO[bytes], *, guard: Callable[[int], None]) -> None:
        """Hand one Part 10 file to the receiver, as it comes; anything else is skipped and counted."""
        head = file.read(_HEAD)
        request, start = _request(head, upload.association)
        if request is None:
            upload.skipped += 1
            return
        reception = self._receiver.begin(request)
        try:
            seen = 0
            for piece in _pieces(head[start:], file):
                seen += len(piece)
                guard(seen)
                upload.bytes += len(piece)
                if upload.bytes > self.limit:
                    raise UploadRefusedError("the upload is larger than allowed")
                reception.write([memoryview(piece)])
            answer = reception.finish()
        finally:
            reception.discard()
        if answer.status == 0:
            upload.received += 1
        else:
            upload.refused[answer.comment or f"{answer.status:04X}"] += 1

    def _drop_idle(self) -> None:
        with self._lock:
            idle = [u for u in self._open.values() if self._now() - u.touched_at > _IDLE]
        for upload in idle:
            self.finish(upload, complete=False)


def _request(head: bytes, association: AssociationInfo) -> tuple[StoreRequest | None, int]:
    """What a Part 10 file says it is, and where its data set starts; None when it is no such file (PS3.10 7.1)."""
    if len(head) < 144 or head[128:132] != b"DICM" or head[132:136] != b"\x02\x00\x00\x00":
        return None, 0
    start = 144 + int.from_bytes(head[140:144], "little")
    if start > len(head):
        return None, 0
    with suppress(Exception), quiet():  # a damaged head makes the parser raise whatever it stumbles over
        meta = dcmread(BytesIO(head[:start])).file_meta
        request = StoreRequest(
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
            association,
        )
        return request, start
    return None, 0


def _pieces(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    while piece := file.read(_CHUNK):
        yield piece


def _ratio_guard(compressed: int) -> Callable[[int], None]:
    """Refuse a member that unfolds to far more than images do."""

    def guard(seen: int) -> None:
        if seen > _RATIO_FROM and seen > _RATIO * max(compressed, 1):
            raise UploadRefusedError("a file in the ZIP file unfolds to far more than images do")

    return guard
