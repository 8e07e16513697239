"""A small generated series, and the attempt that would be made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.pipeline.attempt import AttemptSpec, SourceFile
from dicom_node.pipeline.stages import data_set_digest
from engine.phantom import head_phantom, noisy_ct


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten noisy CT slices of 64x64."""
    clean = head_phantom(shape=(10, 64, 64), spacing_mm=(3.0, 3.6, 3.6))
    return write_ct_series(noisy_ct(clean, 20.0, seed=2), tmp_path_factory.mktemp("source"))


@pytest.fixture
def make_spec(slices: list[Path], tmp_path: Path) -> Callable[..., AttemptSpec]:
    """Build an attempt over the slices; keyword arguments replace fields."""

    def make(**changes: object) -> AttemptSpec:
        directory = tmp_path / "derived"
        directory.mkdir(exist_ok=True)
        fields: dict[str, object] = {
            "job_key": "k" * 64,
            "sources": tuple(
                SourceFile(
                    path, str(dcmread(path, stop_before_pixels=True).SOPInstanceUID), data_set_digest(path)
                )
                for path in slices
            ),
            "enhancer": "classical",
            "options": {},
            "strength": 0.9,
            "policy": {},
            "assembly": {},
            "neighbours": (),
            "directory": directory,
            "node_version": "0.0.0",
            "processed_at": "2026-01-02T03:04:05+00:00",
        }
        return AttemptSpec(**{**fields, **changes})  # type: ignore[arg-type]

    return make
