"""The shapes of the API: its own, built from records, so that no column becomes public by accident."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from config.explain import describe
from config.sections import Peer, Route
from dicom_node.desk.overview import Overview
from storage.records import (
    DeliveryRecord,
    DestinationStatus,
    EventRecord,
    InstanceRecord,
    JobRecord,
    SeriesRecord,
)
from storage.statistics import PeerFigures

T = TypeVar("T")


class Shape(BaseModel):
    """A response; built from the attributes of a record."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class PageOut(Shape, Generic[T]):
    """One page of a list; `next` is the `after` of the next page, null on the last."""

    items: list[T]
    next: int | None


class SeriesOut(Shape):
    """One received series. Holds no patient data."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    calling_ae: str
    called_ae: str
    state: str
    generation: int
    instance_count: int
    interrupted: bool
    released: bool
    reason: str | None
    message: str | None
    route: str | None
    evidence: Mapping[str, Any]
    first_received_at: datetime
    last_received_at: datetime
    closed_at: datetime | None


class JobOut(Shape):
    """One job; `result` holds what the enhancement measured."""

    id: int
    kind: str
    key: str
    series_id: int
    generation: int
    state: str
    stage: str | None
    attempts: int
    priority: int
    not_before: datetime
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    cancel_requested: bool
    reason: str | None
    message: str | None
    destination: str | None
    parent_id: int | None
    enhancer: str | None
    strength: float | None
    result: Mapping[str, Any]


class DeliveryOut(Shape):
    """One instance at one destination; `status` is the DIMSE status answered."""

    id: int
    job_id: int
    sop_instance_uid: str
    destination: str
    state: str
    status: int | None
    comment: str
    attempts: int
    updated_at: datetime


class InstanceOut(Shape):
    """One stored instance."""

    id: int
    series_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    generation: int
    conflict: bool
    received_at: datetime


class EventOut(Shape):
    """One line of the trail."""

    id: int
    at: datetime
    name: str
    series_id: int | None
    job_id: int | None
    association_id: int | None
    data: Mapping[str, Any]


class SeriesStoryOut(Shape):
    """One series with everything that happened to it."""

    series: SeriesOut
    verdict: str
    jobs: list[JobOut]
    deliveries: Mapping[str, Mapping[str, int]]
    events: list[EventOut]


class JobDetailOut(Shape):
    """One job with its series, its events, the jobs that came of it, and its deliveries by state."""

    job: JobOut
    series: SeriesOut
    children: list[JobOut]
    deliveries: Mapping[str, Mapping[str, int]]
    events: list[EventOut]


class PeerOut(Shape):
    """One configured peer: where it is, how it behaves, what waits for it."""

    name: str
    ae_title: str
    host: str
    port: int
    tls: bool
    enabled: bool
    failures: int
    held_until: datetime | None
    last_error: str | None
    jobs: Mapping[str, int]
    instances: Mapping[str, int]
    oldest_waiting: datetime | None


class RouteOut(Shape):
    """One route in plain words; `series` counts those it took."""

    position: int
    name: str
    when: str
    action: str
    send_to: list[str]
    enhancer: str | None
    strength: float | None
    priority: int


class OverviewOut(Shape):
    """The node at a glance; ages and expectations in seconds."""

    at: datetime
    series: Mapping[str, int]
    series_by_modality: Mapping[str, Mapping[str, int]]
    series_by_sender: Mapping[str, Mapping[str, int]]
    jobs: Mapping[str, Mapping[str, int]]
    peers: Mapping[str, Mapping[str, Mapping[str, int]]]
    queue_age_s: Mapping[str, float]
    expected_s: float | None
    open_associations: int
    last_received_at: datetime | None
    disk: Mapping[str, float]
    machine: Mapping[str, Any]
    enhancer: str
    paused: Mapping[str, bool]


class SessionOut(Shape):
    """Who is signed in; `csrf` goes into X-CSRF-Token with every write."""

    name: str
    role: str | None
    csrf: str | None
    may_reveal: bool


def page(records: Iterable[Any], cursor: int | None, convert: Callable[[Any], T]) -> PageOut[T]:
    """One page from records."""
    return PageOut[T](items=[convert(record) for record in records], next=cursor)


def series_out(record: SeriesRecord) -> SeriesOut:
    """The shape of a series."""
    return SeriesOut.model_validate(record)


def job_out(record: JobRecord) -> JobOut:
    """The shape of a job; of its input only what was asked for, never where files lie."""
    values = {name: getattr(record, name, None) for name in JobOut.model_fields}
    values["enhancer"], values["strength"] = record.spec.get("enhancer"), record.spec.get("strength")
    return JobOut.model_validate(values)


def delivery_out(record: DeliveryRecord) -> DeliveryOut:
    """The shape of a delivery."""
    return DeliveryOut.model_validate(record)


def instance_out(record: InstanceRecord) -> InstanceOut:
    """The shape of an instance."""
    return InstanceOut.model_validate(record)


def event_out(record: EventRecord) -> EventOut:
    """The shape of a line of the trail."""
    return EventOut.model_validate(record)


def peer_out(peer: Peer, status: DestinationStatus, figures: PeerFigures | None) -> PeerOut:
    """The shape of a peer."""
    return PeerOut(
        name=peer.name,
        ae_title=peer.ae_title,
        host=peer.host,
        port=peer.port,
        tls=peer.tls is not None,
        enabled=peer.enabled,
        failures=status.failures,
        held_until=status.not_before,
        last_error=status.last_error,
        jobs=figures.jobs if figures else {},
        instances=figures.instances if figures else {},
        oldest_waiting=figures.oldest_waiting if figures else None,
    )


def route_out(position: int, route: Route) -> RouteOut:
    """The shape of a route."""
    return RouteOut(
        position=position,
        name=route.name,
        when=describe(route.when),
        action=route.action,
        send_to=list(route.send_to),
        enhancer=route.enhancement.enhancer,
        strength=route.enhancement.strength,
        priority=route.priority,
    )


def overview_out(overview: Overview) -> OverviewOut:
    """The shape of the overview."""
    figures = overview.figures
    return OverviewOut(
        at=overview.at,
        series=figures.series,
        series_by_modality=figures.series_by_modality,
        series_by_sender=figures.series_by_sender,
        jobs=figures.jobs,
        peers={
            name: {"jobs": peer.jobs, "instances": peer.instances} for name, peer in figures.peers.items()
        },
        queue_age_s=overview.queue_age_s,
        expected_s=overview.expected_s,
        open_associations=figures.open_associations,
        last_received_at=figures.last_received_at,
        disk=overview.disk,
        machine=overview.machine,
        enhancer=overview.enhancer,
        paused=overview.paused,
    )
