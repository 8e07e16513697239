"""The report of a run as JSON: what was asked, by what it was done, and the facts about every input."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dicom_node import __version__
from dicom_node.offline.request import EnhanceRequest
from engine.enhancer import EnhancerIdentity

Result = Literal["ENHANCED", "LEFT_ALONE", "FAILED"]


@dataclass(frozen=True)
class Outcome:
    """How one input came out.

    what    the file, or the series by its UID
    output  what was written, None when nothing was
    reason  a fixed code and `message` its sentence, both empty when the input was enhanced
    facts   JSON-ready, empty unless the input was enhanced
    """

    what: str
    result: Result
    output: Path | None
    reason: str
    message: str
    facts: Mapping[str, Any]


def write_report(
    path: Path, request: EnhanceRequest, identity: EnhancerIdentity, outcomes: tuple[Outcome, ...]
) -> None:
    """Create `path`, on stable storage when this returns."""
    content = {
        "software": f"dicom-node {__version__}",
        "notice": "Research use only. Not a cleared medical device.",
        "created_at": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        "request": {
            "input": str(request.source),
            "output": str(request.output),
            "model": request.model,
            "modality": request.modality,
            "strength": request.strength,
            "options": dict(request.options),
        },
        "enhancer": asdict(identity),
        "volumes": [_plain(outcome) for outcome in outcomes],
    }
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _plain(outcome: Outcome) -> dict[str, Any]:
    """One input's entry."""
    head = {"input": outcome.what, "result": outcome.result}
    if outcome.output is None:
        return {**head, "reason": outcome.reason, "message": outcome.message}
    return {**head, "output": str(outcome.output), **outcome.facts}


def _finite(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
