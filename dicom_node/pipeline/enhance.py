"""The enhance loop: claim a job, run the attempt in its process, commit the manifest.

The claim is committed with the attempt counted before any work starts, so a series that kills worker
after worker runs out of attempts. Every write is fenced by the claim's token: a worker that was paused
for longer than its lease finds its claim gone and its files are discarded.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from config.settings import Settings
from dicom_node import __version__
from dicom_node.errors import Reason
from dicom_node.observability import events
from dicom_node.pipeline.attempt import AttemptSpec, SourceFile
from dicom_node.pipeline.executor import AttemptCanceledError, AttemptFailedError, EnhancementProcess
from dicom_node.pipeline.heartbeat import Heartbeat
from dicom_node.pipeline.retry import SURROUNDINGS, RetryPolicy, decide
from storage.errors import LostClaimError
from storage.records import JobRecord, NewDeliveryJob, NewDerived
from storage.states import JobKind, JobState, Stage
from storage.store import Store

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]


class EnhanceWorker:
    """Runs ENHANCE jobs, one at a time, until there are none.

    Guarantees: at most one manifest per job; a failed attempt leaves nothing visible; the job log says
    why. Not shared between threads, but `stop` may be called from any.
    """

    def __init__(self, store: Store, settings: Settings, *, name: str, now: Clock) -> None:
        self._store = store
        self._settings = settings
        self._name = name
        self._now = now
        self._process = EnhancementProcess()
        self._stopping = threading.Event()
        self._rng = random.Random()  # noqa: S311 - jitter
        self._retry = RetryPolicy(
            first=settings.delivery.backoff_first,
            longest=settings.delivery.backoff_longest,
            attempts=settings.enhancement.attempts,
        )

    def warm_up(self) -> None:
        """Start the enhancement process before the first job needs it."""
        self._process.start()

    def drain(self) -> int:
        """Run due jobs until none is left or `stop` was called; return how many were claimed."""
        count = 0
        while not self._stopping.is_set():
            job = self._store.jobs.claim(JobKind.ENHANCE, self._name, self._settings.enhancement.lease)
            if job is None:
                break
            count += 1
            with structlog.contextvars.bound_contextvars(
                job=job.id, series=job.series_id, attempt=job.attempts
            ):
                self._run(job)
        return count

    def stop(self) -> None:
        """Let a running attempt finish its message loop at once; its job is retried after a restart."""
        self._stopping.set()
        self._process.cancel()

    def close(self) -> None:
        """End the enhancement process."""
        self._process.stop()

    def _run(self, job: JobRecord) -> None:
        """Run one attempt and record how it ended."""
        log.info(events.JOB_CLAIMED, kind="ENHANCE")
        directory = self._store.spool.derived_dir(job.id, job.token)
        try:
            with Heartbeat(
                self._store, job, self._settings.enhancement.lease, on_cancel=self._process.cancel
            ):
                spec = attempt_spec(self._store, job, directory, now=self._now)
                result = self._process.run(
                    spec,
                    time_limit=self._settings.enhancement.time_limit,
                    heard=lambda m: self._heard(job, m),
                )
            self._commit(job, result)
        except LostClaimError:
            log.warning(events.JOB_LOST)
            self._store.spool.drop_derived(job.id, job.token)
        except AttemptCanceledError:
            self._store.spool.drop_derived(job.id, job.token)
            self._canceled(job)
        except AttemptFailedError as exc:
            self._store.spool.drop_derived(job.id, job.token)
            self._failed(job, exc)

    def _heard(self, job: JobRecord, message: Mapping[str, Any]) -> None:
        """Record a new stage in the job; progress stays in the process."""
        if "stage" in message:
            self._store.jobs.set_stage(job, Stage(message["stage"]))
            log.info(events.JOB_STAGE, stage=message["stage"])

    def _commit(self, job: JobRecord, result: Mapping[str, Any]) -> None:
        """Make the derived series exist: one transaction for manifest, deliveries and job."""
        self._store.jobs.set_stage(job, Stage.COMMIT)
        derived = [NewDerived(**{**plain, "path": Path(plain["path"])}) for plain in result["derived"]]
        deliveries = [NewDeliveryJob(destination) for destination in job.spec["destinations"]]
        self._store.jobs.commit_manifest(job, derived, deliveries, result["facts"])
        log.info(
            events.JOB_SUCCEEDED, kind="ENHANCE", instances=len(derived), seconds=result["facts"]["seconds"]
        )

    def _canceled(self, job: JobRecord) -> None:
        """An operator or a newer generation canceled the job, or this worker is going down."""
        try:
            if self._stopping.is_set():
                self._store.jobs.give_back(
                    job, reason=str(Reason.NODE_STOPPING), message=Reason.NODE_STOPPING.sentence
                )
            else:
                self._store.jobs.mark_canceled(job)
                log.info(events.JOB_CANCELED)
        except LostClaimError:
            log.warning(events.JOB_LOST)

    def _failed(self, job: JobRecord, error: AttemptFailedError) -> None:
        """Record the failure and whether it is tried again."""
        # Which files, found out now and not in the scrubber's next round: only what is known to be damaged is taken
        # anew when the series is sent again. When all are whole, they have been, or the disk changed its mind.
        changed = error.reason is Reason.SOURCE_CHANGED
        mended = changed and not self._store.scrubber.check_received(job.series_id)
        now = self._now()
        retry_at = decide(
            error.reason,
            attempts=job.attempts,
            created_at=job.created_at,
            now=now,
            policy=self._retry,
            rng=self._rng,
            mended=mended,
        )
        try:
            self._store.jobs.fail(
                job,
                reason=str(error.reason),
                message=error.message,
                retry_at=retry_at,
                counted=error.reason not in SURROUNDINGS,
            )
        except LostClaimError:
            log.warning(events.JOB_LOST)
            return
        if retry_at is None:
            log.error(events.JOB_FAILED, reason=str(error.reason), message=error.message)
        else:
            log.warning(
                events.JOB_RETRY, reason=str(error.reason), wait_s=round((retry_at - now).total_seconds())
            )


def attempt_spec(
    store: Store, job: JobRecord, directory: Path, *, now: Callable[[], datetime]
) -> AttemptSpec:
    """The input of an attempt, from the job's snapshot; the attempt writes into `directory`."""
    spec = job.spec
    return AttemptSpec(
        job_key=job.key,
        sources=tuple(
            SourceFile(Path(s["path"]), s["sop_instance_uid"], s["digest"]) for s in spec["source"]
        ),
        enhancer=spec["enhancer"],
        options=spec["options"],
        strength=spec["strength"],
        policy=spec["derivation"],
        assembly=spec["assembly"],
        companions=spec.get("companions", {}),
        neighbours=study_neighbours(store, job.series_id),
        directory=directory,
        node_version=__version__,
        processed_at=now().astimezone().isoformat(),
    )


def study_neighbours(store: Store, series_id: int) -> tuple[Path, ...]:
    """One stored file of every other series the node knows of the study, derived ones included.

    Their Series Numbers are taken; the derived series picks another.
    """
    study = store.index.get_series(series_id).study_instance_uid
    paths: list[Path] = []
    for series in store.index.list_series(study_instance_uid=study, limit=1000):
        if series.id != series_id:
            paths += [instance.path for instance in store.index.instances(series.id)[:1]]
        for job in store.jobs.list(kind=JobKind.ENHANCE, state=JobState.SUCCEEDED, series_id=series.id):
            paths += [derived.path for derived in store.index.derived(job.id)[:1]]
    return tuple(paths)
