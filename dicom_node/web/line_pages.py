"""The pages of the line: overview, series and jobs, each with what may be done to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from dicom_node.api.read_routes import Id
from dicom_node.api.security import Anyone, DeskDep, Viewer
from dicom_node.desk.alerts import sentence
from dicom_node.desk.desk import Desk
from dicom_node.operations import delivery_summary
from dicom_node.web import timeline
from dicom_node.web.asked import Asked, delivery_filter, job_filter, known_words, series_filter
from dicom_node.web.frame import PageRoute, render
from storage.filters import DeliveryFilter, JobFilter, SeriesFilter
from storage.records import JobRecord
from storage.states import JobKind, JobState, SeriesState

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)

_PAGE = 50
_DAY = timedelta(hours=24)
_BARS = 48
_LISTED = frozenset({"failed", "held", "alarm"})


@router.get("/")
def front(_caller: Anyone) -> RedirectResponse:
    """The overview, by way of the login where that is needed."""
    return RedirectResponse("/overview", 303)


@router.get("/overview")
def overview(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """What came in, what went out, what is stuck: within seconds."""
    found = desk.figures.overview()
    wrong = desk.store.listing.jobs(JobFilter(states=(JobState.FAILED, JobState.RETRY)), limit=8).items
    held = desk.store.listing.series(SeriesFilter(states=(SeriesState.HELD,)), limit=8).items
    return render(
        request,
        "overview.html",
        caller,
        overview=found,
        figures=found.figures,
        line=_line(found.figures.jobs, found.figures.series),
        wrong=wrong,
        wrong_series=desk.store.listing.series_by_id(job.series_id for job in wrong),
        held=held,
        alarms=desk.store.alarms.active()[:8],
        # Failed jobs and held series are listed themselves, and alarms too.
        alerts=[(a, sentence(a)) for a in desk.store.alerts.lasting() if a.kind not in _LISTED][:8],
        rates=desk.store.reviews.rates(),
        bars=_bars(desk),
    )


@router.get("/series")
def series_list(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """Every received series."""
    asked = Asked(request.query_params)
    found = desk.store.listing.series(series_filter(asked), after=asked.number("after"), limit=_PAGE)
    figures = desk.figures.overview().figures
    return render(
        request,
        "series_list.html",
        caller,
        asked=asked,
        page=found,
        states=list(SeriesState),
        modalities=known_words(figures.series_by_modality, asked.several("modality")),
        senders=known_words(figures.series_by_sender, asked.several("calling_ae")),
    )


@router.get("/series/{series_id}")
def series_page(request: Request, desk: DeskDep, caller: Viewer, series_id: Id) -> HTMLResponse:
    """One series, everything that happened to it, and why it was not enhanced if it was not."""
    story = desk.operations.series_story(str(series_id))
    asked = Asked(request.query_params)
    return render(
        request,
        "series.html",
        caller,
        series=story.series,
        verdict=story.verdict,
        jobs=story.jobs,
        deliveries=delivery_summary(story.deliveries),
        events=story.events,
        asked=asked,
        peers=[peer.name for peer in desk.settings.peers if peer.enabled],
        instances=desk.store.listing.instances(series_id, after=asked.number("after"), limit=_PAGE),
    )


@router.get("/jobs")
def jobs_list(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """Jobs of both kinds."""
    asked = Asked(request.query_params)
    found = desk.store.listing.jobs(job_filter(asked), after=asked.number("after"), limit=_PAGE)
    figures = desk.figures.overview().figures
    return render(
        request,
        "jobs.html",
        caller,
        asked=asked,
        page=found,
        series=desk.store.listing.series_by_id(job.series_id for job in found.items),
        states=list(JobState),
        kinds=list(JobKind),
        modalities=known_words(figures.series_by_modality, asked.several("modality")),
        senders=known_words(figures.series_by_sender, asked.several("calling_ae")),
        destinations=known_words({name: peer.jobs for name, peer in figures.peers.items()}),
    )


@router.get("/jobs/{job_id}")
def job_page(request: Request, desk: DeskDep, caller: Viewer, job_id: Id) -> HTMLResponse:
    """One job: how far it came, what it measured, where every instance is."""
    job, events = desk.operations.job(job_id)
    series = desk.store.index.get_series(job.series_id)
    children = desk.store.jobs.list(parent_id=job_id, limit=1000)
    asked = Asked(request.query_params)
    sending = [found for found in (job, *children) if found.kind is JobKind.DELIVER]
    return render(
        request,
        "job.html",
        caller,
        job=job,
        series=series,
        children=children,
        events=events,
        steps=timeline.steps(job, series, events, children),
        sending=sending,
        deliveries=_deliveries(desk, asked, sending),
        asked=asked,
        able=able(job),
        peers=[peer.name for peer in desk.settings.peers if peer.enabled],
        derived=desk.store.index.derived(job_id)[:1],
        reviews=desk.store.reviews.of_job(job_id),
    )


def able(job: JobRecord) -> dict[str, bool]:
    """Which acts make sense for a job as it is."""
    return {
        "cancel": job.state in (JobState.PENDING, JobState.RUNNING, JobState.RETRY)
        and not job.cancel_requested,
        "resubmit": job.state in (JobState.FAILED, JobState.CANCELED)
        or (job.kind is JobKind.ENHANCE and job.state is JobState.SUCCEEDED),
        "retry": job.kind is JobKind.DELIVER and job.state in (JobState.RETRY, JobState.FAILED),
    }


def _deliveries(desk: Desk, asked: Asked, sending: list[JobRecord]) -> Any:
    """A page of deliveries: of the delivery looked at, or of the first one of an enhancement."""
    wanted = asked.number("delivery")
    chosen = next((job for job in sending if job.id == wanted), sending[0] if sending else None)
    if chosen is None:
        return None
    by = delivery_filter(asked, job_id=chosen.id) if wanted else DeliveryFilter(job_id=chosen.id)
    return chosen, desk.store.listing.deliveries(by, after=asked.number("after"), limit=_PAGE)


def _line(jobs: Mapping[str, Mapping[str, int]], series: Mapping[str, int]) -> list[dict[str, Any]]:
    """The line from left to right: name, count, where to read more, and how it looks."""
    enhance, deliver = jobs.get("ENHANCE", {}), jobs.get("DELIVER", {})
    waiting = sum(enhance.get(state, 0) for state in ("PENDING", "RETRY"))
    sending = sum(deliver.get(state, 0) for state in ("PENDING", "RETRY", "RUNNING"))
    failed = enhance.get("FAILED", 0) + deliver.get("FAILED", 0)
    cells = (
        ("Receiving", series.get("RECEIVING", 0), "/series?state=RECEIVING", "busy"),
        ("Queued", waiting, "/jobs?kind=ENHANCE&state=PENDING&state=RETRY", "quiet"),
        ("Processing", enhance.get("RUNNING", 0), "/jobs?kind=ENHANCE&state=RUNNING", "busy"),
        ("Sending", sending, "/jobs?kind=DELIVER&state=PENDING&state=RUNNING&state=RETRY", "busy"),
        ("Delivered", deliver.get("SUCCEEDED", 0), "/jobs?kind=DELIVER&state=SUCCEEDED", "good"),
        ("Failed", failed, "/jobs?state=FAILED", "bad"),
        ("Held", series.get("HELD", 0), "/series?state=HELD", "wait"),
        ("Left alone", series.get("SKIPPED", 0), "/series?state=SKIPPED", "quiet"),
    )
    return [
        {"name": name, "count": count, "link": link, "tone": tone if count else "none"}
        for name, count, link, tone in cells
    ]


def _bars(desk: Desk) -> list[dict[str, Any]]:
    """Received, delivered and failed in each half hour of the last day; heights from 0 to 100."""
    step = _DAY / _BARS
    since = desk.now() - _DAY
    found: dict[int, Mapping[str, Any]] = {}
    for item in desk.store.statistics.throughput(since, step):
        at: datetime = item["at"]
        found[round((at - since) / step)] = item
    rows = [
        {
            "at": since + step * index,
            "received": found.get(index, {}).get("received", 0),
            "delivered": found.get(index, {}).get("deliver.succeeded", 0),
            "failed": sum(found.get(index, {}).get(name, 0) for name in ("enhance.failed", "deliver.failed")),
        }
        for index in range(_BARS)
    ]
    top = max((row[name] for row in rows for name in ("received", "delivered", "failed")), default=0) or 1
    return [
        {
            **row,
            **{
                f"{name}_height": round(100 * row[name] / top, 1)
                for name in ("received", "delivered", "failed")
            },
        }
        for row in rows
    ]
