"""What happens in the index when an instance arrives; one transaction of `Index.add_instance`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import CursorResult, bindparam, insert, select, update
from sqlalchemy.orm import Session

from storage.mapping import instance_record, relative, series_record
from storage.records import AddResult, NewInstance, Outcome
from storage.repair import repair
from storage.series_rows import link_association, mark_stored
from storage.states import SeriesState
from storage.tables import InstanceRow, SeriesRow, plain
from storage.trail import TrailEvent, add_event

# Built once: building them for each instance would cost more than running them.
_INSERT = insert(plain(InstanceRow))
_INSTANCES_NAMED = (
    select(InstanceRow).where(InstanceRow.sop_instance_uid == bindparam("uid")).order_by(InstanceRow.id)
)
_SERIES_WITH_KEY = (
    select(SeriesRow)
    .where(
        SeriesRow.study_instance_uid == bindparam("study"),
        SeriesRow.series_instance_uid == bindparam("series"),
    )
    .with_for_update(key_share=True)
)


def store_instance(session: Session, new: NewInstance, *, root: Path, at: datetime) -> AddResult:
    """Give the instance its row, or find that it has one. See `Index.add_instance`."""
    series = _series_for(session, new, at)
    same_uid = _instances_named(session, new.sop_instance)
    twin = next((row for row in same_uid if row.series_id == series.id and row.digest == new.digest), None)
    if twin is not None:
        mark_carried(session, series, new.association_id, at=at)
        outcome: Outcome = "duplicate"
        if twin.damaged:
            repair(session, series, twin, new, root=root, at=at)
            outcome = "repaired"
        return AddResult(outcome, instance_record(twin, root), series_record(series))
    _mark_conflicts(session, same_uid, series)
    generation = mark_stored(session, series, at=at, association_id=new.association_id)
    row = _insert(session, new, series.id, generation, root=root, at=at, conflict=bool(same_uid))
    name = TrailEvent.INSTANCE_CONFLICT if same_uid else TrailEvent.INSTANCE_STORED
    add_event(
        session,
        name,
        at=at,
        series_id=series.id,
        association_id=new.association_id,
        data={"sop_instance_uid": new.sop_instance, "digest": new.digest, "size": new.size},
    )
    return AddResult("conflict" if same_uid else "stored", instance_record(row, root), series_record(series))


def mark_carried(session: Session, series: SeriesRow, association_id: int | None, *, at: datetime) -> None:
    """Note a resend of what is there: the series stays open while the association is, and its ending counts."""
    if association_id is None or series.last_association_id == association_id:
        return
    if link_association(session, series.id, association_id):
        add_event(
            session,
            TrailEvent.SERIES_CARRIED,
            at=at,
            series_id=series.id,
            association_id=association_id,
        )
    session.execute(
        update(SeriesRow)
        .where(SeriesRow.id == series.id)
        .values(last_association_id=association_id, revision=SeriesRow.revision + 1)
        .execution_options(synchronize_session=False)
    )
    session.refresh(series)


def _series_for(session: Session, new: NewInstance, at: datetime) -> SeriesRow:
    """The locked row of the series, made now if this is its first instance."""
    key = {"study": new.study_uid, "series": new.series_uid}
    row = session.scalars(_SERIES_WITH_KEY, key).one_or_none()
    if row is not None:
        return row
    row = SeriesRow(
        study_instance_uid=new.study_uid,
        series_instance_uid=new.series_uid,
        modality=new.modality,
        calling_ae=new.calling_ae,
        called_ae=new.called_ae,
        state=SeriesState.RECEIVING.value,
        generation=1,
        revision=0,
        instance_count=0,
        interrupted=False,
        released=False,
        late=False,
        evidence={},
        first_received_at=at,
        last_received_at=at,
    )
    session.add(row)
    session.flush()
    add_event(
        session,
        TrailEvent.SERIES_OPENED,
        at=at,
        series_id=row.id,
        association_id=new.association_id,
        data={"series_instance_uid": new.series_uid, "modality": new.modality},
    )
    return row


def _instances_named(session: Session, sop_instance_uid: str) -> list[InstanceRow]:
    """Every stored content under this UID, in whatever series."""
    return list(session.scalars(_INSTANCES_NAMED, {"uid": sop_instance_uid}))


def _mark_conflicts(session: Session, rows: list[InstanceRow], series: SeriesRow) -> None:
    """Mark the earlier contents too, and let whoever is looking at their series look again."""
    if not rows:
        return
    session.execute(
        update(InstanceRow)
        .where(InstanceRow.id.in_([row.id for row in rows]))
        .values(conflict=True)
        .execution_options(synchronize_session=False)
    )
    others = {row.series_id for row in rows} - {series.id}
    for series_id in sorted(others):
        session.execute(
            update(SeriesRow)
            .where(SeriesRow.id == series_id)
            .values(revision=SeriesRow.revision + 1)
            .execution_options(synchronize_session=False)
        )


def _insert(
    session: Session,
    new: NewInstance,
    series_id: int,
    generation: int,
    *,
    root: Path,
    at: datetime,
    conflict: bool,
) -> InstanceRow:
    """Insert the row of the new instance."""
    values = {
        "series_id": series_id,
        "sop_class_uid": new.sop_class,
        "sop_instance_uid": new.sop_instance,
        "transfer_syntax_uid": new.transfer_syntax,
        "digest": new.digest,
        "path": relative(new.path, root),
        "size": new.size,
        "generation": generation,
        "conflict": conflict,
        "damaged": False,
        "received_at": at,
        "association_id": new.association_id,
    }
    result = cast("CursorResult[Any]", session.execute(_INSERT, values))
    (row_id,) = result.inserted_primary_key or (None,)
    return InstanceRow(id=row_id, **values)
