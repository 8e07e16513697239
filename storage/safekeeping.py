"""Storage commitment as its provider sees it: what a sender asked us to keep, what was promised, what it was told.

A request is committed here before it is answered, so that it outlives a restart. It is judged once. A promise
is made in one transaction with a lock on the series, which retention takes too: what is promised is not being
deleted, and what is being deleted is not promised. Promises hold whether or not the report arrives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.lease_clock import LeaseClock
from storage.link_states import OPEN_KEEP_STATES, KeepEvent, KeepState
from storage.safekeeping_records import (
    Judgement,
    KeepRequestRecord,
    KeepTerms,
    NewKeepRequest,
    SentList,
    Taken,
)
from storage.safekeeping_rows import (
    Held,
    due,
    items_of,
    locked_request,
    move_request,
    pairs_of,
    request_record,
    request_row,
    set_items,
    stored,
    tell,
)
from storage.safekeeping_tables import KeepItemRow, KeepRequestRow
from storage.scrub import Scrubber, verify_file
from storage.sent_lists import look_again, sent_list
from storage.series_rows import lock_series
from storage.tables import InstanceRow, plain
from storage.trail import TrailEvent, add_event

# Failure Reason (0008,1197), PS3.3 C.14.1.1.
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
CLASS_NOT_SUPPORTED: Final = 0x0122
DUPLICATE_TRANSACTION: Final = 0x0131

_LEASE: Final = timedelta(minutes=5)  # for reading the files of one request, and for one report
_LOOK_AGAIN: Final = timedelta(seconds=5)


class Safekeeping:
    """The requests of senders. Every method is short, but for the reading of files in `judge`."""

    def __init__(self, database: Database, directory: Path, clock: LeaseClock, scrubber: Scrubber) -> None:
        self._database = database
        self._root = directory
        self._clock = clock
        self._scrubber = scrubber

    def take(self, asked: NewKeepRequest, *, most_open: int) -> Taken:
        """Keep a request for good, unless its sender has `most_open` open already.

        The same request again, whose answer may have been lost, is answered once more. Another one under a
        transaction UID that is taken fails as a whole (0131); the first is not touched.
        """

        def work() -> Taken:
            with self._database.writing() as session:
                self._database.serialise_on(session, f"keep/{asked.transaction_uid}")
                return self._take(session, asked, most_open)

        return self._database.retrying(work)

    def take_due(self, calling_ae: str) -> KeepRequestRecord | None:
        """The oldest request of a sender that waits to be judged or reported; nobody else gets it meanwhile."""
        with self._database.reading() as session:
            if session.scalars(due(calling_ae, self._clock.at(session))).one_or_none() is None:
                return None
        with self._database.writing() as session:
            at = self._clock.at(session)
            row = session.scalars(due(calling_ae, at).with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            row.not_before = at + _LEASE
            session.flush()
            return request_record(row)

    def judge(self, number: int, terms: KeepTerms) -> bool:
        """Decide for each instance of a WAITING request; False while missing ones may still arrive.

        Promised is what is stored once and whose bytes, read now, have the digest they were received with.
        0112 or 0122: it is not here, and could not be; 0119: it is of another SOP class; 0110: its file is
        damaged, or its UID has several contents and a person has to say which counts.
        """
        with self._database.reading() as session:
            at, row = self._clock.at(session), request_row(session, number)
            items = items_of(session, number)
            held = stored(session, [item.sop_instance_uid for item in items])
        if any(item.sop_instance_uid not in held for item in items) and at < row.received_at + terms.wait_for:
            until = min(at + _LOOK_AGAIN, row.received_at + terms.wait_for)
            self._note(number, KeepEvent.POSTPONE, not_before=until)
            return False
        self._read_again(held)
        with self._database.writing() as session:
            self._promise(session, number, terms)
        return True

    def judgement(self, number: int) -> Judgement:
        """What was decided, for the report."""
        with self._database.reading() as session:
            items = items_of(session, number)
        return Judgement(
            tuple((item.sop_class_uid, item.sop_instance_uid) for item in items if item.reason is None),
            tuple(
                (item.sop_class_uid, item.sop_instance_uid, item.reason)
                for item in items
                if item.reason is not None
            ),
        )

    def reported(self, number: int) -> None:
        """The sender took the report."""
        self._note(number, KeepEvent.REPORT, told=TrailEvent.SAFEKEEPING_REPORTED, message=None)

    def defer(self, number: int, wait: timedelta, message: str, *, longest: timedelta) -> bool:
        """The sender could not be told: again after `wait`; given up, and False, `longest` after the judgement."""
        with self._database.reading() as session:
            at, row = self._clock.at(session), request_row(session, number)
            over = at >= (row.judged_at or at) + longest
            changes: dict[str, Any] = {"failures": row.failures + 1, "message": message}
        if over:
            told = TrailEvent.SAFEKEEPING_GIVEN_UP
            self._note(number, KeepEvent.GIVE_UP, told=told, **changes)
        else:
            self._note(number, KeepEvent.DEFER, not_before=at + wait, **changes)
        return not over

    def list(self, limit: int = 100) -> list[KeepRequestRecord]:
        """Requests, newest first."""
        query = select(KeepRequestRow).order_by(KeepRequestRow.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [request_record(row) for row in session.scalars(query)]

    def sent_list(self, series_id: int) -> SentList | None:
        """What the lists of senders say of a series; None when no list names any instance of it."""
        with self._database.reading() as session:
            return sent_list(session, series_id)

    def look_again(self) -> int:
        """Open the series that are held for want of proof and that a list proves by now; how many."""
        with self._database.writing() as session:
            return look_again(session, at=self._clock.at(session))

    # --- private

    def _take(self, session: Session, asked: NewKeepRequest, most_open: int) -> Taken:
        at = self._clock.at(session)
        instances = tuple(dict.fromkeys(asked.instances))
        same_uid = select(KeepRequestRow).where(KeepRequestRow.transaction_uid == asked.transaction_uid)
        known = session.scalars(same_uid.order_by(KeepRequestRow.id).with_for_update()).all()
        for row in known:
            if row.calling_ae == asked.calling_ae and pairs_of(session, row) == set(instances):
                move_request(session, row, KeepEvent.REPEAT, not_before=at)
                return "repeated"
        open_ones = select(func.count()).where(
            KeepRequestRow.calling_ae == asked.calling_ae, KeepRequestRow.state.in_(OPEN_KEEP_STATES)
        )
        if (session.scalar(open_ones) or 0) >= most_open:
            return "too many"
        reason = DUPLICATE_TRANSACTION if known else None
        row = KeepRequestRow(
            transaction_uid=asked.transaction_uid,
            calling_ae=asked.calling_ae,
            called_ae=asked.called_ae,
            state=(KeepState.JUDGED if known else KeepState.WAITING).value,
            instances=len(instances),
            failed=len(instances) if known else 0,
            failures=0,
            received_at=at,
            not_before=at,
            judged_at=at if known else None,
        )
        session.add(row)
        session.flush()
        columns = ("sop_class_uid", "sop_instance_uid")
        values = [
            {**dict(zip(columns, pair, strict=True)), "request_id": row.id, "reason": reason}
            for pair in instances
        ]
        session.execute(insert(plain(KeepItemRow)), values)
        tell(session, TrailEvent.SAFEKEEPING_ASKED, row, at)
        return "taken"

    def _read_again(self, held: Held) -> None:
        """Read every file of the request; one that lost its digest is marked, and nobody uses it any more."""
        for row in (row for rows in held.values() for row in rows if not row.damaged):
            if verify_file(self._root / row.path, row.digest, whole=False) != "whole":
                self._scrubber.check(InstanceRow, row.id)

    def _promise(self, session: Session, number: int, terms: KeepTerms) -> None:
        """Judge, with every series locked that anything is promised of."""
        at, row, items = self._clock.at(session), locked_request(session, number), items_of(session, number)
        uids = [item.sop_instance_uid for item in items]
        for series_id in sorted({one.series_id for rows in stored(session, uids).values() for one in rows}):
            lock_series(session, series_id)
        held = stored(session, uids)
        until = None if terms.keep_for is None else at + terms.keep_for
        promised: dict[int, list[int]] = defaultdict(list)
        failed: dict[int, list[int]] = defaultdict(list)
        for item in items:
            reason = _reason(item, held.get(item.sop_instance_uid, ()), terms)
            if reason is None:
                promised[held[item.sop_instance_uid][0].series_id].append(item.id)
            else:
                failed[reason].append(item.id)
        for series_id, numbers in promised.items():
            set_items(session, numbers, series_id=series_id, kept_until=until)
            data = {"request": number, "calling_ae": row.calling_ae, "instances": len(numbers)}
            name = TrailEvent.SAFEKEEPING_PROMISED
            add_event(session, name, at=at, series_id=series_id, data=data)
        for reason, numbers in failed.items():
            set_items(session, numbers, reason=reason)
        count = sum(map(len, failed.values()))
        move_request(session, row, KeepEvent.JUDGE, failed=count, judged_at=at, not_before=at)
        tell(session, TrailEvent.SAFEKEEPING_JUDGED, row, at)

    def _note(self, number: int, event: KeepEvent, *, told: TrailEvent | None = None, **changes: Any) -> None:
        """Apply one event in a transaction of its own."""
        with self._database.writing() as session:
            row, at = locked_request(session, number), self._clock.at(session)
            if event is KeepEvent.REPORT:
                changes["reported_at"] = at
            move_request(session, row, event, **changes)
            if told is not None:
                tell(session, told, row, at)


def _reason(item: KeepItemRow, stored: Sequence[InstanceRow], terms: KeepTerms) -> int | None:
    """Why an instance is not promised; None when it is."""
    if not stored:
        return NO_SUCH_INSTANCE if item.sop_class_uid in terms.supported else CLASS_NOT_SUPPORTED
    if any(row.sop_class_uid != item.sop_class_uid for row in stored):
        return CLASS_CONFLICT
    if any(row.damaged or row.conflict for row in stored):
        return PROCESSING_FAILURE
    return None
