"""Public scans of real scanners: each comes to the right end, and what is derived draws no new complaint."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import derive_series
from dicom_node.imaging.eligibility import AssemblyPolicy, check_series
from dicom_node.imaging.headers import InstanceHeader, read_header
from dicom_node.imaging.series_reader import read_series
from dicom_node.imaging.summary import summarise
from dicom_node.imaging.uids import UidPlan
from dicom_node.imaging.verify import verify_series
from dicom_node.imaging.verify_tools import validator_messages

Real = Callable[[str], list[Path]]


def series_of(paths: list[Path]) -> list[list[InstanceHeader]]:
    """Headers by series."""
    groups: dict[str, list[InstanceHeader]] = defaultdict(list)
    for path in paths:
        header = read_header(path)
        groups[header.series_instance_uid].append(header)
    return list(groups.values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ct-axial-singles", Reason.TOO_FEW_SLICES),
        ("ct-localizer", Reason.LOCALIZER),
        ("mr-dwi-enhanced-multiframe", Reason.MULTI_FRAME),
        ("mr-t1-enhanced-multiframe", Reason.MULTI_FRAME),
    ],
)
def test_what_cannot_be_assembled_is_left_alone_for_the_right_reason(
    real_series: Real, name: str, reason: Reason
) -> None:
    for headers in series_of(real_series(name)):
        with pytest.raises(SkipSeriesError) as caught:
            check_series(headers, AssemblyPolicy())
        assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("name", "slices", "spacing_mm", "orientation"),
    [
        ("ct-chest-5mm-soft", 64, (5.0, 0.8418, 0.8418), "axial"),
        ("ct-chest-2mm-partial", 16, (2.5, 0.7031, 0.7031), "axial"),
        ("ct-chest-1mm-partial", 12, (1.25, 0.6816, 0.6816), "axial"),
        ("mr-t1-sagittal", 192, (0.9, 0.8594, 0.8594), "sagittal"),
    ],
)
def test_what_is_a_regular_volume_is_assembled_as_one(
    real_series: Real, name: str, slices: int, spacing_mm: tuple[float, ...], orientation: str
) -> None:
    paths = real_series(name)
    (headers,) = series_of(paths)

    check_series(headers, AssemblyPolicy())
    volume = read_series(paths).volume

    assert volume.array.shape[0] == slices
    assert np.allclose(volume.spacing_mm, spacing_mm, atol=1e-3)
    assert summarise(headers, calling_ae="A", called_ae="B").orientation == orientation
    # The affine leads from the first and the last slice's index to their stored positions.
    for index, header in (
        (0, min(headers, key=along(volume.affine))),
        (-1, max(headers, key=along(volume.affine))),
    ):
        place = volume.affine @ np.array([index % slices, 0, 0, 1])
        assert np.allclose(place[:3], header.geometry.position, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "volumes", "notes"),
    [
        (
            "ct-head-gantry-tilt",
            [(14, 4.0, 18.5, "block 1"), (14, 7.0, 18.5, "block 2")],
            (Reason.BLOCKS, Reason.GANTRY_TILT),
        ),
        (
            "mr-dwi-multivolume",
            [
                (40, 3.0, 0.0, "DiffusionBValue 0, DiffusionGradientOrientation none"),
                (40, 3.0, 0.0, "DiffusionBValue 1500, DiffusionGradientOrientation -0/-0.998068/-0.0621383"),
                (
                    40,
                    3.0,
                    0.0,
                    "DiffusionBValue 1500, DiffusionGradientOrientation 0.44522/-0.447711/0.775457",
                ),
            ],
            (Reason.SEVERAL_VOLUMES,),
        ),
    ],
)
def test_a_series_of_several_blocks_or_volumes_is_taken_apart(
    real_series: Real, name: str, volumes: list[tuple[int, float, float, str]], notes: tuple[Reason, ...]
) -> None:
    paths = real_series(name)

    series = read_series(paths, AssemblyPolicy())

    assert [
        (v.slices, round(v.spacing_mm, 2), round(v.shear_deg, 1), v.label) for v in series.evidence.volumes
    ] == volumes
    assert series.evidence.notes == notes
    assert sum(len(part.slices) for part in series.volumes) == len(paths)
    for part in series.volumes:
        for index in (0, len(part.slices) - 1):
            place = part.volume.affine @ np.array([index, 0, 0, 1])
            assert np.allclose(place[:3], part.slices[index].header.geometry.position, atol=0.01)


def along(affine: np.ndarray) -> Callable[[InstanceHeader], float]:
    """Place of a slice along the stacking direction."""
    return lambda header: float(np.dot(affine[:3, 0], header.geometry.position or (0, 0, 0)))


def test_the_one_missing_slice_of_a_real_series_holds_it(real_series: Real) -> None:
    from dicom_node.errors import HoldSeriesError

    paths = real_series("ct-chest-5mm-soft")
    headers = [read_header(path) for path in paths[:30] + paths[31:]]

    with pytest.raises(HoldSeriesError) as caught:
        check_series(headers, AssemblyPolicy())
    assert caught.value.reason is Reason.MISSING_SLICE
    assert [gap["missing"] for gap in caught.value.evidence["gaps"]] == [1]


def test_padding_outside_the_circle_is_not_valid(real_series: Real) -> None:
    valid = read_series(real_series("ct-chest-1mm-partial")).volume.valid

    assert valid is not None
    assert not valid[:, 0, 0].any()
    assert valid[:, 256, 256].all()
    assert valid.mean() == pytest.approx(np.pi / 4, abs=0.01)


@pytest.mark.usefixtures("dciodvfy")
@pytest.mark.parametrize(
    "name", ["ct-chest-5mm-soft", "mr-t1-sagittal", "ct-chest-1mm-partial", "ct-chest-2mm-partial"]
)
def test_a_derived_real_series_is_right_fast_and_draws_no_new_message(
    real_series: Real, provenance: Provenance, tmp_path: Path, name: str
) -> None:
    paths = real_series(name)
    source = read_series(paths)
    array = source.volume.array.copy()
    array[:, 1:-1] = (array[:, :-2] + 2 * array[:, 1:-1] + array[:, 2:]) / 4
    if source.volume.valid is not None:
        array = np.where(source.volume.valid, np.maximum(array, -1024), source.volume.array)
        array -= (array - source.volume.array)[source.volume.valid].mean() * source.volume.valid
    directory = tmp_path / "derived"
    directory.mkdir()

    begin = time.monotonic()
    derived = derive_series(
        source,
        [source.volume.with_array(array.astype(np.float32))],
        provenance=provenance,
        policy=DerivationPolicy(),
        uids=UidPlan("job-1"),
        directory=directory,
    )
    seconds = time.monotonic() - begin

    report = verify_series(paths, [instance.path for instance in derived], policy=DerivationPolicy())
    assert [(c.number, c.detail) for c in report.checks if not c.passed] == []
    for instance, piece in list(zip(derived, source.slices, strict=True))[::16]:
        assert validator_messages(instance.path) - validator_messages(piece.path) == set()
    assert seconds < 10, "deriving is to take a few seconds even on a busy machine"
