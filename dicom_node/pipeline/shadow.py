"""Runs the model on trial on the inputs of finished jobs, when nothing else waits: measured, never sent."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from config.settings import Settings
from dicom_node.pipeline.enhance import attempt_spec
from dicom_node.pipeline.executor import AttemptCanceledError, AttemptFailedError, EnhancementProcess
from storage.pauses import Part
from storage.store import Store

log = structlog.get_logger(__name__)

_COMPARED = ("noise_before", "noise_after", "bias", "guards", "enhancer")


class ShadowRunner:
    """One per node. Not shared between threads, but `stop` may be called from any."""

    def __init__(self, store: Store, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self._process = EnhancementProcess()

    def run_once(self) -> bool:
        """Try one job if a trial runs and nothing waits; whether there was one. Nothing of it is ever sent."""
        trial = self._store.shadow.running()
        if trial is None or self._store.pauses.paused(Part.PROCESSING):
            return False
        number = self._store.shadow.next_job(trial)
        if number is None:
            return False
        job = self._store.jobs.get(number)
        root = self._settings.storage.directory
        with tempfile.TemporaryDirectory(prefix="shadow-", dir=root) as folder:
            spec = replace(
                attempt_spec(self._store, job, Path(folder), now=self._now),
                job_key=f"{job.key}/shadow-{trial.id}",
                enhancer=trial.enhancer,
                options={},
                companions={},
            )
            try:
                result = self._process.run(
                    spec, time_limit=self._settings.enhancement.time_limit, heard=lambda _: None
                )
                measured = compared(result["facts"])
            except AttemptCanceledError:
                return False
            except AttemptFailedError as exc:
                measured = {"error": str(exc.reason), "message": exc.message}
        self._store.shadow.record(trial, number, compared(job.result), measured)
        log.info("shadow.measured", job=number, trial=trial.id, failed="error" in measured)
        return True

    def stop(self) -> None:
        """Break a running attempt off; it is tried again after the next start."""
        self._process.cancel()

    def close(self) -> None:
        """End the process."""
        self._process.stop()


def compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is put side by side of one run, with its seconds as a sum."""
    found = {name: facts[name] for name in _COMPARED if name in facts}
    seconds = facts.get("seconds")
    if isinstance(seconds, Mapping):
        found["seconds"] = round(sum(float(value) for value in seconds.values()), 3)
    return found
