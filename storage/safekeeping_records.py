"""What the store takes and hands out about requests to keep; frozen values, as in `records`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from storage.link_states import KeepState

Taken = Literal["taken", "repeated", "too many"]


@dataclass(frozen=True)
class NewKeepRequest:
    """A request as it came: (SOP class, SOP instance) for each instance the sender wants kept."""

    transaction_uid: str
    calling_ae: str
    called_ae: str
    instances: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeepTerms:
    """What a sender is promised.

    wait_for   how long instances that have not arrived are waited for
    keep_for   how long retention leaves alone what was promised; for good when None
    supported  SOP classes that can arrive at all
    """

    wait_for: timedelta
    keep_for: timedelta | None
    supported: Collection[str]


@dataclass(frozen=True)
class KeepRequestRecord:
    """One request; `failed` counts the instances that were not promised, `failures` the reports in vain."""

    id: int
    transaction_uid: str
    calling_ae: str
    called_ae: str
    state: KeepState
    instances: int
    failed: int
    failures: int
    received_at: datetime
    not_before: datetime
    judged_at: datetime | None
    reported_at: datetime | None
    message: str | None


@dataclass(frozen=True)
class Judgement:
    """What a sender is told: the pairs of `NewKeepRequest` that are promised, and the others with the reason."""

    promised: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class SentList:
    """What the lists of senders say of one series.

    listed    instances of it that a list names
    unlisted  instances of it that no list names
    missing   UIDs that a list names, that never arrived and that can belong to no other series of that list
    unplaced  how many more never arrived that may belong to it or to another
    """

    listed: int
    unlisted: int
    missing: tuple[str, ...]
    unplaced: int

    @property
    def proves(self) -> bool:
        """Whether the series is what its sender believes to have sent, neither more nor less."""
        return not (self.unlisted or self.missing or self.unplaced)
