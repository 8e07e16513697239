"""What becomes of a complete series: enhanced, skipped or held, with the evidence for it.

Decided from the headers of the stored instances and the configured routes. Reads files, writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from config.names import RETURN_TO_SENDER
from config.rules import RouteChoice, choose_route
from config.sections import Route
from config.settings import Settings
from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError, UnreadableInstanceError
from dicom_node.imaging.eligibility import AssemblyPolicy
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.series import judge_series, read_headers_of
from dicom_node.imaging.summary import summarise
from storage.index import ClosingEvent
from storage.records import InstanceRecord, NewJob, SeriesRecord
from storage.safekeeping_records import SentList
from storage.states import SeriesEvent

_CONFLICTS_SHOWN: Final = 20
_MISSING_SHOWN: Final = 20
_LIMITS: Final = frozenset({"most_slices", "most_voxels"})
# From the weakest to the strongest; only the last three can say that nothing is missing at the ends.
LADDER: Final = ("quiet", "geometry", "count", "query", "commitment")


@dataclass(frozen=True)
class Closing:
    """How a series is closed: the event, why, on which route, on what evidence, and the job if there is one."""

    event: ClosingEvent
    reason: Reason | None = None
    message: str | None = None
    route: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    job: NewJob | None = None
    completeness: str | None = None
    late_policy: str | None = None


@dataclass(frozen=True)
class SourceCount:
    """What the source said about the series: `count` None when it said nothing useful; `problem` says why."""

    count: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Assessment:
    """A series looked at once: its copies in use, their headers, and the route that takes it.

    `problem` is set when the series is held or skipped before any route is asked.
    """

    instances: tuple[InstanceRecord, ...]
    headers: tuple[InstanceHeader, ...] = ()
    choice: RouteChoice = field(default_factory=lambda: RouteChoice(None))
    problem: HoldSeriesError | SkipSeriesError | None = None


def assess(
    series: SeriesRecord, instances: Sequence[InstanceRecord], settings: Settings, *, is_own_output: bool
) -> Assessment:
    """Read the headers of a series and choose its route. A series of ours that came back is left alone."""
    first = first_copies(copy for copy in instances if copy.generation <= series.generation)
    if is_own_output:
        return Assessment(first, problem=SkipSeriesError(Reason.ALREADY_PROCESSED))
    if damaged := sum(copy.damaged for copy in first):
        problem = HoldSeriesError(Reason.SOURCE_CHANGED, f"{damaged} files.", {"damaged": damaged})
        return Assessment(first, problem=problem)
    conflicts = sorted({copy.sop_instance_uid for copy in instances if copy.conflict})
    if conflicts and not series.released:
        found = {"conflicting_sop_instance_uids": conflicts[:_CONFLICTS_SHOWN], "conflicts": len(conflicts)}
        return Assessment(
            first, problem=HoldSeriesError(Reason.UID_CONFLICT, f"{len(conflicts)} UIDs.", found)
        )
    try:
        headers = read_headers_of([copy.path for copy in first])
    except UnreadableInstanceError as exc:
        return Assessment(first, problem=HoldSeriesError(Reason.UNREADABLE, exc.detail))
    summary = summarise(headers, calling_ae=series.calling_ae, called_ae=series.called_ae)
    return Assessment(first, headers, choose_route(settings.routes, summary))


def first_copies(instances: Iterable[InstanceRecord]) -> tuple[InstanceRecord, ...]:
    """The copy kept first of each SOP instance, in the order of their UIDs."""
    kept: dict[str, InstanceRecord] = {}
    for copy in sorted(instances, key=lambda record: record.id):
        kept.setdefault(copy.sop_instance_uid, copy)
    return tuple(kept[uid] for uid in sorted(kept))


def conclude(
    series: SeriesRecord,
    assessment: Assessment,
    settings: Settings,
    source: SourceCount | None = None,
    sent: SentList | None = None,
) -> Closing:
    """Decide what becomes of an assessed series.

    `source` is what the route's `count_from` answered, `sent` what its sender listed as sent.
    """
    route = assessment.choice.route
    evidence = _route_evidence(assessment.choice)
    if assessment.problem is not None:
        held = isinstance(assessment.problem, HoldSeriesError)
        return _closing(SeriesEvent.HOLD if held else SeriesEvent.SKIP, assessment.problem, None, evidence)
    if route is None or route.action == "ignore":
        return _no_business(route, evidence)
    try:
        found = _examine(series, assessment, route, settings, source, sent=sent)
    except SkipSeriesError as exc:
        return _closing(SeriesEvent.SKIP, exc, route, evidence)
    except HoldSeriesError as exc:
        return _closing(SeriesEvent.HOLD, exc, route, evidence)
    policy = late_policy(route, settings)
    level = str(found["level"])
    if problem := _unproven(series, route, level, policy):
        return _closing(SeriesEvent.HOLD, problem, route, {**evidence, **found})
    job = _job(series, assessment.instances, route, settings)
    return Closing(
        SeriesEvent.CLOSE,
        route=route.name,
        evidence={**evidence, **found},
        job=job,
        completeness=level,
        late_policy=policy,
    )


def _no_business(route: Route | None, evidence: Mapping[str, Any]) -> Closing:
    """The closing of a series that no route takes, or that one takes to ignore it."""
    reason = Reason.NO_ROUTE if route is None else Reason.ROUTE_IGNORES
    return Closing(SeriesEvent.SKIP, reason, reason.sentence, None if route is None else route.name, evidence)


def late_policy(route: Route, settings: Settings) -> str:
    """What an instance does on this route that arrives after the derived series exists."""
    return route.late_instances or settings.completion.late_instances


def _examine(
    series: SeriesRecord,
    assessment: Assessment,
    route: Route,
    settings: Settings,
    source: SourceCount | None,
    *,
    sent: SentList | None,
) -> dict[str, Any]:
    """The evidence that the series is eligible and complete; raises when it is not."""
    policy = AssemblyPolicy(**_assembly(series, route, settings))
    try:
        found = judge_series(assessment.headers, policy).evidence.as_json()
    except HoldSeriesError:
        # The sender knows what is missing; the slices show only that something is.
        _list_evidence(series, sent)
        raise
    listed = _list_evidence(series, sent)
    return {**found, **_source_evidence(series, assessment, source), **listed}


def _list_evidence(series: SeriesRecord, sent: SentList | None) -> dict[str, Any]:
    """What the sender's list adds; raises when instances on it have not arrived."""
    if sent is None:
        return {}
    told: dict[str, Any] = {
        "listed": sent.listed,
        "not_listed": sent.unlisted,
        "listed_missing": len(sent.missing),
        "listed_unplaced": sent.unplaced,
    }
    if sent.missing and not series.released:
        total = sent.listed + len(sent.missing)
        detail = f"{len(sent.missing)} of {total} instances that the sender listed have not arrived."
        named = {"missing_sop_instance_uids": list(sent.missing[:_MISSING_SHOWN])}
        raise HoldSeriesError(Reason.LISTED_MISSING, detail, {**told, **named, "level": "commitment"})
    return {**told, "level": "commitment"} if sent.proves else told


