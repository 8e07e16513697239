"""Numbers, times and codes as words for a person; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from storage.records import EventRecord

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SHORT = 18

# How a state looks: quiet, busy, good, wait or bad. The word always stands beside the colour.
TONES: Mapping[str, str] = {
    "RECEIVING": "busy", "STABLE": "good", "SKIPPED": "quiet", "HELD": "wait",
    "PENDING": "quiet", "RUNNING": "busy", "RETRY": "wait", "SUCCEEDED": "good", "FAILED": "bad", "CANCELED": "quiet",
    "DELIVERED": "good", "REFUSED": "bad",
}  # fmt: skip

EVENTS: Mapping[str, str] = {
    "association.opened": "A sender opened an association",
    "association.closed": "The association ended",
    "association.rejected": "An association was rejected",
    "instance.stored": "Images were stored",
    "instance.conflict": "An instance came again with another content",
    "instance.damaged": "A stored file was found damaged or gone",
    "instance.repaired": "The damaged file was sent again and is whole",
    "series.opened": "The first instance of the series arrived",
    "series.reopened": "A late or repaired instance opened the series again",
    "series.carried": "Instances came again that were stored already",
    "series.closed": "The series is complete",
    "series.skipped": "The series was left alone",
    "series.held": "The series was held for a person",
    "series.released": "A person released the series",
    "series.discarded": "A person discarded the series",
    "job.enqueued": "A job was queued",
    "job.claimed": "A worker took the job",
    "job.stage": "The job reached a stage",
    "job.note": "The attempt left a note",
    "job.retry": "The job will be tried again",
    "job.succeeded": "The job is done",
    "job.failed": "The job failed",
    "job.abandoned": "The worker went silent and the job was given up",
    "job.cancel_requested": "A person asked to cancel the job",
    "job.canceled": "The job was canceled",
    "job.resubmitted": "The job was submitted again",
    "manifest.committed": "The derived series was committed",
    "delivery.instance": "The destination answered for an instance",
    "delivery.retried": "A person asked to deliver again",
    "destination.held": "The destination is left in peace for a while",
    "destination.cleared": "The destination answers again",
    "instances.viewed": "A person looked at the images",
    "review.kept": "A reader gave a verdict",
    "routes.applied": "Routes were put in force",
    "peer.echoed": "A person asked the peer whether it is there",
}


def span(seconds: float | None) -> str:
    """A length of time, two units at most: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    rest = round(seconds)
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def ago(at: datetime | None, now: datetime) -> str:
    """How long since, or how long until."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def stamp(at: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "unknown"
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def short(uid: str | None) -> str:
    """The end of a UID, where UIDs differ."""
    text = uid or ""
    return text if len(text) <= _SHORT else f"…{text[-_SHORT:]}"


def percent(share: float | None) -> str:
    """A share from 0 to 1."""
    return "unknown" if share is None else f"{100 * share:.0f} %"


def figure(value: float | None, digits: int = 3) -> str:
    """A measured number, to so many significant digits."""
    return "not measured" if value is None else f"{value:.{digits}g}"


def tone(state: str) -> str:
    """How a state looks."""
    return TONES.get(str(state), "quiet")


def event_words(name: str) -> str:
    """What an event means; its name where there are no better words."""
    return EVENTS.get(name, name.replace(".", ": ").replace("_", " "))


def facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A JSON object as lines for a table, nested names joined with a colon."""
    return list(_flat("", data))


def measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """What an attempt measured, without what has a place of its own on the page."""
    return {
        key: value for key, value in result.items() if key not in ("guards", "enhancer", "volumes", "seconds")
    }


def folded(events: Sequence[EventRecord]) -> list[EventRecord]:
    """A trail in which each run of stored instances is one line: the last of them, with how many there were."""
    shown: list[EventRecord] = []
    count = 0
    for event in events:
        count = count + 1 if event.name == "instance.stored" else 0
        if count > 1:
            shown.pop()
        told = event if count == 0 else replace(event, data={"images": count})
        shown.append(told)
    return shown


def status_words(status: int | None) -> str:
    """A DIMSE status as people write it: four hexadecimal digits and an H (PS3.7 C)."""
    return "no answer" if status is None else f"{status:04X}H"


def success_rate(instances: Mapping[str, int]) -> float | None:
    """Delivered of all that were answered for; None while nothing was."""
    done, refused = instances.get("DELIVERED", 0), instances.get("REFUSED", 0)
    return done / (done + refused) if done + refused else None


def _flat(prefix: str, data: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in data.items():
        word = str(key).replace("_", " ")
        name = f"{prefix}: {word}" if prefix else word
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(_text(item) for item in value)
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "span": span, "ago": ago, "stamp": stamp, "bytes": size, "short": short, "percent": percent, "figure": figure,
    "tone": tone, "event": event_words, "facts": facts, "dimse": status_words, "measured": measured, "folded": folded,
    "success_rate": success_rate,
}  # fmt: skip
