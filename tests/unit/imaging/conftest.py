"""Small phantom series, a derivation over them, ways to damage them, and the real scans where they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

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
from dicom_node.imaging.verify import VerificationReport, verify_series
from engine.volume import IntensityUnit, Volume

REPOSITORY = Path(__file__).resolve().parents[3]

Edit = Callable[[FileDataset], None]
WriteCT = Callable[..., list[Path]]
SLICES = 6


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
            [source.volume.with_array(array)],
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


@dataclass(frozen=True)
class Bench:
    """A good source and derived series that tests copy before they damage them."""

    source: Path
    derived: Path

    def copy(self, to: Path) -> Bench:
        """A copy that may be damaged."""
        return Bench(
            Path(shutil.copytree(self.source, to / "source")),
            Path(shutil.copytree(self.derived, to / "derived")),
        )

    def verify(self, **more: object) -> VerificationReport:
        """Run all assertions."""
        return verify_series(self.source, self.derived, policy=DerivationPolicy(), **more)  # type: ignore[arg-type]

    def change(self, number: int, change: Edit, *, folder: str = "derived") -> None:
        """Change one file of the series in place."""
        width = 5 if folder == "derived" else 4
        path = (self.derived if folder == "derived" else self.source) / f"{number:0{width}d}.dcm"
        with quiet():
            ds = dcmread(path)
            change(ds)
            ds.save_as(path)

    def change_all(self, change: Edit) -> None:
        """Change every derived file."""
        for number in range(1, SLICES + 1):
            self.change(number, change)


def rich_source(ds: FileDataset) -> None:
    """What a real source may bring along and every derived object has to carry or list."""
    ds.ReferencedImageSequence = [reference("1.2.3.4")]
    listed = Dataset()
    listed.SeriesInstanceUID = "1.2.3"
    listed.ReferencedInstanceSequence = [reference("1.2.3.4")]
    ds.ReferencedSeriesSequence = [listed]
    request = Dataset()
    request.ScheduledProcedureStepID = "S1"
    ds.RequestAttributesSequence = [request]
    earlier = Dataset()
    earlier.Manufacturer = "Deidentifier"
    earlier.PurposeOfReferenceCodeSequence = [code("109104", "De-identifying Equipment")]
    ds.ContributingEquipmentSequence = [earlier]
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionMethod = "ISO_15444_1"
    ds.LossyImageCompressionRatio = "7.5"
    ds.SyntheticData = "YES"


def reference(uid: str) -> Dataset:
    """A reference to a CT instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def code(value: str, meaning: str) -> Dataset:
    """A DCM code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


@pytest.fixture(scope="session")
def good(
    ct_volume: Volume,
    derive: Callable[..., object],
    edit: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    """A CT series with padding, references and history, and a derived series that is right."""
    folder = tmp_path_factory.mktemp("good")
    small = replace(ct_volume, array=ct_volume.array[:SLICES].copy())
    valid = np.ones(small.array.shape, np.bool_)
    valid[:, :3] = False
    style = replace(CT_STYLE, padding=0, series_description="HEAD")
    inside = small.with_array(np.maximum(small.array, np.float32(-1000)))
    paths = write_ct_series(replace(inside, valid=valid), folder / "source", style=style)
    for path in paths:
        edit(path, rich_source)
    derive(paths, folder / "derived")
    return Bench(folder / "source", folder / "derived")


@pytest.fixture
def bench(good: Bench, tmp_path: Path) -> Bench:
    """A copy of the good series."""
    return good.copy(tmp_path)


@pytest.fixture(scope="session")
def bench_of() -> Callable[[Path, Path], Bench]:
    """Make a bench of two folders that are already there."""
    return Bench


@pytest.fixture
def derived(
    write_ct: WriteCT, derive: Derive, tmp_path: Path, edit: Callable[[Path, Edit], None]
) -> Callable[..., FileDataset]:
    """Derive a CT series whose sources were changed first; return the third derived instance."""

    def run(
        change: Callable[[FileDataset], None] | None = None,
        *,
        attributes: dict[str, object] | None = None,
        policy: DerivationPolicy = DerivationPolicy(),  # noqa: B008 - frozen
        **more: object,
    ) -> FileDataset:
        paths = write_ct(attributes=attributes or {})
        for path in paths if change else ():
            edit(path, change)
        derive(paths, tmp_path / "derived", policy=policy, **more)
        with quiet():
            return dcmread(tmp_path / "derived" / "00003.dcm")

    return run
