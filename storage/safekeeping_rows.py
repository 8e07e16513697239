"""The rows of what senders asked us to keep: found, locked, moved and told of inside a transaction of `Safekeeping`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.database import set_state
from storage.link_states import OPEN_KEEP_STATES, KeepEvent, KeepState, advance_keeping
from storage.safekeeping_records import KeepRequestRecord
from storage.safekeeping_tables import KeepItemRow, KeepRequestRow
from storage.tables import InstanceRow
from storage.trail import TrailEvent, add_event

_PART: Final = 500  # values of one statement

Held = dict[str, list[InstanceRow]]


def due(calling_ae: str, at: datetime) -> Any:
    return (
        select(KeepRequestRow)
        .where(
            KeepRequestRow.calling_ae == calling_ae,
            KeepRequestRow.state.in_(OPEN_KEEP_STATES),
            KeepRequestRow.not_before <= at,
        )
        .order_by(KeepRequestRow.id)
        .limit(1)
    )


def request_row(session: Session, number: int) -> KeepRequestRow:
    return session.scalars(select(KeepRequestRow).where(KeepRequestRow.id == number)).one()


def locked_request(session: Session, number: int) -> KeepRequestRow:
    query = select(KeepRequestRow).where(KeepRequestRow.id == number).with_for_update()
    return session.scalars(query).one()


def items_of(session: Session, number: int) -> Sequence[KeepItemRow]:
    query = select(KeepItemRow).where(KeepItemRow.request_id == number).order_by(KeepItemRow.id)
    return session.scalars(query).all()


def pairs_of(session: Session, row: KeepRequestRow) -> set[tuple[str, str]]:
    return {(item.sop_class_uid, item.sop_instance_uid) for item in items_of(session, row.id)}


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]


def stored(session: Session, uids: Sequence[str]) -> Held:
    """Every stored content under these UIDs, as the database has it now."""
    found: Held = defaultdict(list)
    for part in _parts(uids):
        query = select(InstanceRow).where(InstanceRow.sop_instance_uid.in_(part)).order_by(InstanceRow.id)
        for row in session.scalars(query.execution_options(populate_existing=True)):
            found[row.sop_instance_uid].append(row)
    return dict(found)


def set_items(session: Session, numbers: Sequence[int], **values: Any) -> None:
    for part in _parts(numbers):
        statement = update(KeepItemRow).where(KeepItemRow.id.in_(part)).values(**values)
        session.execute(statement.execution_options(synchronize_session=False))


def move_request(session: Session, row: KeepRequestRow, event: KeepEvent, **changes: Any) -> None:
    """Apply an event to a request that is locked."""
    set_state(session, row, advance_keeping(KeepState(row.state), event).value, **changes)


def tell(session: Session, name: TrailEvent, row: KeepRequestRow, at: datetime) -> None:
    facts = {"request": row.id, "transaction_uid": row.transaction_uid, "calling_ae": row.calling_ae}
    counts = {"instances": row.instances, "failed": row.failed}
    add_event(session, name, at=at, data={**facts, **counts})


def request_record(row: KeepRequestRow) -> KeepRequestRecord:
    return KeepRequestRecord(
        id=row.id,
        transaction_uid=row.transaction_uid,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        state=KeepState(row.state),
        instances=row.instances,
        failed=row.failed,
        failures=row.failures,
        received_at=row.received_at,
        not_before=row.not_before,
        judged_at=row.judged_at,
        reported_at=row.reported_at,
        message=row.message,
    )
