"""Small phantom series, a derivation over them, ways to damage them, and the real scans where they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import DerivedInstance, derive_series
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.phantom_series import (
    CT_STYLE,
    MR_STYLE,
    PhantomStyle,
    write_ct_series,
    write_mr_series,
)
from dicom_node.imaging.series_reader import read_series
from dicom_node.imaging.uids import UidPlan
from engine.volume import IntensityUnit, Volume

REPOSITORY = Path(__file__).resolve().parents[3]

Edit = Callable[[FileDataset], None]
WriteCT = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def ct_volume() -> Volume:
    """A CT volume of 10 slices of 40x36 with structure in every direction, in HU."""
    z, y, x = np.mgrid[0:10, 0:40, 0:36].astype(np.float32)
    array = -1000 + 1100 * (np.hypot(y - 20, x - 18) < 15) + 3 * z + np.float32(5) * np.sin(x)
    affine = np.array([[0, 0, 0.9, -9], [0, 0.8, 0, -10], [3, 0, 0, -15], [0, 0, 0, 1]], dtype=np.float64)
    return Volume(array.astype(np.float32), affine, IntensityUnit.HU)


@pytest.fixture(scope="session")
def mr_volume(ct_volume: Volume) -> Volume:
    """The same structure as scanner units from 0 to about 1200."""
    return replace(ct_volume, array=ct_volume.array + np.float32(1010), unit=IntensityUnit.ARBITRARY)


@pytest.fixture
def write_ct(ct_volume: Volume, tmp_path: Path) -> WriteCT:
    """Write the CT volume with a style's fields changed."""

    def write(folder: str = "source", volume: Volume = ct_volume, **changes: object) -> list[Path]:
        style = replace(CT_STYLE, **changes)  # type: ignore[arg-type]
        return write_ct_series(volume, tmp_path / folder, style=style)

    return write


@pytest.fixture
def write_mr(mr_volume: Volume, tmp_path: Path) -> WriteCT:
    """Write the MR volume with a style's fields changed."""

    def write(folder: str = "source", volume: Volume = mr_volume, **changes: object) -> list[Path]:
        style: PhantomStyle = replace(MR_STYLE, **changes)  # type: ignore[arg-type]
        return write_mr_series(volume, tmp_path / folder, style=style)

    return write


@pytest.fixture(scope="session")
def edit() -> Callable[[Path, Edit], None]:
    """Change one file in place through pydicom."""

    def apply(path: Path, change: Edit) -> None:
        with quiet():
            ds = dcmread(path)
            change(ds)
            ds.save_as(path)

    return apply


@pytest.fixture(scope="session")
def provenance() -> Provenance:
    """An enhancement that happened."""
    return Provenance(
        algorithm="classical-dct-wiener",
        version="1.2.3",
        digest="0123456789abcdef" * 4,
        title="Classical 3D noise reduction",
        strength=0.9,
        parameters={"sigma": 12.345678, "block": 4},
        node_version="0.1.0",
        processed_at=datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )


Derive = Callable[..., tuple[DerivedInstance, ...]]


@pytest.fixture(scope="session")
def derive(provenance: Provenance) -> Derive:
    """Derive a series from source files; the enhanced voxels are the source's plus 2 (HU or units)."""

    def run(
        paths: list[Path],
        directory: Path,
        *,
        policy: DerivationPolicy = DerivationPolicy(),  # noqa: B008 - frozen
        shift: float = 0.5,
        job_key: str = "job-1",
        made_by: Provenance = provenance,
        **more: object,
    ) -> tuple[DerivedInstance, ...]:
        source = read_series(paths)
        array = source.volume.array.copy()
        array[:, ::2] += np.float32(shift + 1.0)  # the rows go up and down by turns: little bias
        array[:, 1::2] += np.float32(shift - 1.0)
        directory.mkdir(parents=True)
        return derive_series(
            source,
            source.volume.with_array(array),
            provenance=made_by,
            policy=policy,
            uids=UidPlan(job_key, policy.uid_root),
            directory=directory,
            **more,  # type: ignore[arg-type]
        )

    return run


@pytest.fixture(scope="session")
def real_series() -> Callable[[str], list[Path]]:
    """Files of a public scan, or a skip with the reason; DICOM_NODE_DATA names another folder."""
    root = Path(os.environ.get("DICOM_NODE_DATA", REPOSITORY.parent / "shared" / "data")) / "dicom"

    def find(name: str) -> list[Path]:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"no public scans in {root} (set DICOM_NODE_DATA)")
        return sorted(path for path in folder.rglob("*.dcm") if path.is_file())

    return find


@pytest.fixture
def dciodvfy() -> None:
    """Skip where the validator is not installed."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
