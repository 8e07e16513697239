"""The audit chain in the database: made from the trail, kept in order, sent in order.

An event stands in the trail if and only if its change stands, so nothing has to be written twice on the way
of an image: the chain is made behind it, by whichever process gets there first. A compare-and-set on the
head of the chain lets exactly one of them write; the others find their work done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session

from storage.audit_chain import AuditRecord, ChainReport, NewAuditRecord, link, walk
from storage.audit_tables import AuditRow, AuditStateRow
from storage.database import Database, changed
from storage.mapping import event_record
from storage.records import EventRecord
from storage.tables import EventRow, plain

_PAGE = 500
# PostgreSQL numbers events when they are written and shows them when they are committed, so a lower number
# may appear after a higher one. A transaction would have to last as long as this many later events.
_MAY_APPEAR_LATE = 20_000


@dataclass(frozen=True)
class AuditState:
    """How far the chain has come."""

    event_cursor: int
    head_seq: int
    head_digest: str
    sent_seq: int


@dataclass(frozen=True)
class Unrecorded:
    """Events without a record yet, oldest first; `upto` is the last event that was looked at."""

    state: AuditState
    events: tuple[EventRecord, ...]
    upto: int


class AuditLog:
    """The chain of one node. Safe for several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> AuditState:
        """How far the chain has come."""
        with self._database.reading() as session:
            return _state(session)

    def unrecorded(
        self, names: Collection[str], *, limit: int = _PAGE, passed_over: Collection[int] = ()
    ) -> Unrecorded:
        """Events of these names that have no record, `limit` at most.

        `passed_over`: events that yielded no record and are not to be returned again.
        """
        with self._database.reading() as session:
            state = _state(session)
            newest = session.scalar(select(func.max(EventRow.id))) or 0
            late = _MAY_APPEAR_LATE if session.get_bind().dialect.name == "postgresql" else 0
            silent = [number for number in passed_over if number > state.event_cursor - late] if late else []
            query = (
                select(EventRow)
                .where(
                    EventRow.id > state.event_cursor - late,
                    EventRow.id <= newest,
                    EventRow.name.in_(names),
                    EventRow.id.not_in(silent),
                )
                .order_by(EventRow.id)
                .limit(limit)
            )
            if late:
                query = query.where(~exists().where(AuditRow.event_id == EventRow.id))
            events = tuple(event_record(row) for row in session.scalars(query))
        upto = events[-1].id if len(events) == limit else newest
        return Unrecorded(state, events, max(upto, state.event_cursor))

    def record(self, found: Unrecorded, drafts: Sequence[NewAuditRecord]) -> bool:
        """Add the records of what `unrecorded` found; False, and nothing done, if another process was first."""
        state = found.state
        seq, digest, links = state.head_seq, state.head_digest, []
        for draft in drafts:
            made = link(draft, seq=seq + 1, previous=digest)
            seq, digest = made.seq, made.digest
            links.append(made.__dict__)
        statement = (
            update(AuditStateRow)
            .where(
                AuditStateRow.event_cursor == state.event_cursor,
                AuditStateRow.head_seq == state.head_seq,
                AuditStateRow.head_digest == state.head_digest,
            )
            .values(event_cursor=found.upto, head_seq=seq, head_digest=digest)
            .execution_options(synchronize_session=False)
        )
        with self._database.writing() as session:
            if changed(session.execute(statement)) != 1:
                return False
            if links:
                session.execute(insert(plain(AuditRow)), links)
            return True

    def unsent(self, limit: int = _PAGE) -> list[AuditRecord]:
        """The oldest records that the log server has not confirmed."""
        with self._database.reading() as session:
            sent = _state(session).sent_seq
            query = select(AuditRow).where(AuditRow.seq > sent).order_by(AuditRow.seq).limit(limit)
            return [_record(row) for row in session.scalars(query)]

    def mark_sent(self, seq: int) -> None:
        """Everything up to `seq` is with the log server; never goes back."""
        statement = (
            update(AuditStateRow)
            .where(AuditStateRow.sent_seq < seq)
            .values(sent_seq=seq)
            .execution_options(synchronize_session=False)
        )
        with self._database.writing() as session:
            session.execute(statement)

    def list(self, *, limit: int = 100, before: int | None = None) -> list[AuditRecord]:
        """Records, newest first; `before`: only those with a lower number."""
        query = select(AuditRow).order_by(AuditRow.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(AuditRow.seq < before)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def verify(self, noted: tuple[int, str] | None = None) -> ChainReport:
        """Walk the chain from its first record; `noted` is a number and its digest kept elsewhere."""
        state = self.state()
        return walk(
            self._all(state.head_seq), head_seq=state.head_seq, head_digest=state.head_digest, noted=noted
        )

    def _all(self, head: int) -> Iterator[AuditRecord]:
        """Every record up to the head, page by page; what is added meanwhile is left for the next walk."""
        last = 0
        while True:
            query = select(AuditRow).where(AuditRow.seq > last, AuditRow.seq <= head)
            with self._database.reading() as session:
                page = [_record(row) for row in session.scalars(query.order_by(AuditRow.seq).limit(_PAGE))]
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1].seq


def _state(session: Session) -> AuditState:
    row = session.scalars(select(AuditStateRow)).one()
    return AuditState(row.event_cursor, row.head_seq, row.head_digest, row.sent_seq)


def _record(row: AuditRow) -> AuditRecord:
    return AuditRecord(
        seq=row.seq,
        at=row.at,
        event_id=row.event_id,
        kind=row.kind,
        outcome=row.outcome,
        message=row.message,
        previous=row.previous,
        digest=row.digest,
    )