def _source_evidence(
    series: SeriesRecord, assessment: Assessment, source: SourceCount | None
) -> dict[str, Any]:
    """What the source's count adds; raises when the source has more instances than arrived."""
    if source is None:
        return {}
    told = {"source_count": source.count, "source_problem": source.problem}
    if source.count is None:
        return told
    have = len(assessment.instances)
    if have < source.count:
        if series.released:
            return told
        detail = f"{have} of {source.count} instances arrived, says the source."
        raise HoldSeriesError(Reason.MISSING_SLICE, detail, {**told, "level": "query", "found": have})
    return {**told, "level": "query"}


def _unproven(series: SeriesRecord, route: Route, level: str, policy: str) -> HoldSeriesError | None:
    """Why the series is held in spite of its images: a person has not yet decided, and the proof is too weak."""
    if series.released:
        return None
    if series.late and policy == "hold":
        return HoldSeriesError(Reason.LATE_INSTANCE)
    strength = LADDER.index(level)
    # Time alone never completes what a sender broke off; the geometry cannot see what is missing at the ends.
    if series.interrupted and strength < LADDER.index("count"):
        return HoldSeriesError(Reason.INTERRUPTED)
    if strength < LADDER.index(route.completeness):
        return HoldSeriesError(Reason.UNPROVEN, f"It is {level}, not {route.completeness}.")
    return None


def _closing(
    event: ClosingEvent,
    error: SkipSeriesError | HoldSeriesError,
    route: Route | None,
    evidence: Mapping[str, Any],
) -> Closing:
    """A closing that says why nothing is enhanced."""
    name = route.name if route is not None else None
    return Closing(event, error.reason, error.message, name, {**evidence, **error.evidence})


def _route_evidence(choice: RouteChoice) -> dict[str, Any]:
    """Which routes did not take the series, each with the clause that failed."""
    return {"rejected_routes": [{"route": name, "clause": clause} for name, clause in choice.rejected]}


def _job(
    series: SeriesRecord, instances: Sequence[InstanceRecord], route: Route, settings: Settings
) -> NewJob:
    """The ENHANCE job with everything it needs, fixed now: later configuration does not change it."""
    own = route.enhancement
    spec: dict[str, Any] = {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "calling_ae": series.calling_ae,
        "called_ae": series.called_ae,
        "source": [
            {"path": str(copy.path), "sop_instance_uid": copy.sop_instance_uid, "digest": copy.digest}
            for copy in instances
        ],
        "route": route.model_dump(mode="json", by_alias=True),
        "enhancer": own.enhancer or settings.enhancement.enhancer,
        "strength": settings.enhancement.strength if own.strength is None else own.strength,
        "options": dict(own.options),
        "assembly": _assembly(series, route, settings),
        "companions": route.companions.model_dump(mode="json"),
        "derivation": route.derivation.over(settings.derivation).model_dump(mode="json"),
        "destinations": _destinations(series, route, settings),
    }
    return NewJob(key=_job_key(spec), spec=spec, priority=route.priority)


def _assembly(series: SeriesRecord, route: Route, settings: Settings) -> dict[str, Any]:
    """What may be assembled of a series on this route; a person's release overrules missing and double slices."""
    policy = route.assembly.over(settings.assembly).model_dump(mode="json")
    # A node one version back, which may have to go on with the job, does not know the limits.
    usual = {name for name in _LIMITS if policy[name] == getattr(AssemblyPolicy, name)}
    return {
        **{name: value for name, value in policy.items() if name not in usual},
        "minimum_slices": route.minimum_slices,
        "allow_lossy": route.allow_lossy,
        "released": series.released,
    }


def _job_key(spec: Mapping[str, Any]) -> str:
    """SHA-256 over what the derived series depends on: content, route and enhancement.

    Not over paths, titles or destinations: the same content by the same rule is one derived series.
    """
    content = sorted((copy["sop_instance_uid"], copy["digest"]) for copy in spec["source"])
    parts = ("study_instance_uid", "series_instance_uid", "route", "enhancer", "strength", "options")
    # Who looked at the series, and how large it may be, changes nothing about what is made of the same content.
    assembly = {k: v for k, v in spec["assembly"].items() if k != "released" and k not in _LIMITS}
    rule = {name: spec[name] for name in parts} | {"assembly": assembly}
    text = json.dumps([content, rule], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _destinations(series: SeriesRecord, route: Route, settings: Settings) -> list[str]:
    """Peer names without repetition; a sender that is no peer stays literal, and its delivery says so."""
    names = []
    for name in route.send_to:
        peer = settings.return_peer(series.calling_ae) if name == RETURN_TO_SENDER else None
        names.append(peer.name if peer is not None else name)
    return list(dict.fromkeys(names))
