"""Health for whoever keeps the node running, and figures over time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from config.names import is_loopback
from dicom_node.api.problems import ApiProblemError
from dicom_node.api.security import Anyone, DeskDep, Viewer, caller_of, peer_of
from dicom_node.desk.health import readiness

router = APIRouter(tags=["health"])


class LiveOut(BaseModel):
    """The web process answers."""

    live: bool


class ReadyOut(BaseModel):
    """Whether the node can take and keep images; each check with what is wrong."""

    ready: bool
    checks: dict[str, str]


class StatisticsOut(BaseModel):
    """Series received and jobs ended for each step of time; steps without any are left out."""

    since: datetime
    step_s: float
    steps: list[dict[str, Any]]


@router.get("/health/live")
def live(request: Request, _caller: Anyone) -> LiveOut:
    """Whether this process answers; open on loopback, behind a key elsewhere."""
    _admit(request)
    return LiveOut(live=True)


@router.get("/health/ready")
def ready(request: Request, response: Response, desk: DeskDep, _caller: Anyone) -> ReadyOut:
    """Whether the node can take and keep images: 200, or 503 with what is wrong."""
    _admit(request)
    checks = readiness(desk)
    fine = all(found == "ok" for found in checks.values())
    if not fine:
        response.status_code = 503
    return ReadyOut(ready=fine, checks=checks)


@router.get("/statistics")
def statistics(
    desk: DeskDep, _caller: Viewer, hours: Annotated[int, Query(ge=1, le=24 * 92)] = 24
) -> StatisticsOut:
    """Throughput over the last hours, in at most 96 steps."""
    step = max(timedelta(minutes=15), timedelta(hours=hours) / 96)
    since = desk.now() - timedelta(hours=hours)
    return StatisticsOut(
        since=since,
        step_s=step.total_seconds(),
        steps=desk.store.statistics.throughput(since, step),
    )


def _admit(request: Request) -> None:
    """Refuse a stranger from afar: the state of the node is nobody's business."""
    if is_loopback(peer_of(request)):
        return
    caller = caller_of(request)
    if caller is None or not (caller.may_read_metrics or caller.role is not None):
        raise ApiProblemError(401, "not-signed-in", "From another machine this needs a key.")
