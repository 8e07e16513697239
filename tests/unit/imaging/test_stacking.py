"""How the slices of a series lie: one volume, several, tilted, irregular, with gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.eligibility import AssemblyPolicy, Evidence, check_series
from dicom_node.imaging.headers import read_header

Edit = Callable[[Path, Callable[[FileDataset], None]], None]
Write = Callable[..., list[Path]]


def check(paths: list[Path], **changes: object) -> Evidence:
    """Judge the files as intake does, eight slices at least."""
    policy = AssemblyPolicy(**changes)  # type: ignore[arg-type]
    return check_series([read_header(path) for path in paths], policy).evidence


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
def test_two_volumes_told_apart_by_an_attribute_are_two_volumes_of_one_series(
    write_mr: Write, edit: Edit, keyword: str, values: tuple[object, object]
) -> None:
    paths = two_volumes(write_mr, edit, keyword, values)

    evidence = check(paths)

    assert [volume.slices for volume in evidence.volumes] == [10, 10]
    assert all(keyword in volume.label for volume in evidence.volumes)
    assert evidence.notes == (Reason.SEVERAL_VOLUMES,)
    assert evidence.left_out == ()


def two_volumes(
    write_mr: Write, edit: Edit, keyword: str, values: tuple[object, object], first_number: int = 11
) -> list[Path]:
    """Two MR volumes at one place in one series, told apart by an attribute."""
    first = write_mr("one", attributes={keyword: values[0]})
    second = write_mr("two", attributes={keyword: values[1]}, first_instance_number=first_number)
    series = read_header(first[0]).series_instance_uid
    for path in second:
        edit(path, lambda ds: setattr(ds, "SeriesInstanceUID", series))
    return [*first, *second]


def test_two_echoes_with_equal_instance_numbers_are_two_volumes(write_mr: Write, edit: Edit) -> None:
    paths = two_volumes(write_mr, edit, "EchoNumbers", (1, 2), first_number=1)

    assert [volume.slices for volume in check(paths).volumes] == [10, 10]


def test_volumes_that_follow_each_other_in_the_numbering_need_no_attribute(
    write_mr: Write, edit: Edit
) -> None:
    paths = two_volumes(write_mr, edit, "ProtocolName", ("ONE", "ONE"))
    for path in paths:
        edit(path, lambda ds: setattr(ds, "AcquisitionTime", "070500"))

    assert [volume.label for volume in check(paths).volumes] == [
        "InstanceNumber pass 1",
        "InstanceNumber pass 2",
    ]


def test_several_volumes_are_refused_where_the_policy_says_so(write_mr: Write, edit: Edit) -> None:
    paths = two_volumes(write_mr, edit, "EchoTime", ("2.5", "5"))

    with pytest.raises(SkipSeriesError) as caught:
        check(paths, several_volumes="refuse")
    assert caught.value.reason is Reason.SEVERAL_VOLUMES
    assert "EchoTime" in caught.value.detail


def test_a_second_echo_that_is_not_whole_holds_the_series_and_is_never_halved(
    write_mr: Write, edit: Edit
) -> None:
    paths = two_volumes(write_mr, edit, "EchoNumbers", (1, 2))[:15]

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.MISSING_SLICE
    assert "EchoNumbers" in caught.value.detail

    released = check(paths, released=True)
    assert [volume.slices for volume in released.volumes] == [10, 5]
    assert released.left_out == ()


def test_half_of_a_second_echo_beside_half_of_the_first_holds_the_series_too(
    write_mr: Write, edit: Edit
) -> None:
    paths = write_mr(attributes={"EchoNumbers": 1})
    for path in paths[5:]:
        edit(path, lambda ds: setattr(ds, "EchoNumbers", 2))

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.MISSING_SLICE


def test_a_trigger_time_that_does_not_cut_whole_volumes_tells_nothing_apart(
    write_ct: Write, edit: Edit
) -> None:
    paths = write_ct()
    edit(paths[3], lambda ds: setattr(ds, "ImagePositionPatient", read_position(paths[2])))

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.DUPLICATE_POSITION
    assert caught.value.evidence["duplicates"] == 2


def test_once_released_the_first_slice_of_a_position_is_taken_and_the_other_named(
    write_ct: Write, edit: Edit
) -> None:
    paths = write_ct()
    edit(paths[9], lambda ds: setattr(ds, "ImagePositionPatient", read_position(paths[8])))

    evidence = check(paths, released=True)

    assert [volume.slices for volume in evidence.volumes] == [9]
    assert [entry.reason for entry in evidence.left_out] == [Reason.DUPLICATE_POSITION]


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


@pytest.mark.parametrize(("mm_per_slice", "degrees", "noted"), [(0.02, 0.38, False), (0.06, 1.15, True)])
def test_a_tilt_beyond_half_a_degree_is_enhanced_on_its_own_grid_and_noted(
    write_ct: Write, edit: Edit, mm_per_slice: float, degrees: float, noted: bool
) -> None:
    paths = write_ct()
    shift(paths, edit, {i: (0.0, i * mm_per_slice, 0.0) for i in range(10)})  # 3 mm between slices

    evidence = check(paths)

    assert evidence.shear_deg == pytest.approx(degrees, abs=0.01)
    assert (Reason.GANTRY_TILT in evidence.notes) == noted
    if noted:
        with pytest.raises(SkipSeriesError) as caught:
            check(paths, irregular="refuse")
        assert caught.value.reason is Reason.GANTRY_TILT


def test_positions_rounded_to_one_decimal_are_still_a_volume(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    shift(paths, edit, {i: (0.0, 0.0, round(2.96 * i, 1) - 3.0 * i) for i in range(10)})

    assert check(paths).spacing_mm == pytest.approx(2.96, abs=0.01)


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.8), (0.4, 0.0, 0.0)], ids=["along", "sideways"])
def test_a_slice_out_of_its_place_leaves_no_run_that_is_long_enough(
    write_ct: Write, edit: Edit, offset: tuple[float, float, float]
) -> None:
    paths = write_ct()
    shift(paths, edit, {4: offset})

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.IRREGULAR_SPACING


def test_blocks_of_another_thickness_or_distance_are_volumes_of_their_own(
    write_ct: Write, edit: Edit
) -> None:
    paths = write_ct()
    for path in paths[5:]:
        edit(path, lambda ds: setattr(ds, "SliceThickness", "6"))
    shift(paths, edit, {i: (0.0, 0.0, 3.0 * (i - 4)) for i in range(5, 10)})

    evidence = check(paths, minimum_slices=4)

    assert [(v.slices, v.spacing_mm) for v in evidence.volumes] == [
        (5, pytest.approx(3.0)),
        (5, pytest.approx(6.0)),
    ]
    assert evidence.notes == (Reason.BLOCKS,)
    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.IRREGULAR_SPACING


def test_a_protocol_that_doubles_its_spacing_midway_is_two_blocks_not_incomplete(
    write_ct: Write, edit: Edit
) -> None:
    paths = write_ct()
    shift(paths, edit, {i: (0.0, 0.0, 3.0 * (i - 4)) for i in range(5, 10)})

    assert [volume.slices for volume in check(paths, minimum_slices=4).volumes] == [5, 5]


def test_a_slice_lost_in_one_of_two_blocks_holds_the_series(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    for path in paths[6:]:
        edit(path, lambda ds: setattr(ds, "SliceThickness", "4"))
    shift(paths, edit, {i: (0.0, 0.0, 1.1 + (i - 6)) for i in range(6, 10)})
    lost = [path for i, path in enumerate(paths) if i != 3]

    with pytest.raises(HoldSeriesError) as caught:
        check(lost, minimum_slices=2)
    assert caught.value.reason is Reason.MISSING_SLICE
    assert [gap["missing"] for gap in caught.value.evidence["gaps"]] == [1]


def test_jitter_in_the_orientation_is_noted_and_does_no_harm(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    edit(paths[3], lambda ds: setattr(ds, "ImageOrientationPatient", [1, 1e-6, 0, 0, 1, 0]))

    evidence = check(paths)
    assert [volume.slices for volume in evidence.volumes] == [10]
    assert evidence.notes == (Reason.ORIENTATION_JITTER,)


def test_a_missing_frame_of_reference_is_noted(write_ct: Write) -> None:
    assert check(write_ct(attributes={"FrameOfReferenceUID": None})).notes == (Reason.NO_FRAME_OF_REFERENCE,)


def test_two_grids_in_one_series_are_two_volumes(write_ct: Write, edit: Edit) -> None:
    first, second = write_ct("one"), write_ct("two", first_instance_number=11)
    series = read_header(first[0]).series_instance_uid
    for path in second:
        edit(path, lambda ds: setattr(ds, "SeriesInstanceUID", series))
        edit(path, lambda ds: setattr(ds, "PixelSpacing", [0.5, 0.5]))

    assert [volume.slices for volume in check([*first, *second]).volumes] == [10, 10]


# --- held for a person


@pytest.mark.parametrize("lost", [[4], [3, 4], [2, 7]])
def test_missing_slices_hold_the_series_and_are_named(write_ct: Write, lost: list[int]) -> None:
    paths = [path for i, path in enumerate(write_ct()) if i not in lost]

    with pytest.raises(HoldSeriesError) as caught:
        check(paths, minimum_slices=4)

    assert caught.value.reason is Reason.MISSING_SLICE
    assert sum(gap["missing"] for gap in caught.value.evidence["gaps"]) == len(lost)
    assert caught.value.evidence["number_holes"] == len(lost)
    released = check(paths, minimum_slices=2, released=True)
    assert Reason.GAP in released.notes
    assert sum(volume.slices for volume in released.volumes) + len(released.left_out) == len(paths)


def test_the_second_pass_of_an_interleaved_acquisition_that_broke_off_holds_the_series(
    write_ct: Write,
) -> None:
    paths = write_ct()
    arrived = paths[0::2] + paths[1:4:2]

    with pytest.raises(HoldSeriesError) as caught:
        check(arrived, minimum_slices=4)
    assert caught.value.reason is Reason.MISSING_SLICE
