"""The queue of ENHANCE and DELIVER jobs. Every method is one short transaction.

What a holder writes is compare-and-set on (RUNNING, token): once its lease expired and the job went to another,
or an operator or a newer generation ended it, the old holder gets `LostClaimError` and nothing is changed. What is due
and what has expired, the clock of the database decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage import claims, operator_acts
from storage.database import Database
from storage.errors import IllegalTransitionError, LostClaimError, NotFoundError
from storage.job_rows import CANCELED_BY_OPERATOR, change_job, claimed_job, lock_job, move_job
from storage.lease_clock import LeaseClock
from storage.manifest import commit_manifest
from storage.mapping import job_record
from storage.pauses import PART_OF_KIND, is_paused
from storage.records import HeartbeatResult, JobRecord, Json, NewDeliveryJob, NewDerived
from storage.states import WAITING_JOB_STATES, DeliveryState, JobEvent, JobKind, JobState, Stage
from storage.tables import DeliveryRow, JobRow
from storage.trail import TrailEvent, add_event

Jobs = list[JobRecord]
Names = list[str]
_NOW = object()  # in place of a time: when the transaction takes place


class JobQueue:
    """Claim, hold and end jobs; the operator's verbs."""

    def __init__(self, database: Database, directory: Path, clock: LeaseClock) -> None:
        self._database = database
        self._root = directory
        self._clock = clock

    # --- the holder's verbs

    def claim(
        self,
        kind: JobKind,
        worker: str,
        lease: timedelta,
        *,
        destination: str | None = None,
        only_before: datetime | None = None,
    ) -> JobRecord | None:
        """The next due job, now RUNNING under this worker; None when there is none, or the part is paused.

        ENHANCE: highest priority first, then oldest. DELIVER: the oldest due one of the destination, and none
        while one of them runs, the destination is held or its circuit is not closed. With `only_before` a
        DELIVER job created before then, whatever the destination: its time is over. Attempt and token are
        committed before this returns.
        """
        if (kind is JobKind.DELIVER) is not (destination is not None):
            raise ValueError("a DELIVER job is claimed for its destination, an ENHANCE job for none")
        if not self._anything_due(kind, destination, only_before):
            return None
        with self._database.writing() as session:
            at = self._clock.at(session)
            if destination is None:
                row = session.scalars(claims.next_enhance(at)).one_or_none()
            else:
                self._database.serialise_on(session, destination)
                row = claims.next_delivery(session, destination, at, only_before=only_before)
            if row is None:
                return None
            claims.take(session, row, worker, lease, at=at)
            return job_record(row)

    def heartbeat(self, job: JobRecord, lease: timedelta) -> HeartbeatResult:
        """Extend the lease. `alive` is False, and nothing extended, when the claim is lost."""
        with self._database.writing() as session:
            try:
                row = claimed_job(session, job)
            except LostClaimError:
                return HeartbeatResult(alive=False, cancel_requested=False)
            at = self._clock.at(session)
            change_job(session, row, at=at, lease_expires_at=at + lease)
            return HeartbeatResult(alive=True, cancel_requested=row.cancel_requested)

    def set_stage(self, job: JobRecord, stage: Stage) -> None:
        """Note how far the attempt has come. Raises `LostClaimError`."""
        with self._database.writing() as session:
            row, at = claimed_job(session, job), self._clock.at(session)
            change_job(session, row, at=at, stage=stage.value)
            _tell(session, row, TrailEvent.JOB_STAGE, at, {"stage": stage.value})

    def record_attempt_note(self, job: JobRecord, note: Json) -> None:
        """Add facts of the attempt to the trail, such as timings. Raises `LostClaimError`."""
        with self._database.writing() as session:
            row = claimed_job(session, job)
            _tell(
                session, row, TrailEvent.JOB_NOTE, self._clock.at(session), {"attempt": row.attempts, **note}
            )

    def fail(
        self,
        job: JobRecord,
        *,
        reason: str,
        message: str,
        retry_at: datetime | None = None,
        counted: bool = True,
    ) -> JobRecord:
        """End the attempt: RETRY, due at `retry_at`, or FAILED without one. Raises `LostClaimError`.

        An attempt that is tried again need not be `counted`.
        """
        if retry_at is None:
            return self._end(job, JobEvent.FAIL, TrailEvent.JOB_FAILED, reason=reason, message=message)
        changes: dict[str, Any] = {"not_before": retry_at}
        if not counted:
            changes["attempts"] = max(job.attempts - 1, 0)
        return self._end(job, JobEvent.RETRY, TrailEvent.JOB_RETRY, reason=reason, message=message, **changes)

    def give_back(self, job: JobRecord, *, reason: str, message: str) -> JobRecord:
        """End the attempt for a clean stop: due again at once, and not counted. Raises `LostClaimError`."""
        changes = {"not_before": _NOW, "attempts": max(job.attempts - 1, 0)}
        return self._end(job, JobEvent.RETRY, TrailEvent.JOB_RETRY, reason=reason, message=message, **changes)

    def mark_canceled(
        self, job: JobRecord, *, reason: str = CANCELED_BY_OPERATOR, message: str = ""
    ) -> JobRecord:
        """End the job because the holder was asked to stop. Raises `LostClaimError`."""
        return self._end(job, JobEvent.CANCEL, TrailEvent.JOB_CANCELED, reason=reason, message=message)

    def succeed(self, job: JobRecord, result: Json | None = None) -> JobRecord:
        """End the job well. A DELIVER job only when every instance was answered with success.

        Raises `LostClaimError`, and `IllegalTransitionError` while an instance is not DELIVERED.
        """
        with self._database.writing() as session:
            row = claimed_job(session, job)
            missing = _undelivered(session, row)
            if missing:
                detail = f"{missing} instances are not delivered"
                raise IllegalTransitionError(row.state, JobEvent.DONE, detail)
            done = {"result": dict(result or {})}
            move_job(
                session, row, JobEvent.DONE, TrailEvent.JOB_SUCCEEDED, at=self._clock.at(session), **done
            )
            return job_record(row)

    def commit_manifest(
        self,
        job: JobRecord,
        derived: Sequence[NewDerived],
        deliveries: Sequence[NewDeliveryJob],
        result: Json | None = None,
    ) -> tuple[JobRecord, ...]:
        """Make the derived series exist: derived rows, one DELIVER job per destination with a PENDING row
        per instance, and the ENHANCE job SUCCEEDED, all in one transaction; the DELIVER jobs.

        The files have to be durable and checked. Raises `LostClaimError`, and nothing came to exist.
        """
        with self._database.writing() as session:
            row = claimed_job(session, job)
            jobs = commit_manifest(
                session,
                row,
                derived,
                deliveries,
                result=result or {},
                root=self._root,
                at=self._clock.at(session),
            )
            return tuple(job_record(delivery) for delivery in jobs)

    # --- the sweeper's verb

    def requeue_expired(self, max_attempts: int) -> Jobs:
        """Take back the jobs whose lease expired: RETRY, or FAILED (ABANDONED) for an ENHANCE job that has
        used `max_attempts`; CANCELED where that was asked for. Each job as it is now."""
        with self._database.reading() as session:
            if session.scalars(claims.expired(self._clock.at(session)).limit(1)).one_or_none() is None:
                return []
        with self._database.writing() as session:
            at = self._clock.at(session)
            rows = session.scalars(claims.expired(at)).all()
            for row in rows:
                claims.take_back(session, row, max_attempts, at=at)
            return [job_record(row) for row in rows]

    # --- the operator's verbs

    def cancel(self, job_id: int, actor: str) -> JobRecord:
        """PENDING, RETRY: CANCELED at once. RUNNING: asked to stop at its next step."""
        with self._database.writing() as session:
            row = lock_job(session, job_id)
            operator_acts.cancel(session, row, actor, at=self._clock.at(session))
            return job_record(row)

    def resubmit(self, job_id: int, actor: str) -> JobRecord:
        """FAILED, CANCELED: PENDING with its attempts reset. SUCCEEDED ENHANCE: a new job with a new key.

        Raises `IllegalTransitionError`, also for an ENHANCE job of an earlier generation of its series.
        """
        with self._database.writing() as session:
            row = lock_job(session, job_id)
            return job_record(operator_acts.resubmit(session, row, actor, at=self._clock.at(session)))

    def get(self, job_id: int) -> JobRecord:
        """The job. Raises `NotFoundError`."""
        with self._database.reading() as session:
            row = session.get(JobRow, job_id)
            if row is None:
                raise NotFoundError("job", job_id)
            return job_record(row)

    def list(
        self,
        *,
        kind: JobKind | None = None,
        state: JobState | None = None,
        series_id: int | None = None,
        destination: str | None = None,
        parent_id: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Jobs:
        """Jobs that match every filter given, newest first."""
        query = select(JobRow).order_by(JobRow.id.desc()).limit(limit).offset(offset)
        filters: tuple[tuple[Any, Any], ...] = (
            (JobRow.kind, kind),
            (JobRow.state, state),
            (JobRow.series_id, series_id),
            (JobRow.destination, destination),
            (JobRow.parent_id, parent_id),
        )
        for column, value in filters:
            if value is not None:
                query = query.where(column == value)
        with self._database.reading() as session:
            return [job_record(row) for row in session.scalars(query)]

    # --- destinations

    def pending_destinations(self) -> Names:
        """Destinations with a DELIVER job that waits for an attempt, due or not, by name."""
        query = (
            select(JobRow.destination)
            .where(JobRow.kind == JobKind.DELIVER, JobRow.state.in_(WAITING_JOB_STATES))
            .distinct()
            .order_by(JobRow.destination)
        )
        with self._database.reading() as session:
            return [name for name in session.scalars(query) if name is not None]

    # --- private

    def _end(
        self, job: JobRecord, event: JobEvent, name: TrailEvent, *, reason: str, message: str, **changes: Any
    ) -> JobRecord:
        """End the attempt by an event. No further attempt follows where a stop was asked for meanwhile."""
        with self._database.writing() as session:
            row, at = claimed_job(session, job), self._clock.at(session)
            if event is JobEvent.RETRY and row.cancel_requested:
                event, name, reason = JobEvent.CANCEL, TrailEvent.JOB_CANCELED, CANCELED_BY_OPERATOR
            if changes.get("not_before") is _NOW:
                changes["not_before"] = at
            data = {"reason": reason, "stage": row.stage}
            move_job(session, row, event, name, at=at, data=data, reason=reason, message=message, **changes)
            return job_record(row)

    def _anything_due(self, kind: JobKind, destination: str | None, only_before: datetime | None) -> bool:
        """A look that takes no lock, so that idle workers never stand in the way of a writer."""
        with self._database.reading() as session:
            if is_paused(session, PART_OF_KIND[kind]):
                return False
            query = select(JobRow.id).where(claims.due(kind, self._clock.at(session)))
            if destination is not None:
                query = query.where(JobRow.destination == destination)
            if only_before is not None:
                query = query.where(JobRow.created_at <= only_before)
            return session.scalar(query.limit(1)) is not None


def _tell(session: Session, row: JobRow, name: TrailEvent, at: datetime, data: Json) -> None:
    """Add a line about a job."""
    add_event(session, name, at=at, series_id=row.series_id, job_id=row.id, data=data)


def _undelivered(session: Session, row: JobRow) -> int:
    """How many instances of a DELIVER job are not DELIVERED."""
    query = select(func.count()).where(
        DeliveryRow.job_id == row.id, DeliveryRow.state != DeliveryState.DELIVERED
    )
    return session.scalar(query) or 0
