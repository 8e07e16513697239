"""Try routes on what is stored: on one series, or on all of the last days, to see what a draft gains and loses."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from config.explain import SeriesSummary
from config.names import RETURN_TO_SENDER
from config.rules import choose_route
from config.sections import Route
from config.settings import Settings
from dicom_node.desk.rules import ClauseCheck, check_each
from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.summary import summarise
from storage.filters import SeriesFilter
from storage.records import SeriesRecord
from storage.store import Store

_SHOWN = 200
_PAGE = 500
_TIME_S = 20.0
_KEPT = 20_000


@dataclass(frozen=True)
class DryRun:
    """How routes treat one series: the clause check of each, and the one that takes it."""

    series_id: int | None
    series_instance_uid: str
    modality: str
    slice_count: int
    taken_by: str | None
    action: str
    send_to: tuple[str, ...]
    checks: tuple[ClauseCheck, ...]


@dataclass(frozen=True)
class Change:
    """A series that a draft treats otherwise."""

    series_id: int
    modality: str
    calling_ae: str
    now: str | None
    then: str | None


@dataclass(frozen=True)
class Load:
    """What a set of routes would have asked of node and peers. Seconds from the median of recent jobs."""

    series: int = 0
    seconds: float | None = None
    instances: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Replay:
    """A draft beside the routes in force over the series of some days. `complete` is False when time ran out."""

    looked_at: int
    unreadable: int
    complete: bool
    gained: tuple[Change, ...]
    lost: tuple[Change, ...]
    changed: tuple[Change, ...]
    counts: Mapping[str, int]
    load_now: Load
    load_then: Load


class Summaries:
    """Summaries of stored series from two of their headers, kept for the next look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], SeriesSummary] = OrderedDict()

    def of(self, series: SeriesRecord) -> SeriesSummary:
        """The summary of a series. Raises `UnreadableInstanceError`."""
        key = (series.id, series.revision)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        paths = self._paths(series.id)
        if not paths:
            raise UnreadableInstanceError("The series has no stored instance.")
        headers = [read_header(path) for path in paths]
        summary = replace(
            summarise(headers, calling_ae=series.calling_ae, called_ae=series.called_ae),
            slice_count=series.instance_count,
        )
        with self._lock:
            self._kept[key] = summary
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return summary

    def _paths(self, series_id: int) -> list[Path]:
        """First and last file: what routes ask about hardly changes within a series."""
        ends = [
            self._store.listing.instances(series_id, limit=1, order=order).items
            for order in ("oldest", "newest")
        ]
        paths = [record.path for items in ends for record in items]
        return list(dict.fromkeys(paths))


def dry_run(settings: Settings, summary: SeriesSummary, *, uid: str, series_id: int | None) -> DryRun:
    """How these routes treat a series."""
    choice = choose_route(settings.routes, summary)
    return DryRun(
        series_id=series_id,
        series_instance_uid=uid,
        modality=summary.modality,
        slice_count=summary.slice_count,
        taken_by=choice.route.name if choice.route else None,
        action=choice.route.action if choice.route else "none",
        send_to=choice.route.send_to if choice.route else (),
        checks=tuple(check_each(settings.routes, summary)),
    )


def replay(
    store: Store,
    summaries: Summaries,
    now: Settings,
    then: Settings,
    *,
    since: datetime,
    seconds_of: Mapping[str, Sequence[float]],
) -> Replay:
    """Ask both sets of routes about every series received since then, newest first, for at most 20 seconds."""
    deadline = time.monotonic() + _TIME_S
    gained: list[Change] = []
    lost: list[Change] = []
    changed: list[Change] = []
    loads = (_LoadCount(seconds_of), _LoadCount(seconds_of))
    looked_at = unreadable = 0
    complete = True
    for series in _received_since(store, since):
        if time.monotonic() > deadline:
            complete = False
            break
        try:
            summary = summaries.of(series)
        except UnreadableInstanceError:
            unreadable += 1
            continue
        looked_at += 1
        routes = [choose_route(settings.routes, summary).route for settings in (now, then)]
        for load, route in zip(loads, routes, strict=True):
            load.add(route, series)
        _note(series, routes[0], routes[1], (gained, lost, changed))
    counts = {"gained": len(gained), "lost": len(lost), "changed": len(changed)}
    return Replay(
        looked_at,
        unreadable,
        complete,
        tuple(gained[:_SHOWN]),
        tuple(lost[:_SHOWN]),
        tuple(changed[:_SHOWN]),
        counts,
        loads[0].load(),
        loads[1].load(),
    )


def since_days(now: datetime, days: int) -> datetime:
    """The time so many days ago."""
    return now - timedelta(days=days)


def _received_since(store: Store, since: datetime) -> Iterator[SeriesRecord]:
    after: int | None = None
    while True:
        found = store.listing.series(SeriesFilter(received_from=since), after=after, limit=_PAGE)
        yield from found.items
        after = found.cursor
        if after is None:
            return


def _note(
    series: SeriesRecord,
    now: Route | None,
    then: Route | None,
    lists: tuple[list[Change], list[Change], list[Change]],
) -> None:
    before, after = _enhances(now), _enhances(then)
    names = (now.name if now else None, then.name if then else None)
    change = Change(series.id, series.modality, series.calling_ae, *names)
    if after and not before:
        lists[0].append(change)
    elif before and not after:
        lists[1].append(change)
    elif now != then:
        lists[2].append(change)


def _enhances(route: Route | None) -> bool:
    return route is not None and route.action == "enhance"


class _LoadCount:
    """Adds up what routes ask for."""

    def __init__(self, seconds_of: Mapping[str, Sequence[float]]) -> None:
        self._median = {modality: statistics.median(s) for modality, s in seconds_of.items() if s}
        self._series = 0
        self._seconds = 0.0
        self._instances: Counter[str] = Counter()

    def add(self, route: Route | None, series: SeriesRecord) -> None:
        if route is None or route.action != "enhance":
            return
        self._series += 1
        self._seconds += self._median.get(series.modality, 0.0)
        for destination in route.send_to:
            name = f"{series.calling_ae} (sender)" if destination == RETURN_TO_SENDER else destination
            self._instances[name] += series.instance_count

    def load(self) -> Load:
        return Load(self._series, round(self._seconds, 1) if self._median else None, dict(self._instances))
