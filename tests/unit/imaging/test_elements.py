"""Reading values without converting them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.elements import (
    canonical,
    decoded_text,
    integer,
    items,
    number,
    numbers,
    stored,
    tag_of,
    text,
    texts,
    word,
)
from dicom_node.imaging.parsing import read_dataset


def raw(keyword: str, vr: str | None, value: bytes, *, little: bool = True) -> Dataset:
    """A data set with one element as a parser leaves it."""
    ds = Dataset()
    tag = BaseTag(tag_of(keyword))
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, little)
    return ds


def test_a_decimal_string_longer_than_allowed_is_a_number_and_keeps_its_bytes() -> None:
    ds = raw("SliceThickness", "DS", b"0.90000003576278690")

    assert number(ds, "SliceThickness") == pytest.approx(0.9)
    assert stored(ds, "SliceThickness") == b"0.90000003576278690"


@pytest.mark.parametrize("value", [b"", b"  ", b"left\\right", b"1\\x", b"1,5"])
def test_what_is_no_number_is_none(value: bytes) -> None:
    assert numbers(raw("PixelSpacing", "DS", value), "PixelSpacing") is None


def test_a_binary_number_is_read_in_the_order_of_the_file() -> None:
    assert integer(raw("Rows", "US", b"\x01\x02", little=False), "Rows") == 0x0102
    assert integer(raw("Rows", "US", b"\x01\x02"), "Rows") == 0x0201


def test_a_vr_that_the_encoding_leaves_out_comes_from_the_dictionary() -> None:
    assert integer(raw("Rows", None, b"\x00\x02"), "Rows") == 512
    assert number(raw("DiffusionBValue", None, b"\0" * 6 + b"\x59\x40"), "DiffusionBValue") == 100.0


@pytest.mark.parametrize("vr", ["US", "SS", None])
def test_a_padding_value_has_the_sign_of_the_pixels_whatever_its_vr(vr: str | None) -> None:
    ds = raw("PixelPaddingValue", vr, b"\x30\xf8")

    assert word(ds, "PixelPaddingValue", signed=True) == -2000
    assert word(ds, "PixelPaddingValue", signed=False) == 63536


def test_code_strings_are_stripped_and_never_fail() -> None:
    assert texts(raw("ImageType", "CS", b"ORIGINAL\\PRIMARY \\\xff"), "ImageType") == (
        "ORIGINAL",
        "PRIMARY",
        "?",
    )
    assert text(Dataset(), "ImageType") == ""


def test_free_text_is_read_in_its_own_character_set() -> None:
    ds = raw("SeriesDescription", "LO", "Schädel".encode())
    tag = BaseTag(tag_of("SpecificCharacterSet"))
    ds[tag] = RawDataElement(tag, "CS", 10, b"ISO_IR 192", 0, False, True)

    assert decoded_text(ds, "SeriesDescription") == "Schädel"


def test_text_of_an_unknown_character_set_is_read_without_a_warning() -> None:
    ds = raw("SeriesDescription", "LO", b"Sch\xe4del")
    tag = BaseTag(tag_of("SpecificCharacterSet"))
    ds[tag] = RawDataElement(tag, "CS", 8, b"ISO_XX 9", 0, False, True)

    assert decoded_text(ds, "SeriesDescription").startswith("Sch")


def test_values_compare_across_byte_orders_and_private_elements_in_items_do_not_count(
    tmp_path: Path,
) -> None:
    ds = Dataset()
    inner = Dataset()
    inner.Rows = 512
    ds.ReferencedImageSequence = [inner]
    other = Dataset()
    same = Dataset()
    same.Rows = 512
    same.add_new(0x00090010, "LO", "VENDOR")
    other.ReferencedImageSequence = [same]
    parsed = []
    for number_of, (data_set, implicit) in enumerate(((ds, True), (other, False))):
        buffer = io.BytesIO()
        data_set.save_as(buffer, implicit_vr=implicit, little_endian=implicit)
        path = tmp_path / str(number_of)
        path.write_bytes(buffer.getvalue())
        parsed.append(dcmread(path, force=True))

    assert canonical(parsed[0], "ReferencedImageSequence") is not None
    assert canonical(parsed[0], "ReferencedImageSequence") == canonical(parsed[1], "ReferencedImageSequence")


def test_a_damaged_sequence_has_no_items() -> None:
    assert items(raw("ReferencedImageSequence", "SQ", b"\xff" * 7), "ReferencedImageSequence") == ()


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 50])
def test_a_file_that_is_no_dicom_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(UnreadableInstanceError):
        read_dataset(path, pixels=True)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInstanceError, match="FileNotFoundError"):
        read_dataset(tmp_path / "nothing", pixels=False)


def test_an_empty_element_that_no_dictionary_lists_is_compared_without_a_word() -> None:
    item = bytes.fromhex("0001010000000000")  # (0100,0001), implicit encoding, no value
    sequence = bytes.fromhex("0800401110000000feff00e008000000") + item
    ds = dcmread(io.BytesIO(sequence), force=True)

    (found,) = canonical(ds, "ReferencedImageSequence") or ()

    assert found == ((0x01000001, b""),)
