"""A job as a line of steps, from the first instance to the last delivery, with what each took; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.records import EventRecord, JobRecord, SeriesRecord
from storage.states import JobKind, JobState, Stage

_ENHANCING = (Stage.READ, Stage.ENHANCE, Stage.GUARD, Stage.DERIVE, Stage.VERIFY, Stage.COMMIT)
_WORDS: Mapping[Stage, str] = {
    Stage.READ: "Read", Stage.ENHANCE: "Enhance", Stage.GUARD: "Guard", Stage.DERIVE: "Derive",
    Stage.VERIFY: "Verify", Stage.COMMIT: "Commit", Stage.SEND: "Send",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step. `state`: done, current, failed or open. `seconds` None where it was not measured."""

    name: str
    state: str
    seconds: float | None = None
    at: datetime | None = None


def steps(
    job: JobRecord, series: SeriesRecord, events: Sequence[EventRecord], children: Sequence[JobRecord]
) -> list[Step]:
    """The whole line of a job, oldest first."""
    received = (series.last_received_at - series.first_received_at).total_seconds()
    line = [
        Step("Receive", "done", received, series.first_received_at),
        Step(
            "Wait",
            "done",
            max(0.0, (job.created_at - series.last_received_at).total_seconds()),
            job.created_at,
        ),
    ]
    started = next((event.at for event in events if event.name == "job.claimed"), None)
    queued = None if started is None else (started - job.created_at).total_seconds()
    line.append(Step("Queue", "done" if started else "current", queued, started))
    wanted = _ENHANCING if job.kind is JobKind.ENHANCE else (Stage.SEND,)
    line += _stages(
        job, wanted, {event.data.get("stage"): event.at for event in events if event.name == "job.stage"}
    )
    return line + [_delivery(child) for child in children if child.kind is JobKind.DELIVER]


def _stages(job: JobRecord, wanted: Sequence[Stage], reached: Mapping[Any, datetime]) -> list[Step]:
    place = wanted.index(job.stage) if job.stage in wanted else -1
    times = [reached.get(stage.value) for stage in wanted]
    found = []
    for index, stage in enumerate(wanted):
        following = next((at for at in times[index + 1 :] if at is not None), job.finished_at)
        at = times[index]
        seconds = _measured(job, stage)
        if seconds is None and at is not None and following is not None and following >= at:
            seconds = (following - at).total_seconds()
        state = _state(job, index, place)
        found.append(Step(_WORDS[stage], state, seconds if state != "open" else None, at))
    return found


def _state(job: JobRecord, index: int, place: int) -> str:
    if job.state is JobState.SUCCEEDED or index < place:
        return "done"
    if index > place or job.state in (JobState.PENDING, JobState.CANCELED):
        return "open"
    return "failed" if job.state in (JobState.FAILED, JobState.RETRY) else "current"


def _measured(job: JobRecord, stage: Stage) -> float | None:
    seconds = job.result.get("seconds")
    value = seconds.get(stage.value) if isinstance(seconds, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _delivery(child: JobRecord) -> Step:
    words = {JobState.SUCCEEDED: "done", JobState.FAILED: "failed", JobState.RUNNING: "current"}
    seconds = None if child.finished_at is None else (child.finished_at - child.created_at).total_seconds()
    return Step(f"Deliver to {child.destination}", words.get(child.state, "open"), seconds, child.finished_at)
