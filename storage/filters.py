"""What may be asked of the lists: one frozen filter for each, every field None or empty for "any".

Fields given together must all hold. Times are aware datetimes, `*_from` included and `*_before` excluded.
`text` is what a person typed into a search box: the beginning of a UID, AE title or name, or a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.states import DeliveryState, JobKind, JobState, SeriesState, Stage


@dataclass(frozen=True)
class SeriesFilter:
    """Which series. `received_*` look at the last instance received."""

    states: tuple[SeriesState, ...] = ()
    modalities: tuple[str, ...] = ()
    calling_ae: str | None = None
    called_ae: str | None = None
    route: str | None = None
    reasons: tuple[str, ...] = ()
    study_instance_uid: str | None = None
    interrupted: bool | None = None
    received_from: datetime | None = None
    received_before: datetime | None = None
    text: str | None = None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs. `modality`, `calling_ae` and `text` look at the series of the job as well."""

    kinds: tuple[JobKind, ...] = ()
    states: tuple[JobState, ...] = ()
    stages: tuple[Stage, ...] = ()
    series_id: int | None = None
    parent_id: int | None = None
    destination: str | None = None
    reasons: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    calling_ae: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    text: str | None = None


@dataclass(frozen=True)
class DeliveryFilter:
    """Which deliveries, one row per instance and destination. `text` is the beginning of a SOP Instance UID."""

    states: tuple[DeliveryState, ...] = ()
    destination: str | None = None
    job_id: int | None = None
    series_id: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class EventFilter:
    """Which lines of the trail. `name` is an event, or the beginning of one with a full stop: `job.`"""

    name: str | None = None
    series_id: int | None = None
    job_id: int | None = None
    association_id: int | None = None
    at_from: datetime | None = None
    at_before: datetime | None = None
