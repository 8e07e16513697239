"""From rows to records: the one place where a row becomes a value that may leave the package."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from storage.delivery_records import CommitmentRecord, StoredObject
from storage.errors import StorageError
from storage.link_states import CircuitState, CommitmentState, Promise
from storage.records import (
    AlarmRecord,
    AssociationRecord,
    DeliveryRecord,
    DerivedRecord,
    DestinationStatus,
    Ending,
    EventRecord,
    InstanceRecord,
    JobRecord,
    SeriesRecord,
)
from storage.states import DeliveryState, JobKind, JobState, LatePolicy, SeriesState, Stage
from storage.tables import (
    AlarmRow,
    AssociationRow,
    CommitmentRow,
    DeliveryRow,
    DerivedRow,
    DestinationRow,
    EventRow,
    InstanceRow,
    JobRow,
    SeriesRow,
)


def relative(path: Path, root: Path) -> str:
    """The path as the database keeps it, so that the directory may be moved as a whole."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        raise StorageError("the file lies outside the storage directory") from None


def association_record(row: AssociationRow) -> AssociationRecord:
    """Build the record of an association."""
    return AssociationRecord(
        id=row.id,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        peer_host=row.peer_host,
        run_id=row.run_id,
        opened_at=row.opened_at,
        ended_at=row.ended_at,
        ending=cast("Ending | None", row.ending),
    )


def series_record(row: SeriesRow) -> SeriesRecord:
    """Build the record of a series."""
    return SeriesRecord(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        state=SeriesState(row.state),
        generation=row.generation,
        revision=row.revision,
        instance_count=row.instance_count,
        interrupted=row.interrupted,
        released=row.released,
        reason=row.reason,
        message=row.message,
        route=row.route,
        evidence=row.evidence,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
        closed_at=row.closed_at,
        completeness=row.completeness,
        late_policy=None if row.late_policy is None else LatePolicy(row.late_policy),
        late=bool(row.late),
        purged_at=row.purged_at,
    )


def instance_record(row: InstanceRow, root: Path) -> InstanceRecord:
    """Build the record of an instance."""
    return InstanceRecord(
        id=row.id,
        series_id=row.series_id,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        digest=row.digest,
        path=root / row.path,
        size=row.size,
        generation=row.generation,
        conflict=row.conflict,
        received_at=row.received_at,
        association_id=row.association_id,
        semantic_digest=row.semantic_digest,
        damaged=bool(row.damaged),
        checked_at=row.checked_at,
    )


def job_record(row: JobRow) -> JobRecord:
    """Build the record of a job."""
    return JobRecord(
        id=row.id,
        kind=JobKind(row.kind),
        key=row.key,
        series_id=row.series_id,
        generation=row.generation,
        state=JobState(row.state),
        stage=None if row.stage is None else Stage(row.stage),
        attempts=row.attempts,
        priority=row.priority,
        not_before=row.not_before,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        claimed_by=row.claimed_by,
        lease_expires_at=row.lease_expires_at,
        token=row.token,
        cancel_requested=row.cancel_requested,
        reason=row.reason,
        message=row.message,
        destination=row.destination,
        parent_id=row.parent_id,
        spec=row.spec,
        result=row.result,
    )


def derived_record(row: DerivedRow, root: Path) -> DerivedRecord:
    """Build the record of a derived instance."""
    return DerivedRecord(
        id=row.id,
        job_id=row.job_id,
        series_id=row.series_id,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        path=root / row.path,
        digest=row.digest,
        size=row.size,
        position=row.position,
        damaged=bool(row.damaged),
        checked_at=row.checked_at,
        purged_at=row.purged_at,
    )


def delivery_record(row: DeliveryRow) -> DeliveryRecord:
    """Build the record of a delivery."""
    return DeliveryRecord(
        id=row.id,
        job_id=row.job_id,
        derived_id=row.derived_id,
        instance_id=row.instance_id,
        sop_instance_uid=row.sop_instance_uid,
        destination=row.destination,
        state=DeliveryState(row.state),
        status=row.status,
        comment=row.comment,
        attempts=row.attempts,
        updated_at=row.updated_at,
        commitment=None if row.commitment is None else Promise(row.commitment),
        commitment_reason=row.commitment_reason,
        committed_at=row.committed_at,
    )


def commitment_record(row: CommitmentRow) -> CommitmentRecord:
    """Build the record of a request for storage commitment."""
    return CommitmentRecord(
        id=row.id,
        transaction_uid=row.transaction_uid,
        job_id=row.job_id,
        series_id=row.series_id,
        destination=row.destination,
        state=CommitmentState(row.state),
        ask=row.ask,
        instances=row.instances,
        committed=row.committed,
        failed=row.failed,
        created_at=row.created_at,
        asked_at=row.asked_at,
        not_before=row.not_before,
        answered_at=row.answered_at,
        message=row.message,
    )


def stored_object(row: DerivedRow | InstanceRow, position: int, root: Path) -> StoredObject:
    """Build what a sender needs to know of a derived or a received instance."""
    return StoredObject(
        path=root / row.path,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        digest=row.digest,
        digest_scope="file" if isinstance(row, DerivedRow) else "data set",
        size=row.size,
        position=position,
    )


def destination_status(row: DestinationRow) -> DestinationStatus:
    """Build the record of a destination."""
    return DestinationStatus(
        name=row.name,
        failures=row.failures,
        not_before=row.not_before,
        last_error=row.last_error,
        circuit=CircuitState(row.circuit),
        since=row.since,
        bytes_per_s=row.bytes_per_s,
        answer_s=row.answer_s,
    )


def alarm_record(row: AlarmRow) -> AlarmRecord:
    """Build the record of an alarm."""
    return AlarmRecord(
        code=row.code,
        subject=row.subject,
        raised_at=row.raised_at,
        seen_at=row.seen_at,
        count=row.count,
        data=row.data,
    )


def event_record(row: EventRow) -> EventRecord:
    """Build the record of a line of the trail."""
    return EventRecord(
        id=row.id,
        at=row.at,
        name=row.name,
        series_id=row.series_id,
        job_id=row.job_id,
        association_id=row.association_id,
        data=row.data,
    )
