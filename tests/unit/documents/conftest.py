"""A small source and derived instance, for what a document says about derived objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import derive_series
from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.imaging.series_reader import read_series
from dicom_node.imaging.uids import UidPlan
from engine.volume import IntensityUnit, Volume


@pytest.fixture
def phantom_pair(tmp_path: Path) -> Callable[[DerivationPolicy], tuple[Path, Path]]:
    """One CT slice and what is derived from it under a policy."""

    def make(policy: DerivationPolicy) -> tuple[Path, Path]:
        array = np.zeros((3, 8, 8), np.float32)
        volume = Volume(array, np.diag([3.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]], IntensityUnit.HU)
        paths = write_ct_series(volume, tmp_path / "source")
        source = read_series(paths)
        (tmp_path / "derived").mkdir()
        made_by = Provenance(
            algorithm="identity",
            version="1",
            digest="0" * 64,
            title="Test",
            strength=0.0,
            parameters={},
            node_version="0",
            processed_at=datetime(2030, 1, 1, tzinfo=UTC),
        )
        derived = derive_series(
            source,
            [source.volume],
            provenance=made_by,
            policy=policy,
            uids=UidPlan("job"),
            directory=tmp_path / "derived",
        )
        return paths[0], derived[0].path

    return make
