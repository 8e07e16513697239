"""Trials of a second model: what may be tried, and both models side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dicom_node.desk.desk import Desk
from dicom_node.operations import UnknownNameError
from engine.registry import enhancer_names
from storage.errors import NotFoundError
from storage.shadow import ShadowResult, TrialRecord, TrialState

_FIGURES = ("noise_before", "noise_after", "bias", "seconds")


class Decision(StrEnum):
    """What to do with a trial."""

    PROMOTE = "promote"
    DROP = "drop"
    WITHDRAW = "withdraw"


_STATES: Mapping[Decision, TrialState] = {
    Decision.PROMOTE: TrialState.PROMOTED,
    Decision.DROP: TrialState.DROPPED,
    Decision.WITHDRAW: TrialState.WITHDRAWN,
}


@dataclass(frozen=True)
class Comparison:
    """A trial so far: medians of both models over the inputs that both managed, and each input."""

    trial: TrialRecord
    inputs: int
    failed: int
    primary: Mapping[str, float]
    shadow: Mapping[str, float]
    results: tuple[ShadowResult, ...]


def choices() -> tuple[str, ...]:
    """The enhancers of this installation."""
    return enhancer_names()


def start(desk: Desk, enhancer: str, *, actor: str) -> TrialRecord:
    """Begin a trial. Raises `UnknownNameError`, and `IllegalTransitionError` while another one runs."""
    if enhancer not in choices():
        raise UnknownNameError(f"no enhancer has this name; there are: {', '.join(choices())}")
    return desk.store.shadow.start(enhancer, actor)


def decide(desk: Desk, trial_id: int, decision: Decision, *, actor: str) -> TrialRecord:
    """Promote the model to the default, drop it, or withdraw an earlier promotion: one act, in the trail.

    Raises `NotFoundError`, and `IllegalTransitionError` for what was decided already.
    """
    trial = desk.store.shadow.decide(trial_id, _STATES[decision], actor)
    desk.figures.forget()
    return trial


def compare(desk: Desk, trial_id: int) -> Comparison:
    """Both models side by side. Raises `NotFoundError`."""
    found = [trial for trial in desk.store.shadow.trials(1000) if trial.id == trial_id]
    if not found:
        raise NotFoundError("trial", trial_id)
    results = desk.store.shadow.results(trial_id)
    fine = [result for result in results if "error" not in result.shadow]
    return Comparison(
        trial=found[0],
        inputs=len(results),
        failed=len(results) - len(fine),
        primary=_medians([result.primary for result in fine]),
        shadow=_medians([result.shadow for result in fine]),
        results=tuple(results),
    )


def _medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    medians = {}
    for name in _FIGURES:
        values = [float(run[name]) for run in runs if isinstance(run.get(name), (int, float))]
        if values:
            medians[name] = round(statistics.median(values), 4)
    return medians
