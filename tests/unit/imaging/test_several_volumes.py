"""Series of several volumes, blocks and odd slices: derived as one series, verified volume by volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.errors import Reason
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import DerivedInstance, derive_series
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.series_reader import SourceSeries, read_series
from dicom_node.imaging.uids import UidPlan
from dicom_node.imaging.verify import VerificationReport, verify_series
from dicom_node.imaging.verify_tools import validator_messages

Edit = Callable[[Path, Callable[[FileDataset], None]], None]
Write = Callable[..., list[Path]]
Real = Callable[[str], list[Path]]


def derive_softened(
    source: SourceSeries, directory: Path, provenance: Provenance
) -> tuple[DerivedInstance, ...]:
    """Derive every volume with its rows averaged in pairs: little bias, every slice changed."""
    directory.mkdir()
    enhanced = []
    for part in source.volumes:
        array = part.volume.array.copy()
        array[:, ::2] += np.float32(1.0)
        array[:, 1::2] -= np.float32(1.0)
        if part.volume.valid is not None:
            array = np.where(part.volume.valid, array, part.volume.array)
        enhanced.append(part.volume.with_array(array))
    return derive_series(
        source,
        enhanced,
        provenance=provenance,
        policy=DerivationPolicy(),
        uids=UidPlan("job-1"),
        directory=directory,
        parameters=[{"sigma": float(number)} for number in range(1, len(enhanced) + 1)],
    )


@pytest.fixture
def two_echoes(write_mr: Write, edit: Edit) -> list[Path]:
    """Two MR volumes in one series that share their InstanceNumbers."""
    first = write_mr("source/one", attributes={"EchoNumbers": 1, "EchoTime": "2.5"})
    second = write_mr("source/two", attributes={"EchoNumbers": 2, "EchoTime": "5"})
    series = read_header(first[0]).series_instance_uid
    for path in second:
        edit(path, lambda ds: setattr(ds, "SeriesInstanceUID", series))
    return [*first, *second]


def test_two_echoes_become_one_derived_series_with_the_numbering_of_the_source(
    two_echoes: list[Path], provenance: Provenance, tmp_path: Path
) -> None:
    derived = derive_softened(read_series(two_echoes, AssemblyPolicy()), tmp_path / "derived", provenance)

    made = [dcmread(instance.path) for instance in derived]
    assert len({ds.SeriesInstanceUID for ds in made}) == 1
    assert [int(ds.InstanceNumber) for ds in made] == [*range(1, 11), *range(1, 11)]
    assert [int(ds.EchoNumbers) for ds in made] == [1] * 10 + [2] * 10
    assert ["sigma=1 " in ds.DerivationDescription for ds in made] == [True] * 10 + [False] * 10
    report = verify_series(tmp_path / "source", tmp_path / "derived", policy=DerivationPolicy())
    assert report.failed_numbers == ()


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (27, lambda ds: setattr(ds, "InstanceNumber", 4)),
        (29, lambda ds: setattr(ds, "EchoNumbers", 1)),
        (28, lambda ds: setattr(ds, "EchoTime", "7")),
    ],
    ids=["a number twice in one echo", "moved to the other echo", "another echo time"],
)
def test_a_fault_in_one_of_two_volumes_is_seen(
    two_echoes: list[Path],
    provenance: Provenance,
    edit: Edit,
    tmp_path: Path,
    number: int,
    change: Callable[[FileDataset], None],
) -> None:
    derived = derive_softened(read_series(two_echoes, AssemblyPolicy()), tmp_path / "derived", provenance)
    edit(derived[14].path, change)

    report = verify_series(tmp_path / "source", tmp_path / "derived", policy=DerivationPolicy())
    assert number in report.failed_numbers


def test_a_bias_that_cancels_between_two_volumes_is_seen_in_each(
    two_echoes: list[Path], provenance: Provenance, edit: Edit, tmp_path: Path
) -> None:
    derived = derive_softened(read_series(two_echoes, AssemblyPolicy()), tmp_path / "derived", provenance)
    for index, instance in enumerate(derived):

        def shift(ds: FileDataset, step: int = 30 if index < 10 else -30) -> None:
            pixels = np.frombuffer(ds.PixelData, "<u2").astype(np.int32) + step
            ds.PixelData = np.clip(pixels, 0, 4095).astype("<u2").tobytes()

        edit(instance.path, shift)

    report = verify_series(tmp_path / "source", tmp_path / "derived", policy=DerivationPolicy())
    assert report.failed_numbers == (16,)


def test_a_localizer_among_the_slices_has_no_derived_slice_and_verification_knows(
    write_ct: Write, edit: Edit, provenance: Provenance, tmp_path: Path
) -> None:
    paths = write_ct()
    edit(paths[0], lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    source = read_series(paths, AssemblyPolicy())

    derived = derive_softened(source, tmp_path / "derived", provenance)

    assert [entry.reason for entry in source.left_out] == [Reason.LOCALIZER]
    assert len(derived) == 9
    assert verify(tmp_path).failed_numbers == ()
    assert verify(tmp_path, left_out=frozenset()).failed_numbers == (1,)


def verify(folder: Path, **more: object) -> VerificationReport:
    """Verify the two folders."""
    return verify_series(folder / "source", folder / "derived", policy=DerivationPolicy(), **more)  # type: ignore[arg-type]


def test_a_series_released_although_a_slice_is_missing_is_enhanced_on_both_sides_of_the_gap(
    write_ct: Write, provenance: Provenance, tmp_path: Path
) -> None:
    paths = write_ct()
    paths.pop(5).unlink()

    source = read_series(paths, AssemblyPolicy(released=True))
    derive_softened(source, tmp_path / "derived", provenance)

    assert [len(part.slices) for part in source.volumes] == [5, 4]
    assert Reason.GAP in source.evidence.notes
    assert verify(tmp_path).failed_numbers == ()


@pytest.mark.usefixtures("dciodvfy")
@pytest.mark.parametrize("name", ["ct-head-gantry-tilt", "mr-dwi-multivolume"])
def test_real_series_of_several_blocks_or_volumes_derive_without_a_new_message(
    real_series: Real, provenance: Provenance, tmp_path: Path, name: str
) -> None:
    paths = real_series(name)
    source = read_series(paths, AssemblyPolicy())

    derived = derive_softened(source, tmp_path / "derived", provenance)

    assert len(derived) == len(paths)
    report = verify_series(
        paths, [instance.path for instance in derived], policy=DerivationPolicy(), left_out=frozenset()
    )
    assert report.failed_numbers == ()
    for index in (0, len(paths) // 2, len(paths) - 1):
        before = validator_messages(source.slices[index].path)
        assert validator_messages(derived[index].path) <= before
