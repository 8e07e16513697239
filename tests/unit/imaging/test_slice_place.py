"""The quick look at a header says what the parser says, and leaves to the parser what is not plain."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.imaging import slice_place as module
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.imaging.slice_place import SlicePlace, slice_place
from engine.phantom import head_phantom

EXPECTED = SlicePlace((-12.5, 3.0, 118.75), 17.0)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Dataset:
    volume = head_phantom(shape=(2, 16, 16), spacing_mm=(3.0, 6.0, 6.0))
    (path, *_) = write_ct_series(volume, tmp_path_factory.mktemp("ct"), style=PhantomStyle(study_key="place"))
    ds = dcmread(path)
    ds.ImagePositionPatient, ds.InstanceNumber = [-12.5, 3, 118.75], 17
    return ds


def written(image: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian, **how) -> Path:
    ds = copy.deepcopy(image)
    for name, value in how.items():
        setattr(ds, name, value)
    ds.file_meta.TransferSyntaxUID = syntax
    order = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}
    swapped = syntax == ExplicitVRBigEndian
    dcmwrite(path, ds, force_encoding=swapped, enforce_file_format=not swapped, **order)
    return path


def referenced(count: int = 1, *, undefined: bool) -> Sequence:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.is_undefined_length_sequence_item = undefined
    sequence = Sequence([copy.deepcopy(item) for _ in range(count)])
    sequence.is_undefined_length = undefined
    return sequence


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "how", [{}, {"ReferencedImageSequence": referenced(undefined=False)}], ids=["", "sequence"]
)
def test_a_plain_header_needs_no_parser(image, tmp_path, monkeypatch, syntax, how):
    path = written(image, tmp_path / "a.dcm", syntax, **how)
    monkeypatch.setattr(module, "_parsed", lambda _: pytest.fail("the parser was asked"))

    assert slice_place(path) == EXPECTED


@pytest.mark.parametrize(
    ("syntax", "how"),
    [
        (ExplicitVRBigEndian, {"PixelData": bytes(512)}),
        (DeflatedExplicitVRLittleEndian, {}),
        (ExplicitVRLittleEndian, {"ImageComments": "x", "StudyComments": "y", "Manufacturer": "m" * 60}),
        (ExplicitVRLittleEndian, {"SourceImageSequence": referenced(undefined=True)}),
        (ExplicitVRLittleEndian, {"ReferencedImageSequence": referenced(1000, undefined=False)}),
    ],
    ids=["big endian", "deflated", "more text", "undefined length", "beyond the head"],
)
def test_any_other_header_says_the_same(image, tmp_path, syntax, how):
    assert slice_place(written(image, tmp_path / "a.dcm", syntax, **how)) == EXPECTED


def test_what_a_file_does_not_say_is_not_known(image, tmp_path):
    ds = copy.deepcopy(image)
    del ds.ImagePositionPatient, ds.InstanceNumber

    assert slice_place(written(ds, tmp_path / "a.dcm")) == SlicePlace(None, None)


@pytest.mark.parametrize("keep", [0, 100, 136, 150, 400])
def test_a_file_that_is_cut_off_is_no_error(image, tmp_path, keep):
    whole = written(image, tmp_path / "a.dcm").read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole[:keep])

    assert slice_place(cut) == SlicePlace(None, None)
    assert slice_place(tmp_path / "not-there.dcm") == SlicePlace(None, None)
