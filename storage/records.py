"""What the store hands out: frozen values, no rows, no sessions, no demographics.

Every datetime is aware UTC, every path is absolute. `Mapping` fields are JSON objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from storage.link_states import CircuitState, Promise
from storage.states import DeliveryState, JobKind, JobState, LatePolicy, SeriesState, Stage

Json = Mapping[str, Any]
Ending = Literal["released", "aborted", "lost"]
Outcome = Literal["stored", "duplicate", "conflict", "repaired"]


@dataclass(frozen=True)
class AssociationRecord:
    """One association with a sender; `ending` is None while it is open."""

    id: int
    calling_ae: str
    called_ae: str
    peer_host: str
    run_id: str
    opened_at: datetime
    ended_at: datetime | None
    ending: Ending | None


@dataclass(frozen=True)
class SeriesRecord:
    """A received series.

    `generation` counts how often it was opened, from 1; `revision` grows with every change to what it holds.
    `interrupted`: the last association that carried it ended other than by release.
    `released`: a person decided that this generation goes on in spite of its evidence.
    `completeness`: by what it was judged to be complete: commitment, query, count, geometry or quiet.
    `late`: this generation was opened after the derived series of an earlier one existed; `late_policy` says what
    that means. `purged_at`: its instances were deleted by retention.
    """

    id: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    calling_ae: str
    called_ae: str
    state: SeriesState
    generation: int
    revision: int
    instance_count: int
    interrupted: bool
    released: bool
    reason: str | None
    message: str | None
    route: str | None
    evidence: Json
    first_received_at: datetime
    last_received_at: datetime
    closed_at: datetime | None
    completeness: str | None = None
    late_policy: LatePolicy | None = None
    late: bool = False
    purged_at: datetime | None = None


@dataclass(frozen=True)
class InstanceRecord:
    """One stored SOP instance; `digest` is SHA-256 over the encoded data set, `size` is of the whole file.

    `semantic_digest` is over what the object means, whatever its transfer syntax; known only where a conflict made
    somebody ask. `damaged`: the file does not have the digest any more. A `generation` above that of the series:
    the instance came late and is no part of it.
    """

    id: int
    series_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    path: Path
    size: int
    generation: int
    conflict: bool
    received_at: datetime
    association_id: int | None
    semantic_digest: str | None = None
    damaged: bool = False
    checked_at: datetime | None = None


@dataclass(frozen=True)
class NewInstance:
    """An instance whose file is committed to the spool already and now gets its row."""

    study_uid: str
    series_uid: str
    modality: str
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    digest: str
    path: Path
    size: int
    association_id: int | None
    calling_ae: str
    called_ae: str


@dataclass(frozen=True)
class AddResult:
    """What became of a new instance.

    duplicate  `instance` is the earlier one: drop the new file
    repaired   `instance` is the earlier one, whose file was damaged: the new file is in its place
    """

    outcome: Outcome
    instance: InstanceRecord
    series: SeriesRecord


@dataclass(frozen=True)
class JobRecord:
    """A job as it was when read. `token` is the fencing token of the latest claim."""

    id: int
    kind: JobKind
    key: str
    series_id: int
    generation: int
    state: JobState
    stage: Stage | None
    attempts: int
    priority: int
    not_before: datetime
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    claimed_by: str | None
    lease_expires_at: datetime | None
    token: int
    cancel_requested: bool
    reason: str | None
    message: str | None
    destination: str | None
    parent_id: int | None
    spec: Json
    result: Json


@dataclass(frozen=True)
class NewJob:
    """An ENHANCE job to be. `key` is unique for ever: the UIDs of the derived series hang on it."""

    key: str
    spec: Json = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True)
class HeartbeatResult:
    """`alive` is False when the claim is lost: stop and drop the work. No lease is extended then."""

    alive: bool
    cancel_requested: bool


@dataclass(frozen=True)
class DerivedRecord:
    """One derived instance of a committed manifest; `digest` is SHA-256 over the whole file.

    `purged_at`: the file was deleted by retention; the row stays, because the UID stays taken.
    """

    id: int
    job_id: int
    series_id: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    digest: str
    size: int
    position: int
    damaged: bool = False
    checked_at: datetime | None = None
    purged_at: datetime | None = None


@dataclass(frozen=True)
class NewDerived:
    """A derived instance whose file is durable and checked, about to enter a manifest."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    digest: str
    size: int
    position: int


@dataclass(frozen=True)
class NewDeliveryJob:
    """A DELIVER job to be: the whole manifest to one destination."""

    destination: str
    spec: Json = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveryRecord:
    """One derived or received instance at one destination; `status` is the last DIMSE status answered (PS3.4 B.2.3).

    `commitment` is None where the destination is not asked to keep it; `commitment_reason` is the Failure Reason
    (0008,1197) of one that does not.
    """

    id: int
    job_id: int
    derived_id: int | None
    instance_id: int | None
    sop_instance_uid: str
    destination: str
    state: DeliveryState
    status: int | None
    comment: str
    attempts: int
    updated_at: datetime
    commitment: Promise | None = None
    commitment_reason: int | None = None
    committed_at: datetime | None = None


@dataclass(frozen=True)
class DestinationStatus:
    """How a destination has behaved; claims for it wait until `not_before`, and for a closed circuit.

    `since` is when the circuit last changed. `bytes_per_s` and `answer_s` are running means of what was measured.
    """

    name: str
    failures: int
    not_before: datetime | None
    last_error: str | None
    circuit: CircuitState = CircuitState.CLOSED
    since: datetime | None = None
    bytes_per_s: float | None = None
    answer_s: float | None = None


@dataclass(frozen=True)
class EventRecord:
    """One line of the trail."""

    id: int
    at: datetime
    name: str
    series_id: int | None
    job_id: int | None
    association_id: int | None
    data: Json


@dataclass(frozen=True)
class AlarmRecord:
    """Something a person has to know. `count`: how often it was raised since `raised_at`."""

    code: str
    subject: str
    raised_at: datetime
    seen_at: datetime
    count: int
    data: Json
