"""Cells, stored values and padding."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.imaging.pixels import Padding, PixelFormat, can_decode


def layout(bits: int, high_bit: int | None = None, *, signed: bool = False) -> PixelFormat:
    """A 1x4 slice with these bits."""
    return PixelFormat(
        rows=1,
        columns=4,
        samples=1,
        photometric="MONOCHROME2",
        bits_allocated=16,
        bits_stored=bits,
        high_bit=bits - 1 if high_bit is None else high_bit,
        signed=signed,
    )


def test_overlay_bits_above_the_high_bit_are_masked_off() -> None:
    cells = np.array([[0xF123, 0x0FFF, 0x1000, 0]], np.uint16)

    assert layout(12).to_stored(cells).tolist() == [[0x123, 0xFFF, 0, 0]]


def test_a_signed_value_is_extended_from_its_high_bit() -> None:
    cells = np.array([[0x0830, 0xF830, 0x07FF, 0x0FFF]], np.uint16)

    assert layout(12, signed=True).to_stored(cells).tolist() == [[-2000, -2000, 2047, -1]]


def test_values_may_lie_in_the_upper_bits_of_the_cell() -> None:
    upper = layout(12, 15)
    cells = np.array([[0x1230, 0xFFF0, 0x0010, 0x000F]], np.uint16)

    assert upper.to_stored(cells).tolist() == [[0x123, 0xFFF, 1, 0]]
    assert upper.to_cells(np.array([[0x123]], np.int32)).tolist() == [[0x1230]]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "high_bit"), [(12, 11), (12, 15), (16, 15), (13, 12), (15, 14)])
def test_every_stored_value_survives_the_cell(bits: int, high_bit: int, signed: bool) -> None:
    own = layout(bits, high_bit, signed=signed)
    values = np.arange(own.minimum, own.maximum + 1, dtype=np.int32).reshape(1, -1)

    assert (own.to_stored(own.to_cells(values)) == values).all()
    assert values.size == 2**bits


def test_a_padding_range_holds_both_of_its_ends() -> None:
    cells = np.array([[9, 10, 20, 21]], np.uint16)

    assert Padding(10, 20).mask(cells, layout(12)).tolist() == [[False, True, True, False]]


def test_a_padding_value_that_the_stored_bits_cannot_hold_is_found_in_the_cell() -> None:
    cells = np.array([[63536, 0, 1, 2]], np.uint16)

    assert Padding(63536, 63536).mask(cells, layout(12)).tolist() == [[True, False, False, False]]


def test_padding_at_the_end_of_the_range_has_one_neighbour() -> None:
    assert Padding(0, 0).nearest_outside(layout(12)) == (None, 1)
    assert Padding(4095, 4095).nearest_outside(layout(12)) == (4094, None)
    assert Padding(-2000, -2000).nearest_outside(layout(16, signed=True)) == (-2001, -1999)


@pytest.mark.parametrize(
    "change",
    [
        {"bits_allocated": 8},
        {"bits_allocated": 32},
        {"samples": 3},
        {"photometric": "PALETTE COLOR"},
        {"high_bit": 10},
        {"high_bit": 16},
        {"bits_stored": 0},
        {"rows": 0},
    ],
)
def test_other_pixel_formats_are_not_supported(change: dict[str, object]) -> None:
    fields = layout(12).__dict__ | change

    assert layout(12).is_supported
    assert not PixelFormat(**fields).is_supported


def test_a_syntax_that_is_no_uid_has_no_decoder_and_is_not_quoted_in_a_warning() -> None:
    assert not can_decode("1.2.840.10008.1/2.1")
    assert can_decode("1.2.840.10008.1.2.1")
