"""How the slices of a series lie: one volume, several, tilted, irregular, with gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.eligibility import Evidence, check_series
from dicom_node.imaging.headers import read_header

Edit = Callable[[Path, Callable[[FileDataset], None]], None]
Write = Callable[..., list[Path]]


def check(paths: list[Path], **changes: object) -> Evidence:
    """Judge the files as intake does, eight slices at least."""
    options = {"minimum_slices": 8, "allow_lossy": True} | changes
    return check_series([read_header(path) for path in paths], **options)  # type: ignore[arg-type]


# --- several volumes in one series


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoNumbers", (1, 2)),
        ("EchoTime", ("2.5", "5")),
        ("TemporalPositionIdentifier", (1, 2)),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("FlipAngle", ("5", "20")),
        ("InversionTime", ("100", "900")),
        ("AcquisitionNumber", (1, 2)),
        ("TriggerTime", ("10", "200")),
    ],
)
def test_two_volumes_told_apart_by_an_attribute_are_several_volumes(
    write_mr: Write, edit: Edit, keyword: str, values: tuple[object, object]
) -> None:
    first = write_mr("one", attributes={keyword: values[0]})
    second = write_mr("two", attributes={keyword: values[1]}, first_instance_number=11)
    series = read_header(first[0]).series_instance_uid
    for path in second:
        edit(path, lambda ds: setattr(ds, "SeriesInstanceUID", series))

    with pytest.raises(SkipSeriesError) as caught:
        check([*first, *second])

    assert caught.value.reason is Reason.SEVERAL_VOLUMES
    assert keyword in caught.value.detail


def test_half_of_a_second_echo_is_several_volumes_too(write_mr: Write, edit: Edit) -> None:
    paths = write_mr(attributes={"EchoNumbers": 1})
    for path in paths[5:]:
        edit(path, lambda ds: setattr(ds, "EchoNumbers", 2))

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.SEVERAL_VOLUMES


def test_a_trigger_time_that_does_not_cut_whole_volumes_tells_nothing_apart(
    write_ct: Write, edit: Edit
) -> None:
    paths = write_ct()
    edit(paths[3], lambda ds: setattr(ds, "ImagePositionPatient", read_position(paths[2])))

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.DUPLICATE_POSITION
    assert caught.value.evidence["duplicates"] == 2


def read_position(path: Path) -> list[float]:
    """Where a slice lies."""
    position = read_header(path).geometry.position
    assert position is not None
    return [round(value, 6) for value in position]


# --- geometry of the stack


def shift(paths: list[Path], edit: Edit, offsets: Mapping[int, tuple[float, float, float]]) -> None:
    """Move slices by millimetres."""
    for index, offset in offsets.items():
        moved = [round(p + o, 6) for p, o in zip(read_position(paths[index]), offset, strict=True)]
        edit(paths[index], lambda ds, to=moved: setattr(ds, "ImagePositionPatient", to))  # type: ignore[misc]


@pytest.mark.parametrize(("degrees_per_slice", "tilted"), [(0.02, False), (0.06, True)])
def test_a_tilt_beyond_half_a_degree_is_left_alone(
    write_ct: Write, edit: Edit, degrees_per_slice: float, tilted: bool
) -> None:
    paths = write_ct()
    # 3 mm between slices: 0.02 mm sideways per slice is 0.38 degrees, 0.06 mm is 1.15 degrees.
    shift(paths, edit, {i: (0.0, i * degrees_per_slice, 0.0) for i in range(10)})

    if not tilted:
        assert check(paths).shear_deg == pytest.approx(0.38, abs=0.01)
        return
    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.GANTRY_TILT
    assert caught.value.evidence["shear_deg"] == pytest.approx(1.15, abs=0.01)


def test_positions_rounded_to_one_decimal_are_still_a_volume(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    shift(paths, edit, {i: (0.0, 0.0, round(2.96 * i, 1) - 3.0 * i) for i in range(10)})

    assert check(paths).spacing_mm == pytest.approx(2.96, abs=0.01)


def test_a_slice_out_of_its_place_is_irregular(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    shift(paths, edit, {4: (0.0, 0.0, 0.8)})

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.IRREGULAR_SPACING


def test_a_slice_shifted_sideways_is_mixed_geometry(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    shift(paths, edit, {4: (0.4, 0.0, 0.0)})

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.MIXED_GEOMETRY


def test_a_thickness_that_changes_is_irregular(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    for path in paths[5:]:
        edit(path, lambda ds: setattr(ds, "SliceThickness", "6"))

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.IRREGULAR_SPACING


def test_a_protocol_that_doubles_its_spacing_midway_is_irregular_not_incomplete(
    write_ct: Write, edit: Edit
) -> None:
    paths = write_ct()
    shift(paths, edit, {i: (0.0, 0.0, 3.0 * (i - 4)) for i in range(5, 10)})

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.IRREGULAR_SPACING


# --- held for a person


@pytest.mark.parametrize("lost", [[4], [3, 4], [2, 7]])
def test_missing_slices_hold_the_series_and_are_named(write_ct: Write, lost: list[int]) -> None:
    paths = [path for i, path in enumerate(write_ct()) if i not in lost]

    with pytest.raises(HoldSeriesError) as caught:
        check(paths, minimum_slices=4)

    assert caught.value.reason is Reason.MISSING_SLICE
    assert sum(gap["missing"] for gap in caught.value.evidence["gaps"]) == len(lost)
    assert caught.value.evidence["number_holes"] == len(lost)


def test_the_second_pass_of_an_interleaved_acquisition_that_broke_off_holds_the_series(
    write_ct: Write,
) -> None:
    paths = write_ct()
    arrived = paths[0::2] + paths[1:4:2]

    with pytest.raises(HoldSeriesError) as caught:
        check(arrived, minimum_slices=4)
    assert caught.value.reason is Reason.MISSING_SLICE
