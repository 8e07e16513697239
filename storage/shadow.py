"""Trials of a second model beside the one that is sent: started, measured on the same inputs, decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database
from storage.desk_tables import ShadowResultRow, ShadowRow
from storage.errors import IllegalTransitionError, NotFoundError
from storage.states import OPEN_JOB_STATES, JobKind, JobState
from storage.tables import JobRow
from storage.trail import add_event


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    PROMOTED = "promoted"  # its model is the default until this is withdrawn
    DROPPED = "dropped"
    WITHDRAWN = "withdrawn"  # was promoted, is not any more


_MOVES: Mapping[TrialState, frozenset[TrialState]] = {
    TrialState.RUNNING: frozenset({TrialState.PROMOTED, TrialState.DROPPED}),
    TrialState.PROMOTED: frozenset({TrialState.WITHDRAWN}),
}


@dataclass(frozen=True)
class TrialRecord:
    """One trial."""

    id: int
    enhancer: str
    state: TrialState
    started_by: str
    started_at: datetime
    decided_by: str | None
    decided_at: datetime | None


@dataclass(frozen=True)
class ShadowResult:
    """Both models on one input; `shadow` holds `error` where the candidate failed."""

    job_id: int
    primary: Mapping[str, Any]
    shadow: Mapping[str, Any]
    created_at: datetime


class Shadow:
    """Start, feed and decide trials. Every method is one short transaction."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def start(self, enhancer: str, actor: str) -> TrialRecord:
        """Begin a trial. Raises `IllegalTransitionError` while another one runs."""
        with self._database.writing() as session:
            self._database.serialise_on(session, "shadow-trial")
            if _latest(session, TrialState.RUNNING) is not None:
                raise IllegalTransitionError(TrialState.RUNNING, "start", "one trial at a time")
            row = ShadowRow(
                enhancer=enhancer,
                state=TrialState.RUNNING.value,
                started_by=actor,
                started_at=self._now(),
            )
            session.add(row)
            session.flush()
            data = {"actor": actor, "trial": row.id, "enhancer": enhancer}
            add_event(session, "shadow.started", at=row.started_at, data=data)
            return _trial(row)

    def decide(self, trial_id: int, state: TrialState, actor: str) -> TrialRecord:
        """Promote, drop or withdraw. Promoting ends the reign of the one promoted before.

        Raises `NotFoundError`, `IllegalTransitionError`.
        """
        with self._database.writing() as session:
            self._database.serialise_on(session, "shadow-trial")
            row = session.get(ShadowRow, trial_id, with_for_update=True)
            if row is None:
                raise NotFoundError("trial", trial_id)
            if state not in _MOVES.get(TrialState(row.state), frozenset()):
                raise IllegalTransitionError(row.state, state)
            at = self._now()
            if state is TrialState.PROMOTED:
                before = _latest(session, TrialState.PROMOTED)
                if before is not None:
                    before.state, before.decided_by, before.decided_at = "withdrawn", actor, at
            row.state, row.decided_by, row.decided_at = state.value, actor, at
            session.flush()
            data = {"actor": actor, "trial": row.id, "enhancer": row.enhancer}
            add_event(session, f"shadow.{state.value}", at=at, data=data)
            return _trial(row)

    def running(self) -> TrialRecord | None:
        """The trial that runs now."""
        with self._database.reading() as session:
            row = _latest(session, TrialState.RUNNING)
            return None if row is None else _trial(row)

    def promoted(self) -> str | None:
        """The enhancer that a person made the default, or None."""
        with self._database.reading() as session:
            row = _latest(session, TrialState.PROMOTED)
            return None if row is None else row.enhancer

    def trials(self, limit: int = 50) -> list[TrialRecord]:
        """Trials, newest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(ShadowRow).order_by(ShadowRow.id.desc()).limit(limit))
            return [_trial(row) for row in rows]

    def next_job(self, trial: TrialRecord) -> int | None:
        """The oldest enhancement that succeeded during the trial and was not tried yet; None while jobs wait."""
        tried = (
            select(ShadowResultRow.id)
            .where(ShadowResultRow.trial_id == trial.id, ShadowResultRow.job_id == JobRow.id)
            .exists()
        )
        waiting = select(JobRow.id).where(JobRow.kind == JobKind.ENHANCE, JobRow.state.in_(OPEN_JOB_STATES))
        done = (
            select(JobRow.id)
            .where(
                JobRow.kind == JobKind.ENHANCE,
                JobRow.state == JobState.SUCCEEDED,
                JobRow.finished_at >= trial.started_at,
                ~tried,
            )
            .order_by(JobRow.id)
            .limit(1)
        )
        with self._database.reading() as session:
            if session.scalar(waiting.limit(1)) is not None:
                return None
            return session.scalar(done)

    def record(
        self, trial: TrialRecord, job_id: int, primary: Mapping[str, Any], shadow: Mapping[str, Any]
    ) -> None:
        """Keep the figures of both models on one input; a second record of the same is dropped."""
        with self._database.writing() as session:
            known = select(ShadowResultRow.id).where(
                ShadowResultRow.trial_id == trial.id, ShadowResultRow.job_id == job_id
            )
            if session.scalar(known) is None:
                session.add(
                    ShadowResultRow(
                        trial_id=trial.id,
                        job_id=job_id,
                        state="failed" if "error" in shadow else "done",
                        primary_metrics=dict(primary),
                        shadow_metrics=dict(shadow),
                        created_at=self._now(),
                    )
                )

    def results(self, trial_id: int, limit: int = 500) -> list[ShadowResult]:
        """What a trial has measured, newest first."""
        query = (
            select(ShadowResultRow)
            .where(ShadowResultRow.trial_id == trial_id)
            .order_by(ShadowResultRow.id.desc())
            .limit(limit)
        )
        with self._database.reading() as session:
            return [
                ShadowResult(row.job_id, row.primary_metrics, row.shadow_metrics, row.created_at)
                for row in session.scalars(query)
            ]


def _latest(session: Session, state: TrialState) -> ShadowRow | None:
    query = select(ShadowRow).where(ShadowRow.state == state.value).order_by(ShadowRow.id.desc()).limit(1)
    return session.scalars(query).one_or_none()


def _trial(row: ShadowRow) -> TrialRecord:
    return TrialRecord(
        id=row.id,
        enhancer=row.enhancer,
        state=TrialState(row.state),
        started_by=row.started_by,
        started_at=row.started_at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )
