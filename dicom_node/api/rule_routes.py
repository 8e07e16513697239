"""Routes: read, validate, try on stored series, apply, roll back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from config.settings import Settings
from dicom_node.api import schemas as out
from dicom_node.api.act_routes import In
from dicom_node.api.idempotency import WriteRoute
from dicom_node.api.read_routes import LARGEST_ID
from dicom_node.api.security import Admin, DeskDep, Operator, Viewer
from dicom_node.desk import replay
from storage.route_versions import RouteVersion

router = APIRouter(prefix="/rules", tags=["routes"], route_class=WriteRoute)

RulesText = Annotated[str, Field(min_length=1, max_length=200_000)]
Number = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Comment = Annotated[str, Field(max_length=500)]


class _Shape(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class VersionOut(_Shape):
    """One applied version; `text` null means: as in the configuration file."""

    id: int
    author: str
    comment: str
    restored_from: int | None
    created_at: datetime
    from_file: bool
    text: str | None = None


class RulesOut(BaseModel):
    """The routes in force; `version` null while only the file counts."""

    version: int | None
    text: str
    routes: list[out.RouteOut]


class DraftIn(In):
    """A draft."""

    text: RulesText


class DryRunIn(In):
    """A draft, or with null the routes in force, for one stored series."""

    series_id: Number
    text: RulesText | None = None


class ReplayIn(In):
    """A draft for all series of the last days."""

    text: RulesText
    days: Annotated[int, Field(ge=1, le=366)] = 7


class ApplyIn(In):
    """A draft to be put in force; `expected` is the version its author looked at."""

    text: RulesText
    comment: Comment = ""
    expected: Number | None = None


class RestoreIn(In):
    """An earlier version, or with null the file, to be put in force again."""

    version: Number | None
    comment: Comment = ""
    expected: Number | None = None


class ClauseOut(_Shape):
    """One route asked about one series."""

    route: str
    when: str
    matched: bool
    failed_clause: str


class DryRunOut(_Shape):
    """How routes treat one series."""

    series_id: int | None
    series_instance_uid: str
    modality: str
    slice_count: int
    taken_by: str | None
    action: str
    send_to: list[str]
    checks: list[ClauseOut]


class ChangeOut(_Shape):
    """A series that a draft treats otherwise: its route now, and then."""

    series_id: int
    modality: str
    calling_ae: str
    now: str | None
    then: str | None


class LoadOut(_Shape):
    """What routes ask for: enhancements, their seconds, instances to each peer."""

    series: int
    seconds: float | None
    instances: dict[str, int]


class ReplayOut(_Shape):
    """A draft beside the routes in force; lists hold 200 series at most, `counts` all of them."""

    looked_at: int
    unreadable: int
    complete: bool
    gained: list[ChangeOut]
    lost: list[ChangeOut]
    changed: list[ChangeOut]
    counts: dict[str, int]
    load_now: LoadOut
    load_then: LoadOut


@router.get("")
def rules(desk: DeskDep, _caller: Viewer) -> RulesOut:
    """The routes in force, as text and in plain words."""
    version = desk.rules.version()
    return RulesOut(
        version=version.id if version else None,
        text=desk.rules.text(),
        routes=_routes(desk.rules.settings()),
    )


@router.post("/validate")
def validate(desk: DeskDep, _caller: Operator, asked: DraftIn) -> list[out.RouteOut]:
    """Read a draft: its routes in plain words, or a problem with every mistake and its line."""
    return _routes(desk.rules.draft(asked.text))


@router.post("/dry-run")
def dry_run(desk: DeskDep, _caller: Operator, asked: DryRunIn) -> DryRunOut:
    """How a draft, or the routes in force, would treat a stored series."""
    settings = desk.rules.draft(asked.text) if asked.text is not None else desk.rules.settings()
    series = desk.store.index.get_series(asked.series_id)
    found = replay.dry_run(
        settings, desk.summaries.of(series), uid=series.series_instance_uid, series_id=series.id
    )
    return DryRunOut.model_validate(found)


@router.post("/replay")
def replay_draft(desk: DeskDep, _caller: Operator, asked: ReplayIn) -> ReplayOut:
    """What a draft would have gained and lost over the last days, and its load. Takes up to 20 seconds."""
    found = replay.replay(
        desk.store,
        desk.summaries,
        desk.rules.settings(),
        desk.rules.draft(asked.text),
        since=replay.since_days(desk.now(), asked.days),
        seconds_of=desk.figures.overview().figures.recent_seconds,
    )
    return ReplayOut.model_validate(found)


@router.post("/apply", status_code=201)
def apply(desk: DeskDep, caller: Admin, asked: ApplyIn) -> VersionOut:
    """Put a draft in force, at once and for every series that is not closed yet."""
    version = desk.rules.apply(
        asked.text, author=caller.actor, comment=asked.comment, expected=asked.expected
    )
    return _version(version)


@router.post("/restore", status_code=201)
def restore(desk: DeskDep, caller: Admin, asked: RestoreIn) -> VersionOut:
    """Put an earlier version, or the file, in force again; this makes a new version."""
    version = desk.rules.restore(
        asked.version, author=caller.actor, comment=asked.comment, expected=asked.expected
    )
    return _version(version)


@router.get("/versions")
def versions(desk: DeskDep, _caller: Viewer) -> list[VersionOut]:
    """Every applied version, newest first, with its text, author and time."""
    return [_version(version) for version in desk.store.route_versions.list()]


def _routes(settings: Settings) -> list[out.RouteOut]:
    return [out.route_out(position, route) for position, route in enumerate(settings.routes, 1)]


def _version(version: RouteVersion) -> VersionOut:
    return VersionOut(
        id=version.id,
        author=version.author,
        comment=version.comment,
        restored_from=version.restored_from,
        created_at=version.created_at,
        from_file=version.text is None,
        text=version.text,
    )
