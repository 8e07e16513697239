"""What happened to it? Any UID or accession number, followed from association to delivery.

Accession numbers are read from stored objects on demand and kept as hashes under a key that lies beside the database,
so that a copy of the database alone tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_node.desk.replay import Summaries
from dicom_node.desk.rules import ClauseCheck, RouteBook, check_each
from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.elements import decoded_text
from dicom_node.imaging.parsing import read_dataset
from dicom_node.observability import events
from dicom_node.operations import Operations, SeriesStory
from storage.filters import EventFilter
from storage.finding import Found
from storage.records import AssociationRecord, EventRecord
from storage.store import Store

KEY_FILE = "label-key"
_BATCH = 200
_LOOK_S = 5.0
_MOST = 20


@dataclass(frozen=True)
class Answer:
    """One series that the question is about: how it was found and all that happened to it."""

    by: str
    story: SeriesStory
    associations: tuple[AssociationRecord, ...]
    checks: tuple[ClauseCheck, ...]
    taken_by: str | None


@dataclass(frozen=True)
class WhyNot:
    """The answers. Without any, `rejected` holds the latest refusals at the door, where it may have ended.

    `not_looked_at` counts series whose accession number is not known yet; asking again goes on.
    """

    answers: tuple[Answer, ...]
    rejected: tuple[EventRecord, ...]
    not_looked_at: int


class WhyNotSearch:
    """Answers questions over one store."""

    def __init__(
        self, store: Store, operations: Operations, rules: RouteBook, summaries: Summaries, directory: Path
    ) -> None:
        self._store = store
        self._operations = operations
        self._rules = rules
        self._summaries = summaries
        self._directory = directory

    def ask(self, text: str) -> WhyNot:
        """Everything about the UID, or else the accession number, given."""
        asked = text.strip()
        found = self._store.finder.by_uid(asked)
        left = 0
        if not found:
            left = self._label(time.monotonic() + _LOOK_S)
            found = self._store.finder.by_accession(self._hash(asked))
        answers = tuple(self._answer(item) for item in found[:_MOST])
        wanted = EventFilter(name=events.ASSOCIATION_REJECTED)
        rejected = () if answers else self._store.listing.events(wanted, limit=_MOST).items
        return WhyNot(answers, tuple(rejected), left)

    def _answer(self, found: Found) -> Answer:
        story = self._operations.series_story(str(found.series_id))
        checks: Iterable[ClauseCheck] = ()
        with suppress(UnreadableInstanceError):
            checks = check_each(self._rules.settings().routes, self._summaries.of(story.series))
        checks = tuple(checks)
        taken = next((check.route for check in checks if check.matched), None)
        associations = tuple(self._store.finder.associations(found.series_id))
        return Answer(found.by, story, associations, checks, taken)

    def _label(self, deadline: float) -> int:
        """Hash the accession numbers of series that have no label yet; how many are left when time is up."""
        while numbers := self._store.finder.unlabelled(_BATCH):
            hashes: dict[int, str | None] = {}
            for number in numbers:
                if time.monotonic() > deadline:
                    break
                hashes[number] = self._accession_hash(number)
            self._store.finder.label(hashes)
            if len(hashes) < len(numbers):
                return len(self._store.finder.unlabelled(100_000))
        return 0

    def _accession_hash(self, series_id: int) -> str | None:
        for record in self._store.listing.instances(series_id, limit=1).items:
            with suppress(UnreadableInstanceError):
                number = decoded_text(read_dataset(record.path, pixels=False), "AccessionNumber").strip()
                return self._hash(number) if number else None
        return None

    def _hash(self, text: str) -> str:
        return hmac.new(self._key(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        """The key, made at its first use, readable by the node's user alone."""
        path = self._directory / KEY_FILE
        with suppress(FileExistsError):
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
        return path.read_bytes()
