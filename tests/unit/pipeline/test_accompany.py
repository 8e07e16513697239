"""A route's companions go the way of the derived series: written in the attempt, part of its result."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.pipeline.attempt import AttemptSpec, SourceFile
from dicom_node.pipeline.stages import AttemptResult, data_set_digest, run_attempt
from engine.enhancer import CancelToken, no_progress
from engine.phantom import head_phantom, noisy_ct
from engine.registry import build_enhancer


@pytest.fixture
def attempt(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run one attempt over a small head with the companions asked for."""

    def run(**companions: bool) -> AttemptResult:
        volume = noisy_ct(head_phantom((8, 48, 48), (3.0, 4.5, 4.5)), 20.0, 1)
        paths = write_ct_series(volume, tmp_path / "source")
        (tmp_path / "derived").mkdir()
        spec = AttemptSpec(
            job_key="job",
            sources=tuple(SourceFile(path, path.name, data_set_digest(path)) for path in paths),
            enhancer="identity",
            options={},
            strength=0.0,
            policy={},
            neighbours=(),
            directory=tmp_path / "derived",
            assembly={"minimum_slices": 8},
            node_version="0",
            processed_at=datetime.now(UTC).isoformat(),
            companions=companions,
        )
        return run_attempt(
            AttemptSpec.from_json(spec.as_json()),
            build_enhancer("identity", {}),
            on_stage=lambda _: None,
            progress=no_progress,
            cancel=CancelToken(),
        )

    return run


def test_nothing_accompanies_a_series_unless_a_route_asks(attempt) -> None:  # type: ignore[no-untyped-def]
    result = attempt()
    assert len(result.derived) == 8
    assert result.facts["companions"] == 0


def test_what_a_route_asks_for_is_delivered_with_the_series(attempt) -> None:  # type: ignore[no-untyped-def]
    result = attempt(uncertainty_map=True, quality_report=True)
    assert [instance.position for instance in result.derived] == list(range(9))
    assert result.derived[-1].sop_class_uid == "1.2.840.10008.5.1.4.1.1.88.33"
    assert result.facts["slices"] == 8
    assert result.facts["companion_notes"] == {"uncertainty_map": "NO_UNCERTAINTY"}
