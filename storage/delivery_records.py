"""What the store hands out about things on their way to a destination; frozen values, as in `records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from storage.link_states import CommitmentState
from storage.states import DeliveryState

DigestScope = Literal["file", "data set"]


@dataclass(frozen=True)
class StoredObject:
    """One stored file that is to be sent: derived by us, or received. `digest` is SHA-256 over `digest_scope`."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    digest_scope: DigestScope
    size: int
    position: int


@dataclass(frozen=True)
class NewAnswer:
    """What a destination answered for one instance, about to be recorded.

    DELIVERED and REFUSED are final; PENDING means tried without a final answer. `status` is the DIMSE status
    (PS3.4 B.2.3), None when none came. `ask_to_keep`: storage commitment is to be asked for.
    """

    delivery_id: int
    state: DeliveryState
    status: int | None = None
    comment: str = ""
    ask_to_keep: bool = False


@dataclass(frozen=True)
class CommitmentRecord:
    """One request for storage commitment. `ask` counts the requests for this delivery job, from 1."""

    id: int
    transaction_uid: str
    job_id: int
    series_id: int
    destination: str
    state: CommitmentState
    ask: int
    instances: int
    committed: int
    failed: int
    created_at: datetime
    asked_at: datetime | None
    not_before: datetime
    answered_at: datetime | None
    message: str | None


@dataclass(frozen=True)
class CommitmentRequest:
    """A request that is to go out now, with the (SOP class, SOP instance) pairs it is about."""

    record: CommitmentRecord
    instances: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CommitmentReport:
    """What a destination reports (PS3.4 J.3.3): instances it keeps, and those it does not with Failure Reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CommitmentOutcome:
    """What a report changed: instances committed, sent again, and given up."""

    record: CommitmentRecord
    committed: int
    sent_again: int
    given_up: int
