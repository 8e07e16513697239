"""What an operator may do to jobs, series, deliveries, peers and the line. Each call is an operation of the desk."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dicom_node.api import schemas as out
from dicom_node.api.idempotency import WriteRoute
from dicom_node.api.read_routes import LARGEST_ID, Id
from dicom_node.api.security import Admin, DeskDep, Operator
from dicom_node.desk import acts
from storage.errors import NotFoundError
from storage.pauses import Part

router = APIRouter(tags=["acting"], route_class=WriteRoute)

PeerName = Annotated[str, Path(max_length=64)]


class In(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class RetryIn(In):
    """Which deliveries: of one job, or of one destination."""

    job_id: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = None
    destination: Annotated[str, Field(min_length=1, max_length=255)] | None = None

    @model_validator(mode="after")
    def _one(self) -> RetryIn:
        if (self.job_id is None) == (self.destination is None):
            raise ValueError("name either job_id or destination")
        return self


class SendIn(In):
    """Where to."""

    destination: Annotated[str, Field(min_length=1, max_length=64)]


class RetriedOut(BaseModel):
    """How many delivery jobs are due now."""

    jobs: int


class PauseIn(In):
    """Whether the part is to be paused."""

    paused: bool


class PauseOut(BaseModel):
    """The parts of the line and whether they are paused."""

    intake: bool
    processing: bool
    sending: bool


class EchoOut(BaseModel):
    """Whether the peer answered a C-ECHO, and how fast."""

    peer: str
    answered: bool
    status: int | None
    seconds: float | None
    reason: str | None
    message: str


@router.post("/jobs/{job_id}/cancel")
def cancel_job(desk: DeskDep, caller: Operator, job_id: Id) -> out.JobOut:
    """Cancel a job; a running one stops at its next step."""
    return out.job_out(desk.operations.cancel_job(job_id, actor=caller.actor))


@router.post("/jobs/{job_id}/resubmit")
def resubmit_job(desk: DeskDep, caller: Operator, job_id: Id) -> out.JobOut:
    """Run a failed, canceled or finished job again; a finished one becomes a new job with new UIDs."""
    return out.job_out(desk.operations.resubmit_job(job_id, actor=caller.actor))


@router.post("/deliveries/retry")
def retry_deliveries(desk: DeskDep, caller: Operator, asked: RetryIn) -> RetriedOut:
    """Try failed or waiting deliveries now."""
    jobs = desk.operations.retry_deliveries(
        job_id=asked.job_id, destination=asked.destination, actor=caller.actor
    )
    return RetriedOut(jobs=jobs)


@router.post("/series/{series_id}/release")
def release_series(desk: DeskDep, caller: Operator, series_id: Id) -> out.SeriesOut:
    """Let a held series go on as it is."""
    return out.series_out(desk.operations.release_series(str(series_id), actor=caller.actor))


@router.post("/series/{series_id}/discard")
def discard_series(desk: DeskDep, caller: Operator, series_id: Id) -> out.SeriesOut:
    """Leave a held series alone for good; its instances stay stored."""
    return out.series_out(desk.operations.discard_series(str(series_id), actor=caller.actor))


@router.post("/series/{series_id}/send", status_code=201)
def send_series(desk: DeskDep, caller: Operator, series_id: Id, asked: SendIn) -> out.JobOut:
    """Send a stored series as it is to a configured peer; the delivery job that does it."""
    return out.job_out(desk.operations.send_series(str(series_id), asked.destination, actor=caller.actor))


@router.post("/jobs/{job_id}/send", status_code=201)
def send_derived(desk: DeskDep, caller: Operator, job_id: Id, asked: SendIn) -> out.JobOut:
    """Send the derived series of an enhancement, as it was made, to any configured peer."""
    derived = desk.store.index.derived(job_id)
    if not derived:
        raise NotFoundError("derived series of job", job_id)
    uid = derived[0].series_instance_uid
    return out.job_out(desk.operations.send_series(uid, asked.destination, actor=caller.actor))


@router.get("/pauses")
def pauses(desk: DeskDep, _caller: Operator) -> PauseOut:
    """Which parts of the line are paused."""
    return PauseOut(**desk.store.pauses.all())


@router.put("/pauses/{part}")
def pause(desk: DeskDep, caller: Admin, part: Part, asked: PauseIn) -> PauseOut:
    """Pause or resume intake, processing or sending; what runs already is finished."""
    acts.set_pause(desk, part, paused=asked.paused, actor=caller.actor)
    return PauseOut(**desk.store.pauses.all())


@router.post("/peers/{name}/echo")
def echo_peer(desk: DeskDep, caller: Operator, name: PeerName) -> EchoOut:
    """Ask a peer by C-ECHO whether it is there."""
    return EchoOut(**acts.echo(desk, name, actor=caller.actor))
