"""What is there to see: overview, series, jobs, deliveries, events, peers, routes. For every role."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from dicom_node.api import schemas as out
from dicom_node.api.security import DeskDep, viewer
from dicom_node.operations import delivery_summary, find_peer
from storage.errors import NotFoundError
from storage.filters import DeliveryFilter, EventFilter, JobFilter, SeriesFilter
from storage.states import DeliveryState, JobKind, JobState, SeriesState, Stage

router = APIRouter(tags=["reading"], dependencies=[Depends(viewer)])

LARGEST_ID = 2**63 - 1
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
After = Annotated[int | None, Query(ge=0, le=LARGEST_ID, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500)]
Words = Annotated[list[str] | None, Query(max_length=20)]
Text = Annotated[
    str | None, Query(max_length=64, description="What a UID, a sender or a number begins with.")
]
Name = Annotated[str | None, Query(max_length=255)]
Number = Annotated[int | None, Query(ge=1, le=LARGEST_ID)]


@router.get("/overview")
def overview(desk: DeskDep) -> out.OverviewOut:
    """The node at a glance, two seconds old at most."""
    return out.overview_out(desk.figures.overview())


@router.get("/series")
def series_list(
    desk: DeskDep,
    *,
    state: Annotated[list[SeriesState] | None, Query(max_length=10)] = None,
    modality: Words = None,
    reason: Words = None,
    calling_ae: Name = None,
    route: Name = None,
    study_instance_uid: Name = None,
    received_from: datetime | None = None,
    received_before: datetime | None = None,
    text: Text = None,
    after: After = None,
    limit: Limit = 50,
) -> out.PageOut[out.SeriesOut]:
    """Series, newest first."""
    wanted = SeriesFilter(
        states=tuple(state or ()),
        modalities=tuple(modality or ()),
        reasons=tuple(reason or ()),
        calling_ae=calling_ae,
        route=route,
        study_instance_uid=study_instance_uid,
        received_from=_aware(received_from),
        received_before=_aware(received_before),
        text=text or None,
    )
    found = desk.store.listing.series(wanted, after=after, limit=limit)
    return out.page(found.items, found.cursor, out.series_out)


@router.get("/series/{series_id}")
def series_story(desk: DeskDep, series_id: Id) -> out.SeriesStoryOut:
    """One series with everything that happened to it, and why it was not enhanced if it was not."""
    story = desk.operations.series_story(str(series_id))
    return out.SeriesStoryOut(
        series=out.series_out(story.series),
        verdict=story.verdict,
        jobs=[out.job_out(job) for job in story.jobs],
        deliveries=delivery_summary(story.deliveries),
        events=[out.event_out(event) for event in story.events],
    )


@router.get("/series/{series_id}/instances")
def series_instances(
    desk: DeskDep, series_id: Id, after: After = None, limit: Limit = 50
) -> out.PageOut[out.InstanceOut]:
    """The stored instances of a series, in the order of arrival."""
    desk.store.index.get_series(series_id)
    found = desk.store.listing.instances(series_id, after=after, limit=limit)
    return out.page(found.items, found.cursor, out.instance_out)


@router.get("/jobs")
def jobs_list(
    desk: DeskDep,
    *,
    kind: Annotated[list[JobKind] | None, Query(max_length=10)] = None,
    state: Annotated[list[JobState] | None, Query(max_length=10)] = None,
    stage: Annotated[list[Stage] | None, Query(max_length=10)] = None,
    reason: Words = None,
    modality: Words = None,
    calling_ae: Name = None,
    destination: Name = None,
    series_id: Number = None,
    created_from: datetime | None = None,
    created_before: datetime | None = None,
    text: Text = None,
    after: After = None,
    limit: Limit = 50,
) -> out.PageOut[out.JobOut]:
    """Jobs of both kinds, newest first."""
    wanted = JobFilter(
        kinds=tuple(kind or ()),
        states=tuple(state or ()),
        stages=tuple(stage or ()),
        reasons=tuple(reason or ()),
        modalities=tuple(modality or ()),
        calling_ae=calling_ae,
        destination=destination,
        series_id=series_id,
        created_from=_aware(created_from),
        created_before=_aware(created_before),
        text=text or None,
    )
    found = desk.store.listing.jobs(wanted, after=after, limit=limit)
    return out.page(found.items, found.cursor, out.job_out)


@router.get("/jobs/{job_id}")
def job_detail(desk: DeskDep, job_id: Id) -> out.JobDetailOut:
    """One job: its series, its events, its deliveries."""
    job, events = desk.operations.job(job_id)
    children = desk.store.jobs.list(parent_id=job_id, limit=1000)
    sending = [found.id for found in (job, *children) if found.kind is JobKind.DELIVER]
    deliveries = [d for number in sending for d in desk.operations.deliveries(job_id=number, limit=10_000)]
    return out.JobDetailOut(
        job=out.job_out(job),
        series=out.series_out(desk.store.index.get_series(job.series_id)),
        children=[out.job_out(child) for child in children],
        deliveries=delivery_summary(deliveries),
        events=[out.event_out(event) for event in events],
    )


@router.get("/deliveries")
def deliveries_list(
    desk: DeskDep,
    *,
    state: Annotated[list[DeliveryState] | None, Query(max_length=10)] = None,
    destination: Name = None,
    job_id: Number = None,
    series_id: Number = None,
    text: Text = None,
    after: After = None,
    limit: Limit = 50,
) -> out.PageOut[out.DeliveryOut]:
    """Deliveries, one row per instance and destination, newest first."""
    wanted = DeliveryFilter(
        states=tuple(state or ()),
        destination=destination,
        job_id=job_id,
        series_id=series_id,
        text=text or None,
    )
    found = desk.store.listing.deliveries(wanted, after=after, limit=limit)
    return out.page(found.items, found.cursor, out.delivery_out)


@router.get("/events")
def events_list(
    desk: DeskDep,
    *,
    series_id: Number = None,
    job_id: Number = None,
    association_id: Number = None,
    name: Annotated[
        str | None, Query(max_length=64, description="A name, or a group with its dot: `job.`")
    ] = None,
    after: After = None,
    limit: Limit = 50,
) -> out.PageOut[out.EventOut]:
    """The trail, newest first."""
    wanted = EventFilter(series_id=series_id, job_id=job_id, association_id=association_id, name=name or None)
    found = desk.store.listing.events(wanted, after=after, limit=limit)
    return out.page(found.items, found.cursor, out.event_out)


@router.get("/peers")
def peers_list(desk: DeskDep) -> list[out.PeerOut]:
    """The configured peers: where they are, how they behave, what waits for them."""
    figures = desk.figures.overview().figures.peers
    return [
        out.peer_out(peer, desk.store.destinations.status(peer.name), figures.get(peer.name))
        for peer in desk.settings.peers
    ]


@router.get("/peers/{name}")
def peer_detail(desk: DeskDep, name: Annotated[str, Path(max_length=64)]) -> out.PeerOut:
    """One peer."""
    peer = find_peer(desk.settings, name)
    figures = desk.figures.overview().figures.peers
    return out.peer_out(peer, desk.store.destinations.status(name), figures.get(name))


@router.get("/routes")
def routes_list(desk: DeskDep) -> list[out.RouteOut]:
    """The routes in force, in plain words, in their order."""
    return [out.route_out(position, route) for position, route in enumerate(desk.rules.settings().routes, 1)]


@router.get("/routes/{position}")
def route_detail(desk: DeskDep, position: Annotated[int, Path(ge=1, le=10_000)]) -> out.RouteOut:
    """One route by its place."""
    routes = desk.rules.settings().routes
    if position > len(routes):
        raise NotFoundError("route", position)
    return out.route_out(position, routes[position - 1])


def _aware(at: datetime | None) -> datetime | None:
    """A time without a zone is taken as UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
