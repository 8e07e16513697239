"""What one attempt is told: a record for the pipe from the worker to its enhancement process.

It stands apart from the line itself (`pipeline.stages`), so that the worker, which only hands attempts on,
loads nothing that computes: a second and 190 MB less at each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SourceFile:
    """One stored instance of the series: where it lies and what its data set must hash to."""

    path: Path
    sop_instance_uid: str
    digest: str


@dataclass(frozen=True)
class AttemptSpec:
    """Everything one attempt needs, JSON-ready; equal specs give equal pixels on one machine."""

    job_key: str
    sources: tuple[SourceFile, ...]
    enhancer: str
    options: Mapping[str, str | int | float | bool]
    strength: float
    policy: Mapping[str, Any]
    neighbours: tuple[Path, ...]
    directory: Path
    assembly: Mapping[str, Any]
    node_version: str
    processed_at: str
    companions: Mapping[str, bool] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values for the pipe to the enhancement process."""
        plain = asdict(self)
        plain["sources"] = [{**asdict(source), "path": str(source.path)} for source in self.sources]
        plain["neighbours"] = [str(path) for path in self.neighbours]
        plain["directory"] = str(self.directory)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> AttemptSpec:
        """Inverse of `as_json`."""
        return cls(
            **{
                **plain,
                "sources": tuple(
                    SourceFile(Path(s["path"]), s["sop_instance_uid"], s["digest"]) for s in plain["sources"]
                ),
                "neighbours": tuple(Path(path) for path in plain["neighbours"]),
                "directory": Path(plain["directory"]),
            }
        )
