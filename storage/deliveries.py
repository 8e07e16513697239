"""One row per instance and destination: what the destination answered, and what is still to send."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database, set_state
from storage.delivery_records import NewAnswer, StoredObject
from storage.destinations import lift_hold
from storage.errors import IllegalTransitionError, NotFoundError
from storage.job_rows import claimed_job, lock_job
from storage.lease_clock import LeaseClock
from storage.link_states import Promise
from storage.mapping import delivery_record, job_record, stored_object
from storage.operator_acts import hurry, resubmit
from storage.orders import order_derived, order_received
from storage.records import DeliveryRecord, JobRecord
from storage.states import DeliveryEvent, DeliveryState, JobEvent, JobKind, JobState, advance
from storage.tables import DeliveryRow, DerivedRow, InstanceRow, JobRow
from storage.trail import TrailEvent, add_event

Records = list[DeliveryRecord]
Parcels = list[tuple[DeliveryRecord, StoredObject]]

_EVENTS = {
    DeliveryState.DELIVERED: DeliveryEvent.DELIVER,
    DeliveryState.REFUSED: DeliveryEvent.REFUSE,
    DeliveryState.PENDING: DeliveryEvent.DEFER,
}


class Deliveries:
    """Read and answer the rows of DELIVER jobs. Every method is one short transaction."""

    def __init__(self, database: Database, directory: Path, now: Clock, clock: LeaseClock) -> None:
        self._database = database
        self._root = directory
        self._now = now
        self._clock = clock

    def for_job(self, job_id: int, *, only_pending: bool = False) -> Parcels:
        """The instances of a DELIVER job with what is stored of each, ascending position.

        Instances whose row is gone, long delivered and deleted, are left out.
        """
        query = (
            select(DeliveryRow, DerivedRow, InstanceRow)
            .outerjoin(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
            .outerjoin(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
            .where(
                DeliveryRow.job_id == job_id,
                or_(DeliveryRow.derived_id.is_not(None), DeliveryRow.instance_id.is_not(None)),
            )
            .order_by(DerivedRow.position, DeliveryRow.id)
        )
        if only_pending:
            query = query.where(DeliveryRow.state == DeliveryState.PENDING)
        with self._database.reading() as session:
            return [
                (
                    delivery_record(delivery),
                    stored_object(derived or received, derived.position if derived else number, self._root),
                )
                for number, (delivery, derived, received) in enumerate(session.execute(query))
            ]

    def record(self, job: JobRecord, answers: Sequence[NewAnswer]) -> Records:
        """Keep what the destination answered, as the holder of the DELIVER job: all of it, or nothing.

        Raises `LostClaimError`, `IllegalTransitionError`, `NotFoundError`.
        """
        if not answers:
            return []
        with self._database.writing() as session:
            claimed_job(session, job)
            return [self._record(session, job, answer) for answer in answers]

    def _record(self, session: Session, job: JobRecord, answer: NewAnswer) -> DeliveryRecord:
        """Keep one answer and tell of it."""
        row = session.get(DeliveryRow, answer.delivery_id)
        if row is None or row.job_id != job.id:
            raise NotFoundError("delivery", answer.delivery_id)
        following = advance(DeliveryState(row.state), _EVENTS[answer.state])
        self._answer(session, row, following, answer)
        data = {
            "sop_instance_uid": row.sop_instance_uid,
            "destination": row.destination,
            "state": following.value,
            "status": answer.status,
        }
        add_event(
            session,
            TrailEvent.DELIVERY_INSTANCE,
            at=row.updated_at,
            series_id=job.series_id,
            job_id=job.id,
            data=data,
        )
        return delivery_record(row)

    def send_series(self, series_id: int, destination: str, actor: str) -> JobRecord:
        """Order what was received as this series to be sent to a destination: a DELIVER job of its own.

        The first copy of each instance goes out. Raises `NotFoundError` when nothing is stored of it.
        """
        with self._database.writing() as session:
            row = order_received(session, series_id, destination, actor, at=self._clock.at(session))
            return job_record(row)

    def send_derived(self, series_instance_uid: str, destination: str, actor: str) -> JobRecord:
        """Order a derived series to be sent to one more destination, or once more.

        Raises `NotFoundError` when no derived series has this UID.
        """
        with self._database.writing() as session:
            row = order_derived(session, series_instance_uid, destination, actor, at=self._clock.at(session))
            return job_record(row)

    def list(
        self,
        *,
        state: DeliveryState | None = None,
        destination: str | None = None,
        job_id: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Records:
        """Deliveries that match every filter given, newest first."""
        query = select(DeliveryRow).order_by(DeliveryRow.id.desc()).limit(limit).offset(offset)
        filters: tuple[tuple[Any, Any], ...] = (
            (DeliveryRow.state, state),
            (DeliveryRow.destination, destination),
            (DeliveryRow.job_id, job_id),
        )
        for column, value in filters:
            if value is not None:
                query = query.where(column == value)
        with self._database.reading() as session:
            return [delivery_record(row) for row in session.scalars(query)]

    def retry(self, target: int | str, actor: str) -> tuple[JobRecord, ...]:
        """Have a DELIVER job, or every unfinished or failed one of a destination, tried again now.

        Lifts the hold on the destination. Refused instances are sent again, delivered ones are not.
        Raises `NotFoundError` for an unknown job, `IllegalTransitionError` for one that runs or is done.
        """
        with self._database.writing() as session:
            rows = self._targets(session, target)
            for row in rows:
                self._try_again(session, row, actor)
            for destination in {row.destination for row in rows}:
                if destination is not None:
                    lift_hold(session, destination)
            return tuple(job_record(row) for row in rows)

    def _targets(self, session: Session, target: int | str) -> tuple[JobRow, ...]:
        """The one job, or those of the destination that wait for a time or have failed; locked."""
        if isinstance(target, int):
            row = lock_job(session, target)
            if row.kind != JobKind.DELIVER:
                raise NotFoundError("delivery job", target)
            return (row,)
        query = (
            select(JobRow)
            .where(
                JobRow.kind == JobKind.DELIVER,
                JobRow.destination == target,
                JobRow.state.in_((JobState.PENDING, JobState.RETRY, JobState.FAILED)),
            )
            .order_by(JobRow.id)
            .with_for_update(key_share=True)
        )
        return tuple(session.scalars(query))

    def _try_again(self, session: Session, row: JobRow, actor: str) -> None:
        """Make the job due now, by the event its state allows."""
        if row.state == JobState.PENDING:
            return
        if row.state == JobState.RETRY:
            hurry(session, row, actor, at=self._clock.at(session))
        elif row.state in (JobState.FAILED, JobState.CANCELED):
            resubmit(session, row, actor, at=self._clock.at(session))
        else:
            raise IllegalTransitionError(row.state, JobEvent.RESUBMIT)

    def _answer(self, session: Session, row: DeliveryRow, state: DeliveryState, answer: NewAnswer) -> None:
        """Write the answer by compare-and-set on the state it was decided in."""
        promise = {"commitment": Promise.WANTED.value} if answer.ask_to_keep else {}
        done = set_state(
            session,
            row,
            state.value,
            status=answer.status,
            comment=answer.comment,
            attempts=DeliveryRow.attempts + 1,
            updated_at=self._now(),
            **promise,
        )
        if not done:
            raise IllegalTransitionError(row.state, _EVENTS[answer.state], "the delivery changed meanwhile")
