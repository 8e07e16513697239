"""Metrics for Prometheus, and alerts: what is wrong now, and a test of the channels."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from dicom_node.api.problems import ApiProblemError
from dicom_node.api.security import Admin, Anyone, DeskDep, Viewer, caller_of
from dicom_node.desk import alerts
from dicom_node.desk.metrics import CONTENT_TYPE

router = APIRouter(tags=["watching"])


class AlertOut(BaseModel):
    """One trouble that lasts."""

    key: str
    kind: str
    since: datetime
    told_at: datetime | None
    text: str


class ToldOut(BaseModel):
    """Whether a channel took the test message."""

    channel: str
    error: str | None


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request, _caller: Anyone) -> Response:
    """Metrics in the text format of Prometheus; for a key with the scope `metrics`, or anyone signed in."""
    caller = caller_of(request)
    if caller is None:
        raise ApiProblemError(
            401, "not-signed-in", "Metrics need a key.", headers={"WWW-Authenticate": "Bearer"}
        )
    if not caller.may_read_metrics:
        raise ApiProblemError(403, "not-allowed", "This key is not for metrics.")
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)


@router.get("/alerts")
def lasting_alerts(desk: DeskDep, _caller: Viewer) -> list[AlertOut]:
    """What is wrong now, oldest first."""
    return [
        AlertOut(
            key=alert.key,
            kind=alert.kind,
            since=alert.since,
            told_at=alert.last_sent_at,
            text=alerts.sentence(alert),
        )
        for alert in desk.store.alerts.lasting()
    ]


@router.post("/alerts/test")
def test_alerts(desk: DeskDep, caller: Admin) -> list[ToldOut]:
    """Send a test message through every channel."""
    desk.store.trail.append("alerts.tested", data={"actor": caller.actor})
    return [ToldOut(channel=told.channel, error=told.error) for told in desk.watch.test()]
