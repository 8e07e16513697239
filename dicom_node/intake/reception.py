"""One data set on its way from the wire to the disk, piece by piece, in bounded memory whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from dicom_node.errors import Reason, RefusedInstanceError
from dicom_node.intake.admission import Identity, identify
from dicom_node.intake.part10 import part10_header
from dicom_node.network.received import ReceivedInstance, StoreRequest
from dicom_node.network.status import STORED, Status, StoreResponse
from storage.arriving import Arriving
from storage.errors import SpoolFullError, StorageError
from storage.group_commit import GroupCommit
from storage.index import Index
from storage.records import NewInstance, Outcome
from storage.spool import Spool
from storage.trail import TrailEvent

log = structlog.get_logger(__name__)

_EVENTS: dict[Outcome, str] = {
    "stored": TrailEvent.INSTANCE_STORED,
    "duplicate": "instance.duplicate",
    "conflict": TrailEvent.INSTANCE_CONFLICT,
    "repaired": TrailEvent.INSTANCE_REPAIRED,
}
_LOOK_AGAIN = 16 << 20  # bytes between two looks at the free space


class Reception:
    """Takes one instance; `finish` answers when it is durable. See `network.received.Incoming`."""

    def __init__(
        self, request: StoreRequest, *, spool: Spool, index: Index, commits: GroupCommit, largest: int
    ) -> None:
        self._request = request
        self._spool = spool
        self._index = index
        self._commits = commits
        self._largest = largest
        self._refusal: StoreResponse | None = None
        self._arriving: Arriving | None = None
        self._looked_at = 0
        self._guarded(self._open)

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Take the next bytes; after a refusal they are let go."""
        if self._refusal is None:
            self._guarded(lambda: self._write(pieces))

    def finish(self) -> StoreResponse:
        """Check the data set, make it durable and answer.

        0000: it is durable, now or since an earlier, identical request. The same UID with other content is
        kept beside the first and marked. Refusals follow the table in `network.status`.
        """
        if self._refusal is None:
            self._guarded(self._keep)
        return self._refusal or STORED

    def discard(self) -> None:
        """Leave nothing of an unfinished file."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.discard()

    # --- steps, each of which may refuse

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step; what it raises becomes the answer, and the file goes."""
        try:
            step()
        except RefusedInstanceError as exc:
            self._refuse(exc.status, exc.reason, exc.message, exc.offending)
        except SpoolFullError as exc:
            self._refuse(Status.OUT_OF_RESOURCES, Reason.STORAGE_FULL, str(exc))
        except StorageError as exc:
            self._refuse(Status.OUT_OF_RESOURCES, Reason.STORAGE_FAILED, str(exc))

    def _open(self) -> None:
        self._spool.check_space(0)
        self._arriving = self._spool.arrive(part10_header(self._request))

    def _write(self, pieces: Sequence[memoryview]) -> None:
        arriving = self._file()
        arriving.write(pieces)
        if arriving.size > self._largest:
            raise RefusedInstanceError(
                Status.OUT_OF_RESOURCES, Reason.TOO_LARGE, f"(It has more than {self._largest} bytes.)"
            )
        if arriving.size - self._looked_at > _LOOK_AGAIN:
            self._looked_at = arriving.size
            self._spool.check_space(0)

    def _keep(self) -> None:
        """Make the instance durable: file, folder, row, in this order."""
        arriving = self._file()
        request = self._request
        with arriving.body() as body:
            identity = identify(
                ReceivedInstance(
                    sop_class_uid=request.sop_class_uid,
                    sop_instance_uid=request.sop_instance_uid,
                    transfer_syntax_uid=request.transfer_syntax_uid,
                    data=body,
                    association=request.association,
                )
            )
        new = self._row(identity, arriving, arriving.place())
        outcome = self._commit(new, arriving)
        log.info(
            _EVENTS[outcome],
            association=request.association.id,
            series_instance_uid=identity.series_instance_uid,
            sop_instance_uid=identity.sop_instance_uid,
            size=arriving.size,
        )

    def _commit(self, new: NewInstance, arriving: Arriving) -> Outcome:
        """Commit the row; if that fails for certain, or it is known, the file goes too."""
        try:
            outcome = self._commits.commit(new, arriving.folder)
        except StorageError:
            # After an error the row may exist all the same. A file without a row is swept up later, a row
            # without its file would be a loss: the file goes only when the index can be asked and says no.
            with suppress(StorageError):
                if self._index.find_instance(new.sop_instance, new.digest) is None:
                    arriving.remove()
            raise
        if outcome == "duplicate":
            arriving.remove()
        return outcome

    def _row(self, identity: Identity, arriving: Arriving, path: Path) -> NewInstance:
        """The row of an instance whose file is in place."""
        association = self._request.association
        return NewInstance(
            study_uid=identity.study_instance_uid,
            series_uid=identity.series_instance_uid,
            modality=identity.modality,
            sop_class=identity.sop_class_uid,
            sop_instance=identity.sop_instance_uid,
            transfer_syntax=self._request.transfer_syntax_uid,
            digest=arriving.digest,
            path=path,
            size=arriving.size,
            association_id=association.id,
            calling_ae=association.calling_ae,
            called_ae=association.called_ae,
        )

    def _file(self) -> Arriving:
        assert self._arriving is not None  # noqa: S101 (it is open until the answer)
        return self._arriving

    def _refuse(self, status: int, reason: Reason, message: str, offending: int | None = None) -> None:
        """Log a refusal and keep its answer; the peer reads the reason code only."""
        self.discard()
        log.warning(
            "instance.refused",
            association=self._request.association.id,
            status=f"{int(status):04X}",
            reason=str(reason),
            message=message,
        )
        self._refusal = StoreResponse(int(status), offending=offending, comment=str(reason))
