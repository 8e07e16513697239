"""Instances under one UID whose bytes differ and that mean the same: no conflict, whatever the transfer syntax."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.series_rows import change_series, lock_series
from storage.tables import InstanceRow, SeriesRow
from storage.trail import TrailEvent, add_event


def note_content(session: Session, series_id: int, digests: Mapping[int, str], *, at: datetime) -> SeriesRow:
    """Keep the semantic digests, and end each conflict in which every content under the UID is known and equal.

    A UID that also stands in another series stays in conflict: it can belong to one series only.
    """
    series = lock_series(session, series_id)
    rows = session.scalars(select(InstanceRow).where(InstanceRow.id.in_(list(digests)))).all()
    for row in rows:
        row.semantic_digest = digests[row.id]
    session.flush()
    same = [
        uid for uid, group in _groups(session, {row.sop_instance_uid for row in rows}).items() if _same(group)
    ]
    for uid in same:
        for row in session.scalars(select(InstanceRow).where(InstanceRow.sop_instance_uid == uid)):
            row.conflict = False
    session.flush()
    if same:
        change_series(session, series)
        data = {"instances": len(same)}
        add_event(session, TrailEvent.SERIES_SAME_CONTENT, at=at, series_id=series_id, data=data)
    return series


def _groups(session: Session, uids: set[str]) -> dict[str, list[InstanceRow]]:
    """Every stored content under these UIDs, in whatever series."""
    groups: dict[str, list[InstanceRow]] = defaultdict(list)
    for row in session.scalars(select(InstanceRow).where(InstanceRow.sop_instance_uid.in_(sorted(uids)))):
        groups[row.sop_instance_uid].append(row)
    return groups


def _same(group: list[InstanceRow]) -> bool:
    """Whether all of them lie in one series and mean the same."""
    meanings = {row.semantic_digest for row in group}
    return len({row.series_id for row in group}) == 1 and len(meanings) == 1 and None not in meanings
