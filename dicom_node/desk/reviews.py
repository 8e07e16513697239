"""Reader reviews: approve, reject, no difference; blinded if wished; rates; a CSV that runs nothing."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator

from dicom_node.desk.desk import Desk
from dicom_node.errors import NodeError
from storage.reviews import NewReview, ReviewRecord, Verdict
from storage.states import JobKind, JobState

_COLUMNS = (
    "id", "job", "reviewer", "verdict", "blinded", "derived_side", "comment", "model", "modality", "site",
    "created_at", "updated_at",
)  # fmt: skip
# What makes a spreadsheet read a cell as a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


class NotReviewableError(NodeError):
    """There is no derived series to look at."""


def blinded_side(reviewer: str, job_id: int) -> str:
    """On which side this reader sees the derived series of this job: as good as random, always the same."""
    return "left" if hashlib.sha256(f"{reviewer}\0{job_id}".encode()).digest()[0] % 2 else "right"


def keep_review(
    desk: Desk, job_id: int, verdict: Verdict, *, reviewer: str, blinded: bool, comment: str
) -> ReviewRecord:
    """Keep a reader's verdict on a finished enhancement. Raises `NotReviewableError`, `NotFoundError`."""
    job = desk.store.jobs.get(job_id)
    if job.kind is not JobKind.ENHANCE or job.state is not JobState.SUCCEEDED:
        raise NotReviewableError("only a finished enhancement can be reviewed")
    series = desk.store.index.get_series(job.series_id)
    enhancer = job.result.get("enhancer")
    facts = enhancer if isinstance(enhancer, dict) else {}
    model = " ".join(str(facts[key]) for key in ("name", "version") if facts.get(key)) or str(
        job.spec.get("enhancer", "unknown")
    )
    return desk.store.reviews.keep(
        NewReview(
            job_id=job_id,
            series_id=series.id,
            reviewer=reviewer,
            verdict=verdict,
            blinded=blinded,
            derived_side=blinded_side(reviewer, job_id) if blinded else None,
            comment=comment,
            model=model[:128],
            modality=series.modality,
            site=series.calling_ae,
        )
    )


def export(desk: Desk, *, actor: str) -> Iterator[str]:
    """Every review as CSV, line by line; the trail says who took it."""
    desk.store.trail.append("reviews.exported", data={"actor": actor})
    return as_csv(desk)


def as_csv(desk: Desk) -> Iterator[str]:
    """Every review as CSV, line by line; a cell that a spreadsheet would run is made text."""
    yield _line(_COLUMNS)
    for review in desk.store.reviews.all():
        cells = (
            review.id, review.job_id, review.reviewer, review.verdict.value, review.blinded,
            review.derived_side or "", review.comment, review.model, review.modality, review.site,
            review.created_at.isoformat(), review.updated_at.isoformat(),
        )  # fmt: skip
        yield _line(cells)


def neutral(cell: object) -> str:
    """The cell as text that no spreadsheet takes for a formula."""
    text = str(cell)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def _line(cells: tuple[object, ...]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([neutral(cell) for cell in cells])
    return out.getvalue()
