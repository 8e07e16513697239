"""Reader reviews over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.api.act_routes import In
from dicom_node.api.idempotency import WriteRoute
from dicom_node.api.read_routes import Id
from dicom_node.api.security import DeskDep, Operator, Viewer
from dicom_node.desk import reviews
from storage.reviews import Verdict

router = APIRouter(tags=["reviews"], route_class=WriteRoute)


class ReviewIn(In):
    """A verdict; without patient data in the comment, please: it is exported."""

    verdict: Verdict
    blinded: bool = False
    comment: Annotated[str, Field(max_length=2000)] = ""


class ReviewOut(BaseModel):
    """A kept review."""

    model_config = ConfigDict(from_attributes=True)

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


class RateOut(BaseModel):
    """How readers decided about one model on one modality of one site; `approval` from 0 to 1."""

    model_config = ConfigDict(from_attributes=True)

    model: str
    modality: str
    site: str
    approved: int
    rejected: int
    no_difference: int
    approval: float


class SideOut(BaseModel):
    """Where a blinded reader is shown the derived series of a job; the page uses it, the reader does not see it."""

    derived_side: str


@router.get("/reviews")
def latest_reviews(
    desk: DeskDep, _caller: Viewer, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> list[ReviewOut]:
    """The latest reviews, newest first."""
    return [ReviewOut.model_validate(review) for review in desk.store.reviews.latest(limit)]


@router.get("/reviews/rates")
def review_rates(desk: DeskDep, _caller: Viewer) -> list[RateOut]:
    """The approval rate by model, modality and site (the sender's AE title)."""
    return [RateOut.model_validate(rate) for rate in desk.store.reviews.rates()]


@router.get("/reviews.csv", response_class=StreamingResponse)
def reviews_csv(desk: DeskDep, caller: Operator) -> StreamingResponse:
    """Every review as CSV."""
    headers = {"Content-Disposition": 'attachment; filename="reviews.csv"'}
    return StreamingResponse(
        reviews.export(desk, actor=caller.actor), media_type="text/csv; charset=utf-8", headers=headers
    )


@router.get("/jobs/{job_id}/reviews")
def job_reviews(desk: DeskDep, _caller: Viewer, job_id: Id) -> list[ReviewOut]:
    """The reviews of a job."""
    desk.store.jobs.get(job_id)
    return [ReviewOut.model_validate(review) for review in desk.store.reviews.of_job(job_id)]


@router.get("/jobs/{job_id}/reviews/side")
def blinded_side(desk: DeskDep, caller: Operator, job_id: Id) -> SideOut:
    """On which side a blinded reader is shown the derived series."""
    desk.store.jobs.get(job_id)
    return SideOut(derived_side=reviews.blinded_side(caller.name, job_id))


@router.put("/jobs/{job_id}/reviews/mine")
def keep_review(desk: DeskDep, caller: Operator, job_id: Id, asked: ReviewIn) -> ReviewOut:
    """Keep one's own verdict on a finished enhancement; an earlier one is replaced."""
    kept = reviews.keep_review(
        desk, job_id, asked.verdict, reviewer=caller.name, blinded=asked.blinded, comment=asked.comment
    )
    return ReviewOut.model_validate(kept)
