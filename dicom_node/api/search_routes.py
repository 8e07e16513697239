"""Why-not search, demographics on demand, and uploads."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import datetime
from typing import Annotated, BinaryIO, cast

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from dicom_node.api import schemas as out
from dicom_node.api.problems import ApiProblemError
from dicom_node.api.read_routes import Id
from dicom_node.api.rule_routes import ClauseOut
from dicom_node.api.security import DeskDep, Operator, Viewer, peer_of
from dicom_node.desk.demographics import reveal
from dicom_node.desk.upload import Upload
from dicom_node.desk.why_not import Answer
from dicom_node.operations import delivery_summary

router = APIRouter(tags=["finding"])

UploadId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
_CHUNK_TIME_S = 30.0
_EVENTS_SHOWN = 500


class AssociationOut(BaseModel):
    """One association that carried a series; `ending` null while it is open."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    calling_ae: str
    called_ae: str
    peer_host: str
    opened_at: datetime
    ended_at: datetime | None
    ending: str | None


class AnswerOut(BaseModel):
    """One series the question is about, from association to delivery."""

    found_by: str
    series: out.SeriesOut
    verdict: str
    associations: list[AssociationOut]
    checks: list[ClauseOut]
    taken_by: str | None
    jobs: list[out.JobOut]
    deliveries: dict[str, dict[str, int]]
    events: list[out.EventOut]


class WhyNotOut(BaseModel):
    """The answers; without any, the latest associations that were rejected."""

    answers: list[AnswerOut]
    rejected: list[out.EventOut]
    not_looked_at: int


class DemographicsOut(BaseModel):
    """Patient data in the clear."""

    model_config = ConfigDict(from_attributes=True)

    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    accession_number: str
    study_date: str
    study_description: str
    series_description: str


class UploadOut(BaseModel):
    """An upload: what it has brought so far; refusals by reason code."""

    id: str
    received: int
    skipped: int
    bytes: int
    refused: dict[str, int]
    series: list[int]


@router.get("/why")
def why(
    desk: DeskDep, _caller: Viewer, text: Annotated[str, Query(min_length=1, max_length=64)]
) -> WhyNotOut:
    """What happened to it: any UID (study, series, instance; received or derived) or accession number."""
    found = desk.why_not.ask(text)
    return WhyNotOut(
        answers=[_answer(answer) for answer in found.answers],
        rejected=[out.event_out(event) for event in found.rejected],
        not_looked_at=found.not_looked_at,
    )


@router.post("/series/{series_id}/reveal")
def reveal_patient(desk: DeskDep, caller: Operator, request: Request, series_id: Id) -> DemographicsOut:
    """Who is on the images of a series. Every call is in the audit trail."""
    found = reveal(desk, series_id, actor=caller.actor, host=peer_of(request))
    return DemographicsOut.model_validate(found)


@router.post("/uploads", status_code=201)
def begin_upload(desk: DeskDep, caller: Operator, request: Request) -> UploadOut:
    """Open an upload."""
    return _upload(desk.uploads.begin(actor=caller.actor, peer=peer_of(request)[:255]))


@router.post("/uploads/{upload_id}/files")
async def upload_file(desk: DeskDep, caller: Operator, request: Request, upload_id: UploadId) -> UploadOut:
    """Bring one file: the body is a DICOM object, or a ZIP file of them."""
    upload = desk.uploads.get(upload_id, actor=caller.actor)
    # Without a name in the file system: nothing is left of it whatever happens.
    with tempfile.TemporaryFile(dir=desk.settings.storage.directory) as file:
        await _receive(request, cast("BinaryIO", file), desk.uploads.limit - upload.bytes)
        await run_in_threadpool(desk.store.spool.check_space, 0)
        await run_in_threadpool(desk.uploads.take, upload, cast("BinaryIO", file))
    return _upload(upload)


@router.post("/uploads/{upload_id}/finish")
def finish_upload(desk: DeskDep, caller: Operator, upload_id: UploadId) -> UploadOut:
    """End an upload; its series go through the line after their quiet period."""
    upload = desk.uploads.get(upload_id, actor=caller.actor)
    return _upload(upload, desk.uploads.finish(upload, complete=True))


@router.delete("/uploads/{upload_id}", status_code=204)
def abort_upload(desk: DeskDep, caller: Operator, upload_id: UploadId) -> None:
    """Break an upload off; what was stored stays, and its series count as interrupted."""
    desk.uploads.finish(desk.uploads.get(upload_id, actor=caller.actor), complete=False)


async def _receive(request: Request, file: BinaryIO, limit: int) -> None:
    """Write the body into the file. Raises 413 beyond the limit and 408 for one that stalls."""
    seen, chunks = 0, request.stream().__aiter__()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks), _CHUNK_TIME_S)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ApiProblemError(408, "too-slow", "The body did not arrive in time.") from None
        seen += len(chunk)
        if seen > limit:
            raise ApiProblemError(413, "too-large", "The upload is larger than allowed.")
        file.write(chunk)


def _answer(answer: Answer) -> AnswerOut:
    story = answer.story
    return AnswerOut(
        found_by=answer.by,
        series=out.series_out(story.series),
        verdict=story.verdict,
        associations=[AssociationOut.model_validate(record) for record in answer.associations],
        checks=[ClauseOut.model_validate(check) for check in answer.checks],
        taken_by=answer.taken_by,
        jobs=[out.job_out(job) for job in story.jobs],
        deliveries={name: dict(counts) for name, counts in delivery_summary(story.deliveries).items()},
        events=[out.event_out(event) for event in story.events[-_EVENTS_SHOWN:]],
    )


def _upload(upload: Upload, series: list[int] | None = None) -> UploadOut:
    return UploadOut(
        id=upload.id,
        received=upload.received,
        skipped=upload.skipped,
        bytes=upload.bytes,
        refused=dict(upload.refused),
        series=series or [],
    )
