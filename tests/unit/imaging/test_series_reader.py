"""Stored slices to a volume."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.pixels import UndecodablePixelsError
from dicom_node.imaging.series_reader import read_series
from engine.volume import IntensityUnit, Volume

Write = Callable[..., list[Path]]
Edit = Callable[..., None]


def test_slices_in_any_order_become_the_volume_they_were_made_from(
    write_ct: Write, ct_volume: Volume
) -> None:
    paths = write_ct()
    random.Random(1).shuffle(paths)

    series = read_series(paths)

    assert series.volume.unit is IntensityUnit.HU
    assert np.abs(series.volume.array - ct_volume.array).max() <= 0.5
    assert np.allclose(series.volume.affine, ct_volume.affine)
    assert [s.header.instance_number for s in series.slices] == list(range(1, 11))
    assert series.volume.valid is None


def test_a_stack_numbered_from_the_top_is_sorted_by_position(write_ct: Write, ct_volume: Volume) -> None:
    upside_down = replace(
        ct_volume,
        affine=ct_volume.affine @ np.array([[-1, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float),
    )

    series = read_series(write_ct(volume=upside_down))

    assert [s.header.instance_number for s in series.slices] == list(range(10, 0, -1))
    assert np.allclose(series.volume.affine, ct_volume.affine)


def test_an_oblique_stack_keeps_its_place_in_the_patient(write_mr: Write, mr_volume: Volume) -> None:
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    oblique = replace(mr_volume, affine=turn @ mr_volume.affine)

    series = read_series(write_mr(volume=oblique))

    assert series.volume.unit is IntensityUnit.ARBITRARY
    assert np.allclose(series.volume.affine, oblique.affine, atol=1e-6)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
    ids=lambda uid: uid.name,
)
@pytest.mark.parametrize("signed", [False, True])
def test_every_lossless_transfer_syntax_gives_the_same_voxels(
    write_ct: Write, syntax: str, signed: bool
) -> None:
    style = {"signed": signed, "intercept": 0.0 if signed else -1024.0, "bits_stored": 16}
    plain, encoded = write_ct("plain", **style), write_ct("encoded", syntax=syntax, **style)

    assert (read_series(plain).volume.array == read_series(encoded).volume.array).all()


def test_every_slice_is_rescaled_by_its_own_slope(write_mr: Write, mr_volume: Volume) -> None:
    paths = write_mr(slopes=(1.0, 0.37, 3.77), bits_stored=16)

    volume = read_series(paths).volume

    assert np.abs(volume.array - mr_volume.array).max() <= 3.77 / 2 + 1e-3
    assert np.abs(volume.array[1] - mr_volume.array[1]).max() <= 0.37 / 2 + 1e-3


@pytest.mark.parametrize(("signed", "padding"), [(True, -2000), (False, 4095), (False, 0)])
def test_padding_is_remembered_as_not_valid(
    write_ct: Write, ct_volume: Volume, signed: bool, padding: int
) -> None:
    valid = np.ones(ct_volume.array.shape, np.bool_)
    valid[:, :2] = False
    inside = ct_volume.with_array(np.maximum(ct_volume.array, -900))
    paths = write_ct(
        volume=replace(inside, valid=valid),
        padding=padding,
        signed=signed,
        bits_stored=16 if signed else 12,
        intercept=-1024.0,
    )

    series = read_series(paths)

    assert series.volume.valid is not None
    assert (series.volume.valid == valid).all()
    assert series.slices[0].padding_cells is not None
    assert set(series.slices[0].padding_cells.tolist()) == {padding & 0xFFFF}


def test_a_padding_value_that_no_voxel_has_leaves_every_voxel_valid(write_ct: Write) -> None:
    assert read_series(write_ct(attributes={"PixelPaddingValue": 4095})).volume.valid is None


def test_a_padding_range_is_padding_on_both_ends(write_ct: Write, edit: Edit) -> None:
    paths = write_ct(padding=0)

    for path in paths:
        edit(path, lambda ds: ds.add_new("PixelPaddingRangeLimit", "US", 40))
    valid = read_series(paths).volume.valid

    assert valid is not None
    assert (valid == (read_series(paths).volume.array > -1024 + 40)).all()


def test_overlay_bits_do_not_reach_the_volume(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    clean = read_series(paths).volume.array

    def draw(ds: object) -> None:
        pixels = np.frombuffer(ds.PixelData, "<u2") | 0x8000  # type: ignore[attr-defined]
        ds.PixelData = pixels.astype("<u2").tobytes()  # type: ignore[attr-defined]

    edit(paths[0], draw)

    assert (read_series(paths).volume.array == clean).all()


def test_monochrome1_is_not_inverted(write_ct: Write) -> None:
    plain = read_series(write_ct("a")).volume.array
    inverse = read_series(write_ct("b", attributes={"PhotometricInterpretation": "MONOCHROME1"})).volume.array

    assert (plain == inverse).all()


def test_truncated_pixels_are_a_decode_error_that_names_the_instance(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    edit(paths[3], lambda ds: setattr(ds, "PixelData", ds.PixelData[:100]))

    with pytest.raises(UndecodablePixelsError) as caught:
        read_series(paths)
    assert caught.value.reason is Reason.DECODE_ERROR
    assert "2.25." in caught.value.detail


@pytest.mark.parametrize(
    "change", [{"Rows": 65535, "Columns": 65535}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}]
)
def test_a_header_that_states_other_bytes_than_there_are_is_refused_before_memory_is_asked_for(
    write_ct: Write, change: dict[str, object]
) -> None:
    with pytest.raises(UndecodablePixelsError) as caught:
        read_series(write_ct(attributes=change))
    assert "stated" in caught.value.detail


def test_more_voxels_than_are_taken_are_refused_before_memory_is_asked_for(
    write_ct: Write, ct_volume: Volume
) -> None:
    paths, size = write_ct(), ct_volume.array.size
    with pytest.raises(SkipSeriesError) as skipped:
        read_series(paths, AssemblyPolicy(most_voxels=size - 1))

    assert skipped.value.reason is Reason.TOO_LARGE
    assert read_series(paths, AssemblyPolicy(most_voxels=size)).volume.array.size == size


def test_a_damaged_compressed_frame_is_a_decode_error(write_ct: Write) -> None:
    paths = write_ct(syntax=JPEG2000Lossless)
    content = paths[3].read_bytes()
    paths[3].write_bytes(content.replace(b"\xff\x4f\xff\x51", b"\0\0\0\0"))

    with pytest.raises(UndecodablePixelsError):
        read_series(paths)


def test_a_missing_slice_is_never_bridged(write_ct: Write) -> None:
    paths = write_ct()
    del paths[4]

    with pytest.raises(HoldSeriesError) as caught:
        read_series(paths)
    assert caught.value.reason is Reason.MISSING_SLICE


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_slices_are_no_volume(write_ct: Write, count: int) -> None:
    with pytest.raises(SkipSeriesError) as caught:
        read_series(write_ct()[:count])

    assert caught.value.reason is Reason.TOO_FEW_SLICES
