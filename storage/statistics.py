"""Figures of the whole store: how much of what, how old, how long. Read-only, each from an index where it is large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.states import OPEN_JOB_STATES, WAITING_JOB_STATES, JobKind, JobState
from storage.tables import AssociationRow, DeliveryRow, EventRow, InstanceRow, JobRow, SeriesRow

_RECENT_JOBS = 200


@dataclass(frozen=True)
class PeerFigures:
    """What one destination was offered: jobs and instances by state, over everything that is kept."""

    jobs: Mapping[str, int]
    instances: Mapping[str, int]
    oldest_waiting: datetime | None


@dataclass(frozen=True)
class StoreFigures:
    """One look at the store.

    `series`, `series_by_modality`, `series_by_sender`: counts by state. `jobs`: kind, then state.
    `oldest_waiting`: the creation of the oldest job that waits, by kind. `recent_seconds`: for each modality the
    wall seconds of its latest successful enhancements, newest first.
    """

    series: Mapping[str, int]
    series_by_modality: Mapping[str, Mapping[str, int]]
    series_by_sender: Mapping[str, Mapping[str, int]]
    jobs: Mapping[str, Mapping[str, int]]
    oldest_waiting: Mapping[str, datetime]
    oldest_open_series: datetime | None
    peers: Mapping[str, PeerFigures]
    recent_seconds: Mapping[str, tuple[float, ...]]
    open_associations: int
    last_received_at: datetime | None


@dataclass(frozen=True)
class Traffic:
    """What came over the network and is stored. `endings`: associations that ended, by how."""

    open_associations: int
    endings: Mapping[str, int]
    rejected: int
    instances: int
    bytes: int


class Statistics:
    """Reads the figures; each call is one read transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def figures(self) -> StoreFigures:
        """Everything an overview shows."""
        with self._database.reading() as session:
            by_modality, by_sender = _series(session)
            return StoreFigures(
                series=_flat(by_modality),
                series_by_modality=by_modality,
                series_by_sender=by_sender,
                jobs=_nested(session, JobRow.kind, JobRow.state),
                oldest_waiting=_oldest_waiting(session),
                oldest_open_series=session.scalar(
                    select(func.min(SeriesRow.first_received_at)).where(SeriesRow.state == "RECEIVING")
                ),
                peers=_peers(session),
                recent_seconds=_recent_seconds(session),
                open_associations=session.scalar(
                    select(func.count()).select_from(AssociationRow).where(AssociationRow.ended_at.is_(None))
                )
                or 0,
                last_received_at=session.scalar(select(func.max(SeriesRow.last_received_at))),
            )

    def traffic(self) -> Traffic:
        """Associations, and instances with their bytes: reads whole tables, so ask seldom."""
        ending = select(AssociationRow.ending, func.count()).group_by(AssociationRow.ending)
        rejected = select(func.count()).where(EventRow.name == "association.rejected")
        stored = select(func.count(), func.coalesce(func.sum(InstanceRow.size), 0))
        with self._database.reading() as session:
            endings: dict[Any, int] = {row[0]: row[1] for row in session.execute(ending)}
            instances, size = session.execute(stored).one()
            return Traffic(
                open_associations=endings.pop(None, 0),
                endings=endings,
                rejected=session.scalar(rejected) or 0,
                instances=int(instances),
                bytes=int(size),
            )

    def stage_seconds(self) -> dict[str, list[float]]:
        """The seconds of each stage of the latest 200 successful enhancements, newest first."""
        query = (
            select(JobRow.result)
            .where(JobRow.kind == JobKind.ENHANCE, JobRow.state == JobState.SUCCEEDED)
            .order_by(JobRow.id.desc())
            .limit(_RECENT_JOBS)
        )
        found: dict[str, list[float]] = {}
        with self._database.reading() as session:
            for result in session.scalars(query):
                seconds = result.get("seconds")
                for stage, value in seconds.items() if isinstance(seconds, dict) else ():
                    found.setdefault(str(stage), []).append(float(value))
        return found

    def stuck_jobs(self, before: datetime) -> list[tuple[int, str]]:
        """Open jobs nothing was heard of since `before` although they are due, as (number, kind)."""
        query = (
            select(JobRow.id, JobRow.kind)
            .where(JobRow.state.in_(OPEN_JOB_STATES), JobRow.updated_at < before, JobRow.not_before < before)
            .order_by(JobRow.id)
            .limit(100)
        )
        with self._database.reading() as session:
            return [(row[0], row[1]) for row in session.execute(query)]

    def throughput(self, since: datetime, step: timedelta) -> list[dict[str, Any]]:
        """Series received and jobs ended per step since then, oldest first."""
        seconds = step.total_seconds()
        bins: dict[int, dict[str, int]] = {}
        with self._database.reading() as session:
            for (at,) in session.execute(
                select(SeriesRow.first_received_at).where(SeriesRow.last_received_at >= since)
            ):
                if at >= since:
                    _count(bins, int((at - since).total_seconds() // seconds), "received")
            ended = select(JobRow.finished_at, JobRow.kind, JobRow.state).where(
                JobRow.created_at >= since, JobRow.finished_at.is_not(None)
            )
            for done, kind, state in session.execute(ended):
                if done is not None and done >= since:
                    _count(bins, int((done - since).total_seconds() // seconds), f"{kind}.{state}".lower())
        return [{"at": since + step * index, **bins[index]} for index in sorted(bins)]


def _count(bins: dict[int, dict[str, int]], index: int, name: str) -> None:
    at = bins.setdefault(index, {})
    at[name] = at.get(name, 0) + 1


Nested = dict[str, dict[str, int]]


def _series(session: Session) -> tuple[Nested, Nested]:
    """Series by modality and by sender, each by state; one pass over an index for both."""
    keys = (SeriesRow.modality, SeriesRow.calling_ae, SeriesRow.state)
    by_modality: Nested = {}
    by_sender: Nested = {}
    for modality, sender, state, count in session.execute(select(*keys, func.count()).group_by(*keys)):
        for table, name in ((by_modality, modality), (by_sender, sender)):
            states = table.setdefault(name, {})
            states[state] = states.get(state, 0) + count
    return by_modality, by_sender


def _nested(session: Session, outer: Any, inner: Any) -> Nested:
    found: Nested = {}
    for first, second, count in session.execute(select(outer, inner, func.count()).group_by(outer, inner)):
        if first is not None:
            found.setdefault(first, {})[second] = count
    return found


def _flat(nested: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for counts in nested.values():
        for state, count in counts.items():
            found[state] = found.get(state, 0) + count
    return found


def _oldest_waiting(session: Session) -> dict[str, datetime]:
    found = {}
    for kind in JobKind:
        oldest = session.scalar(
            select(func.min(JobRow.created_at)).where(
                JobRow.kind == kind.value, JobRow.state.in_(WAITING_JOB_STATES)
            )
        )
        if oldest is not None:
            found[kind.value] = oldest
    return found


def _peers(session: Session) -> dict[str, PeerFigures]:
    jobs = _nested(session, JobRow.destination, JobRow.state)
    instances = _nested(session, DeliveryRow.destination, DeliveryRow.state)
    oldest: dict[str, datetime] = {}
    waiting = (
        select(JobRow.destination, func.min(JobRow.created_at))
        .where(JobRow.kind == JobKind.DELIVER, JobRow.state.in_(WAITING_JOB_STATES))
        .group_by(JobRow.destination)
    )
    for name, at in session.execute(waiting):
        if name is not None:
            oldest[name] = at
    return {
        name: PeerFigures(jobs.get(name, {}), instances.get(name, {}), oldest.get(name))
        for name in {*jobs, *instances}
    }


def _recent_seconds(session: Session) -> dict[str, tuple[float, ...]]:
    query = (
        select(SeriesRow.modality, JobRow.result)
        .join(SeriesRow, SeriesRow.id == JobRow.series_id)
        .where(JobRow.kind == JobKind.ENHANCE, JobRow.state == JobState.SUCCEEDED)
        .order_by(JobRow.id.desc())
        .limit(_RECENT_JOBS)
    )
    found: dict[str, list[float]] = {}
    for modality, result in session.execute(query):
        seconds = result.get("seconds") if isinstance(result, dict) else None
        if isinstance(seconds, dict):
            found.setdefault(modality, []).append(float(sum(seconds.values())))
    return {modality: tuple(values) for modality, values in found.items()}
