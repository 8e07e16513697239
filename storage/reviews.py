"""What readers think of derived series: one row per reader and job, and the rates that come of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select

from storage.clock import Clock
from storage.database import Database
from storage.desk_tables import ReviewRow
from storage.trail import add_event


class Verdict(StrEnum):
    """What a reader decided."""

    APPROVE = "approve"
    REJECT = "reject"
    NO_DIFFERENCE = "no-difference"


@dataclass(frozen=True)
class NewReview:
    """A review to be kept. `derived_side`: on which side a blinded reader saw the derived series."""

    job_id: int
    series_id: int
    reviewer: str
    verdict: Verdict
    blinded: bool
    derived_side: str | None
    comment: str
    model: str
    modality: str
    site: str


@dataclass(frozen=True)
class ReviewRecord:
    """One review."""

    id: int
    job_id: int
    reviewer: str
    verdict: Verdict
    blinded: bool
    derived_side: str | None
    comment: str
    model: str
    modality: str
    site: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class ReviewRate:
    """How the readers decided about one model on one modality of one site."""

    model: str
    modality: str
    site: str
    approved: int
    rejected: int
    no_difference: int

    @property
    def approval(self) -> float:
        """Approved of all that were reviewed, 0 to 1."""
        total = self.approved + self.rejected + self.no_difference
        return self.approved / total if total else 0.0


class Reviews:
    """Keep reviews and count them. Every method is one short transaction."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def keep(self, new: NewReview) -> ReviewRecord:
        """Keep a review; the same reader's earlier one of this job is replaced, and the trail has both."""

        def work() -> ReviewRecord:
            with self._database.writing() as session:
                at = self._now()
                query = select(ReviewRow).where(
                    ReviewRow.job_id == new.job_id, ReviewRow.reviewer == new.reviewer
                )
                row = session.scalars(query.with_for_update()).one_or_none()
                if row is None:
                    row = ReviewRow(job_id=new.job_id, reviewer=new.reviewer, created_at=at)
                    session.add(row)
                row.verdict, row.blinded, row.derived_side = new.verdict.value, new.blinded, new.derived_side
                row.comment, row.model, row.modality, row.site = (
                    new.comment,
                    new.model,
                    new.modality,
                    new.site,
                )
                row.updated_at = at
                session.flush()
                data = {"actor": f"user:{new.reviewer}", "verdict": new.verdict.value, "model": new.model}
                add_event(
                    session, "review.kept", at=at, series_id=new.series_id, job_id=new.job_id, data=data
                )
                return _record(row)

        return self._database.retrying(work)

    def of_job(self, job_id: int) -> list[ReviewRecord]:
        """The reviews of a job, oldest first."""
        query = select(ReviewRow).where(ReviewRow.job_id == job_id).order_by(ReviewRow.id)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def latest(self, limit: int = 100) -> list[ReviewRecord]:
        """The latest reviews, newest first."""
        query = select(ReviewRow).order_by(ReviewRow.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def all(self, batch: int = 1000) -> Iterator[ReviewRecord]:
        """Every review, oldest first, read in batches."""
        last = 0
        while True:
            query = select(ReviewRow).where(ReviewRow.id > last).order_by(ReviewRow.id).limit(batch)
            with self._database.reading() as session:
                records = [_record(row) for row in session.scalars(query)]
            if not records:
                return
            yield from records
            last = records[-1].id

    def rates(self) -> list[ReviewRate]:
        """The verdicts counted by model, modality and site; answered from an index."""
        keys = (ReviewRow.model, ReviewRow.modality, ReviewRow.site, ReviewRow.verdict)
        counts: dict[tuple[str, str, str], dict[str, int]] = {}
        with self._database.reading() as session:
            for model, modality, site, verdict, count in session.execute(
                select(*keys, func.count()).group_by(*keys)
            ):
                counts.setdefault((model, modality, site), {})[verdict] = count
        return [
            ReviewRate(
                *key,
                approved=found.get(Verdict.APPROVE, 0),
                rejected=found.get(Verdict.REJECT, 0),
                no_difference=found.get(Verdict.NO_DIFFERENCE, 0),
            )
            for key, found in sorted(counts.items())
        ]


def _record(row: ReviewRow) -> ReviewRecord:
    return ReviewRecord(
        id=row.id,
        job_id=row.job_id,
        reviewer=row.reviewer,
        verdict=Verdict(row.verdict),
        blinded=row.blinded,
        derived_side=row.derived_side,
        comment=row.comment,
        model=row.model,
        modality=row.modality,
        site=row.site,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
