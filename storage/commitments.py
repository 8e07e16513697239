"""Storage commitment as its requestor sees it: what was asked, what was promised, what came to nothing.

A request is committed here before it goes out, under the transaction UID it carries, so that a report finds
it whenever it comes: before the answer to the request, after a restart, after its time. Every instance
keeps its own promise; `delivered` and `committed` are two things.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database, set_state
from storage.delivery_records import (
    CommitmentOutcome,
    CommitmentRecord,
    CommitmentReport,
    CommitmentRequest,
)
from storage.job_rows import lock_job
from storage.link_states import (
    OPEN_COMMITMENT_STATES,
    CommitmentEvent,
    CommitmentState,
    Promise,
    advance_commitment,
)
from storage.mapping import commitment_record
from storage.promises import fail, keep, reopen, wanted
from storage.states import JobState
from storage.tables import CommitmentRow, DeliveryRow, JobRow
from storage.trail import TrailEvent, add_event

Requests = list[CommitmentRecord]
_OVER = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


@dataclass(frozen=True)
class Patience:
    """How often a destination is asked for one delivery, how long a report may take each time, and for how
    long a destination that cannot be asked is waited for."""

    asks: int
    answer_within: timedelta
    longest: timedelta


class Commitments:
    """The requests for storage commitment and their reports. Every method is one short transaction."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def prepare(self, destination: str, patience: Patience) -> tuple[int, int]:
        """Expire what was not answered in time, and draw up a request for each delivery that needs one.

        A delivery that was asked for often enough is given up: its open promises count as FAILED. Returns
        how many requests were drawn up and how many deliveries given up.
        """
        if not self._anything(destination):
            return 0, 0
        with self._database.writing() as session:
            self._database.serialise_on(session, f"commitment/{destination}")
            at = self._now()
            self._expire(session, destination, at, patience)
            drawn = given_up = 0
            for job in session.scalars(_in_need(destination)).all():
                asked = session.scalar(_asks(job.id)) or 0
                if asked >= patience.asks:
                    self._give_up(session, job, at)
                    given_up += 1
                else:
                    self._draw_up(session, job, asked + 1, at)
                    drawn += 1
            return drawn, given_up

    def take(self, destination: str, patience: Patience) -> CommitmentRequest | None:
        """The next request that is due, from now on ASKED: send it, whatever becomes of the sender."""
        query = (
            select(CommitmentRow)
            .where(
                CommitmentRow.destination == destination,
                CommitmentRow.state == CommitmentState.WAITING,
                CommitmentRow.not_before <= self._now(),
            )
            .order_by(CommitmentRow.id)
            .limit(1)
        )
        with self._database.reading() as session:
            if session.scalars(query).one_or_none() is None:
                return None
        query = query.with_for_update(skip_locked=True)
        with self._database.writing() as session:
            row, at = session.scalars(query).one_or_none(), self._now()
            if row is None:
                return None
            items = tuple(wanted(session, row.job_id))
            values = {"asked_at": at, "not_before": at + patience.answer_within, "instances": len(items)}
            _move(session, row, CommitmentEvent.ASK, **values)
            _tell(session, TrailEvent.COMMITMENT_ASKED, row, at, {"ask": row.ask, "instances": len(items)})
            return CommitmentRequest(commitment_record(row), items)

    def defer(self, request: CommitmentRecord, until: datetime, message: str) -> None:
        """The destination could not be asked: the same request is due again at `until`."""
        with self._database.writing() as session:
            row = _locked(session, request.id)
            if row.state == CommitmentState.ASKED:  # else the report came all the same
                _move(session, row, CommitmentEvent.DEFER, not_before=until, message=message)

    def report(
        self, report: CommitmentReport, *, resend: Collection[int], resends: Callable[[str], int]
    ) -> CommitmentOutcome | None:
        """Keep what a destination reports; None for a transaction that is not ours.

        Instances that failed for a reason in `resend` are sent again, up to `resends(destination)` times a
        delivery; any other failure stands. A promise that was made is never taken back by a report that comes later.
        """

        def work() -> CommitmentOutcome | None:
            with self._database.writing() as session:
                found = select(CommitmentRow.id).where(
                    CommitmentRow.transaction_uid == report.transaction_uid
                )
                number = session.scalar(found)
                if number is None:
                    return None
                return self._report(session, _locked(session, number), report, resend, resends)

        return self._database.retrying(work)

    def list(self, *, job_id: int | None = None, limit: int = 100) -> Requests:
        """Requests, newest first."""
        query = select(CommitmentRow).order_by(CommitmentRow.id.desc()).limit(limit)
        if job_id is not None:
            query = query.where(CommitmentRow.job_id == job_id)
        with self._database.reading() as session:
            return [commitment_record(row) for row in session.scalars(query)]

    # --- private

    def _anything(self, destination: str) -> bool:
        """A look that takes no lock: whether any promise of this destination is open."""
        query = select(DeliveryRow.id).where(
            DeliveryRow.destination == destination, DeliveryRow.commitment == Promise.WANTED
        )
        with self._database.reading() as session:
            return session.scalar(query.limit(1)) is not None

    def _expire(self, session: Session, destination: str, at: datetime, patience: Patience) -> None:
        """End the requests that nobody answered, and those that could not be made for too long."""
        unanswered = (CommitmentRow.state == CommitmentState.ASKED) & (CommitmentRow.not_before <= at)
        unasked = (CommitmentRow.state == CommitmentState.WAITING) & (
            CommitmentRow.created_at <= at - patience.longest
        )
        query = select(CommitmentRow).where(CommitmentRow.destination == destination, unanswered | unasked)
        for row in session.scalars(query.with_for_update()).all():
            _move(session, row, CommitmentEvent.EXPIRE)
            _tell(session, TrailEvent.COMMITMENT_EXPIRED, row, at, {"ask": row.ask})

    def _draw_up(self, session: Session, job: JobRow, ask: int, at: datetime) -> None:
        row = CommitmentRow(
            transaction_uid=f"2.25.{uuid.uuid4().int}",
            job_id=job.id,
            series_id=job.series_id,
            destination=job.destination,
            state=CommitmentState.WAITING.value,
            ask=ask,
            instances=0,
            committed=0,
            failed=0,
            created_at=at,
            not_before=at,
        )
        session.add(row)
        session.flush()

    def _give_up(self, session: Session, job: JobRow, at: datetime) -> None:
        count = fail(session, job.id, None, reason=None, at=at)
        data = {"destination": job.destination, "instances": count}
        name = TrailEvent.COMMITMENT_GIVEN_UP
        add_event(session, name, at=at, series_id=job.series_id, job_id=job.id, data=data)

    def _report(
        self,
        session: Session,
        row: CommitmentRow,
        report: CommitmentReport,
        resend: Collection[int],
        resends: Callable[[str], int],
    ) -> CommitmentOutcome:
        at = self._now()
        kept = keep(session, row.job_id, report.committed, at=at)
        lost = [uid for uid, reason in report.failed.items() if reason in resend]
        may_resend = bool(lost) and _failed_before(session, row) < resends(row.destination)
        again = reopen(session, lock_job(session, row.job_id), lost, at=at) if may_resend else 0
        given_up = 0
        for reason, uids in _by_reason(report.failed, () if not may_resend else lost):
            given_up += fail(session, row.job_id, uids, reason=reason, at=at)
        counts = {"committed": kept, "failed": again + given_up}
        _move(session, row, CommitmentEvent.REPORT, answered_at=at, **counts)
        data = {"committed": kept, "sent_again": again, "given_up": given_up}
        _tell(session, TrailEvent.COMMITMENT_ANSWERED, row, at, data)
        return CommitmentOutcome(commitment_record(row), kept, again, given_up)


def _in_need(destination: str) -> Any:
    """DELIVER jobs that are over, with an open promise and nobody asked."""
    open_promise = select(DeliveryRow.job_id).where(
        DeliveryRow.destination == destination, DeliveryRow.commitment == Promise.WANTED
    )
    asked = select(CommitmentRow.job_id).where(CommitmentRow.state.in_(OPEN_COMMITMENT_STATES))
    return (
        select(JobRow)
        .where(JobRow.id.in_(open_promise), JobRow.state.in_(_OVER), JobRow.id.not_in(asked))
        .order_by(JobRow.id)
    )


def _asks(job_id: int) -> Any:
    """How often a delivery was asked for in vain: no report, or one that left an instance out."""
    in_vain = (CommitmentRow.state == CommitmentState.EXPIRED) | (CommitmentRow.failed == 0)
    return select(func.count()).where(CommitmentRow.job_id == job_id, in_vain)


def _failed_before(session: Session, row: CommitmentRow) -> int:
    """How many reports of this delivery named failures, apart from this one."""
    query = select(func.count()).where(
        CommitmentRow.job_id == row.job_id, CommitmentRow.failed > 0, CommitmentRow.id != row.id
    )
    return session.scalar(query) or 0


def _by_reason(failed: Any, apart_from: Iterable[str]) -> Iterable[tuple[int, list[str]]]:
    """The instances that are not sent again, by Failure Reason."""
    left = set(failed) - set(apart_from)
    for reason in sorted({failed[uid] for uid in left}):
        yield reason, [uid for uid in left if failed[uid] == reason]


def _locked(session: Session, number: int) -> CommitmentRow:
    return session.scalars(select(CommitmentRow).where(CommitmentRow.id == number).with_for_update()).one()


def _move(session: Session, row: CommitmentRow, event: CommitmentEvent, **changes: Any) -> None:
    """Apply an event to a request that is locked."""
    set_state(session, row, advance_commitment(CommitmentState(row.state), event).value, **changes)


def _tell(
    session: Session, name: TrailEvent, row: CommitmentRow, at: datetime, data: Mapping[str, object]
) -> None:
    facts = {"destination": row.destination, "transaction_uid": row.transaction_uid, **data}
    add_event(session, name, at=at, series_id=row.series_id, job_id=row.job_id, data=facts)
