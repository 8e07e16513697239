"""The answers of one delivery attempt: committed in batches, and counted for what is decided after them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from dicom_node.errors import Reason
from dicom_node.sinks.dimse import Answer
from dicom_node.sinks.outcome import Verdict, is_warning
from storage.delivery_records import NewAnswer
from storage.records import JobRecord
from storage.states import DeliveryState
from storage.store import Store

# A commit is a sync of the disk: one for each instance would be slower than most destinations.
_MOST: Final = 64
_LONGEST_S: Final = 0.25
_STATES: Final = {
    Verdict.DELIVERED: DeliveryState.DELIVERED,
    Verdict.REFUSED: DeliveryState.REFUSED,
    Verdict.BUSY: DeliveryState.PENDING,
    Verdict.LATER: DeliveryState.PENDING,
    Verdict.PAUSE: DeliveryState.PENDING,
}


class AnswerBook:
    """Keeps the answers of one attempt. What a crash takes from it was answered and is sent again."""

    def __init__(
        self,
        store: Store,
        job: JobRecord,
        *,
        ask_to_keep: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._job = job
        self._ask_to_keep = ask_to_keep
        self._monotonic = monotonic
        self._waiting: list[NewAnswer] = []
        self._written = monotonic()
        self.verdicts: Counter[Verdict] = Counter()
        self.warnings = 0
        self.reasons: Counter[Reason] = Counter()
        self.worst = ""

    def add(self, answer: Answer) -> None:
        """Take one answer. Raises `LostClaimError` when the job is no longer ours."""
        self.verdicts[answer.verdict] += 1
        self.warnings += answer.status is not None and is_warning(answer.status)
        if answer.reason is not None:
            self.reasons[answer.reason] += 1
        if answer.verdict is not Verdict.DELIVERED:
            self.worst = f"Last status 0x{answer.status:04X}." if answer.status is not None else ""
        state = _STATES[answer.verdict]
        self._waiting.append(
            NewAnswer(
                answer.delivery_id,
                state,
                answer.status,
                answer.comment,
                ask_to_keep=self._ask_to_keep and state is DeliveryState.DELIVERED,
            )
        )
        if len(self._waiting) >= _MOST or self._monotonic() - self._written >= _LONGEST_S:
            self.write()

    def write(self) -> None:
        """Commit what has not been committed yet."""
        answers, self._waiting = self._waiting, []
        self._store.deliveries.record(self._job, answers)
        self._written = self._monotonic()
