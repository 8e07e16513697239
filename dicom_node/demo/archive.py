"""A small archive AE that stands in for the PACS: stores what it is sent, a folder per series."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from dicom_node.intake.admission import identify
from dicom_node.intake.part10 import part10_header
from dicom_node.network.received import AssociationInfo, AssociationRequest, ReceivedInstance, buffered
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.status import Ending, Rejection


class Archive:
    """An SCP that writes every instance below `directory`; use it as a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        ae_title: str = "ARCHIVE",
        port: int = 0,
        answer: Callable[[str], int] = lambda _sop_instance_uid: 0x0000,
    ) -> None:
        """Answer each instance, once it is written, with the status that `answer` gives for its UID."""
        self.directory = directory
        self.contents: dict[str, set[str]] = {}
        self._answer = answer
        self._lock = threading.Lock()
        self._series: dict[str, set[str]] = {}
        settings = ScpSettings(ae_titles=(ae_title,), host="127.0.0.1", port=port)
        # contents: SHA-256 of every data set that arrived under a SOP Instance UID; one UID, one digest.
        self._scp = StorageScp(settings, buffered(self._receive), _AnyCaller())

    def __enter__(self) -> Archive:
        self._scp.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._scp.stop(timedelta(seconds=2))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._scp.address[1]

    def instances(self, series_instance_uid: str) -> int:
        """How many different instances of a series have arrived."""
        with self._lock:
            return len(self._series.get(series_instance_uid, ()))

    def series(self) -> list[str]:
        """Series Instance UIDs of what has arrived."""
        with self._lock:
            return sorted(self._series)

    def folder(self, series_instance_uid: str) -> Path:
        """Where the instances of a series lie."""
        return self.directory / series_instance_uid

    def _receive(self, received: ReceivedInstance) -> int:
        """Write one instance; the demo's archive promises nothing beyond that."""
        identity = identify(received)
        folder = self.folder(identity.series_instance_uid)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{identity.sop_instance_uid}.dcm").open("wb") as file:
            file.write(part10_header(received))
            file.write(received.data)
        status = self._answer(identity.sop_instance_uid)
        if status == 0x0000:
            digest = hashlib.sha256(received.data).hexdigest()
            with self._lock:
                self._series.setdefault(identity.series_instance_uid, set()).add(identity.sop_instance_uid)
                self.contents.setdefault(identity.sop_instance_uid, set()).add(digest)
        return status


class _AnyCaller:
    """Admits everybody and keeps no record: loopback only."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def admits(self, _request: AssociationRequest) -> bool:
        """Admit everybody."""
        return True

    def opened(self, _request: AssociationRequest) -> int:
        """Number associations."""
        return next(self._numbers)

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """Take no note."""

    def closed(self, association: AssociationInfo, ending: Ending) -> None:
        """Take no note."""
