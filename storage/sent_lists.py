"""What senders' lists say of a series: the strongest evidence of completeness, where its rule applies.

A list names SOP instances, not series. An instance that is here belongs to the series it was stored in. One
that never came has told nobody its series, so this is the rule:

- It can only belong to a series that holds instances of its SOP class.
- If all instances of its class that the same list names and that are here lie in one series, it is a missing
  instance of that series: nothing else is known of which it could be one.
- If they lie in several series, it may be missing from any of them. It is counted as unplaced, and while there
  is such a one the list proves none of those series to be complete, nor incomplete.
- Where it arrives in the end, it belongs; what it was taken for is looked at again (`look_again`).

An instance of the series that no list names keeps the lists from proving it: they are about a part of it. Lists
under a transaction UID that was in use already count for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from storage.safekeeping_records import SentList
from storage.safekeeping_tables import KeepItemRow
from storage.series_rows import INTERRUPTED, move_series
from storage.states import SeriesEvent, SeriesState
from storage.tables import InstanceRow, SeriesRow
from storage.trail import TrailEvent, add_event

# Words of dicom_node.errors.Reason for series that a list may set free.
LISTED_MISSING = "LISTED_MISSING"
UNPROVEN = "UNPROVEN"
_DUPLICATE_TRANSACTION = 0x0131


def sent_list(session: Session, series_id: int) -> SentList | None:
    """What every list together says of a series; None when none names any instance of it."""
    own = dict(
        session.execute(
            select(InstanceRow.sop_instance_uid, InstanceRow.sop_class_uid).where(
                InstanceRow.series_id == series_id
            )
        ).all()
    )
    listed: set[str] = set()
    missing: set[str] = set()
    unplaced: set[str] = set()
    for request_id in session.scalars(_requests_naming(series_id)).all():
        classes: dict[str, set[int]] = defaultdict(set)
        absent: list[tuple[str, str]] = []
        for uid, sop_class, place in _placed(session, request_id):
            if place is None:
                absent.append((uid, sop_class))
            else:
                classes[sop_class].add(place)
            if place == series_id:
                listed.add(uid)
        for uid, sop_class in absent:
            if classes.get(sop_class) == {series_id}:
                missing.add(uid)
            elif series_id in classes.get(sop_class, ()):
                unplaced.add(uid)
    if not listed:
        return None
    return SentList(len(listed), len(own.keys() - listed), tuple(sorted(missing)), len(unplaced - missing))


def look_again(session: Session, *, at: datetime) -> int:
    """Open the held series that lack nothing any more; how many."""
    waiting = (
        select(SeriesRow)
        .where(
            SeriesRow.state == SeriesState.HELD,
            SeriesRow.reason.in_((LISTED_MISSING, UNPROVEN, INTERRUPTED)),
            exists().where(
                InstanceRow.series_id == SeriesRow.id,
                KeepItemRow.sop_instance_uid == InstanceRow.sop_instance_uid,
            ),
        )
        .order_by(SeriesRow.id)
        .with_for_update(key_share=True)
    )
    opened = 0
    for row in session.scalars(waiting).all():
        found = sent_list(session, row.id)
        if found is None or not found.proves:
            continue
        data = {"reason": row.reason, "listed": found.listed}
        move_series(session, row, SeriesEvent.LISTED, closed_at=None, reason=None, message=None)
        add_event(session, TrailEvent.SERIES_LISTED, at=at, series_id=row.id, data=data)
        opened += 1
    return opened


def _requests_naming(series_id: int) -> Select[int]:
    """The lists that count and that name an instance of the series."""
    return (
        select(KeepItemRow.request_id)
        .join(InstanceRow, InstanceRow.sop_instance_uid == KeepItemRow.sop_instance_uid)
        .where(
            InstanceRow.series_id == series_id,
            KeepItemRow.reason.is_distinct_from(_DUPLICATE_TRANSACTION),
        )
        .distinct()
    )


def _placed(session: Session, request_id: int) -> list[tuple[str, str, int | None]]:
    """Every instance of a list with its SOP class, and the series it lies in (None: it never came)."""
    query = (
        select(KeepItemRow.sop_instance_uid, KeepItemRow.sop_class_uid, InstanceRow.series_id)
        .outerjoin(InstanceRow, InstanceRow.sop_instance_uid == KeepItemRow.sop_instance_uid)
        .where(KeepItemRow.request_id == request_id)
    )
    return [(uid, sop_class, place) for uid, sop_class, place in session.execute(query)]
