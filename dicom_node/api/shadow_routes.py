"""Shadow models: begin a trial, see both models side by side, promote or drop in one act."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.api.act_routes import In
from dicom_node.api.idempotency import WriteRoute
from dicom_node.api.read_routes import Id
from dicom_node.api.security import Admin, DeskDep, Viewer
from dicom_node.desk import shadow

router = APIRouter(prefix="/shadow", tags=["shadow"], route_class=WriteRoute)


class _Shape(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TrialIn(In):
    """The enhancer to be tried."""

    enhancer: Annotated[str, Field(min_length=1, max_length=128)]


class DecisionIn(In):
    """The decision."""

    decision: shadow.Decision


class TrialOut(_Shape):
    """One trial."""

    id: int
    enhancer: str
    state: str
    started_by: str
    started_at: datetime
    decided_by: str | None
    decided_at: datetime | None


class ResultOut(_Shape):
    """Both models on one input."""

    job_id: int
    primary: dict[str, Any]
    shadow: dict[str, Any]
    created_at: datetime


class ComparisonOut(_Shape):
    """A trial so far: medians of both models over the inputs both managed, and each input."""

    trial: TrialOut
    inputs: int
    failed: int
    primary: dict[str, float]
    shadow: dict[str, float]
    results: list[ResultOut]


@router.get("/trials")
def trials(desk: DeskDep, _caller: Viewer) -> list[TrialOut]:
    """Trials, newest first."""
    return [TrialOut.model_validate(trial) for trial in desk.store.shadow.trials()]


@router.get("/enhancers")
def enhancers(_caller: Viewer) -> list[str]:
    """What could be tried: the enhancers of this installation."""
    return list(shadow.choices())


@router.post("/trials", status_code=201)
def start_trial(desk: DeskDep, caller: Admin, asked: TrialIn) -> TrialOut:
    """Begin a trial: from now on this model runs on every finished input as well, unsent."""
    return TrialOut.model_validate(shadow.start(desk, asked.enhancer, actor=caller.actor))


@router.get("/trials/{trial_id}")
def comparison(desk: DeskDep, _caller: Viewer, trial_id: Id) -> ComparisonOut:
    """A trial side by side with the model that is sent."""
    return ComparisonOut.model_validate(shadow.compare(desk, trial_id))


@router.post("/trials/{trial_id}/decision")
def decide(desk: DeskDep, caller: Admin, trial_id: Id, asked: DecisionIn) -> TrialOut:
    """Promote the model to the default, drop it, or withdraw an earlier promotion."""
    return TrialOut.model_validate(shadow.decide(desk, trial_id, asked.decision, actor=caller.actor))
