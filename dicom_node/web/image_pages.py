"""The pages with images, and the readers' verdicts. The images themselves come from the API, slice by slice."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.background import BackgroundTask

from dicom_node.api.read_routes import Id
from dicom_node.api.security import DeskDep, Viewer
from dicom_node.desk.reviews import blinded_side
from dicom_node.web.frame import PageRoute, render
from storage.states import JobKind, JobState

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)


@router.get("/series/{series_id}/view")
def series_viewer(request: Request, desk: DeskDep, caller: Viewer, series_id: Id) -> HTMLResponse:
    """A received series, slice by slice."""
    series = desk.store.index.get_series(series_id)
    page = render(
        request,
        "viewer.html",
        caller,
        job=None,
        series=series,
        images=f"/api/v1/series/{series_id}/images",
        blinded=False,
    )
    page.background = BackgroundTask(desk.images.warm, partial(desk.images.of_series, series_id))
    return page


@router.get("/jobs/{job_id}/view")
def job_viewer(request: Request, desk: DeskDep, caller: Viewer, job_id: Id) -> HTMLResponse:
    """Source beside derived beside difference, in one window."""
    job = desk.store.jobs.get(job_id)
    series = desk.store.index.get_series(job.series_id)
    reviewable = job.kind is JobKind.ENHANCE and job.state is JobState.SUCCEEDED
    blinded = request.query_params.get("blinded") == "1" and reviewable
    page = render(
        request,
        "viewer.html",
        caller,
        job=job,
        series=series,
        images=f"/api/v1/jobs/{job_id}/images",
        reviewable=reviewable,
        blinded=blinded,
        side=blinded_side(caller.name, job_id) if blinded else "right",
        reviews=[] if blinded else desk.store.reviews.of_job(job_id),
        mine=next((kept for kept in desk.store.reviews.of_job(job_id) if kept.reviewer == caller.name), None),
    )
    page.background = BackgroundTask(desk.images.warm, partial(desk.images.of_job, job_id))
    return page


@router.get("/reviews")
def reviews_page(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """What readers think of derived series, and those that wait for a verdict."""
    latest = desk.store.reviews.latest(50)
    done = {kept.job_id for kept in desk.store.reviews.latest(500) if kept.reviewer == caller.name}
    finished = desk.store.jobs.list(kind=JobKind.ENHANCE, state=JobState.SUCCEEDED, limit=100)
    waiting = [job for job in finished if job.id not in done][:20]
    return render(
        request,
        "reviews.html",
        caller,
        rates=desk.store.reviews.rates(),
        latest=latest,
        waiting=waiting,
        series=desk.store.listing.series_by_id(job.series_id for job in waiting),
    )
