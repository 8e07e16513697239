"""No error, repr or warning of this room repeats what a data set says about a person."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import Tag

from dicom_node.errors import ReasonedError
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.series_reader import read_series

Write = Callable[..., list[Path]]
Edit = Callable[..., None]
MARK = "MARKED"


def mark(keyword: str, vr: str) -> Callable[[FileDataset], None]:
    """Put the marked name where the parser expects something else."""

    def change(ds: FileDataset) -> None:
        value = f"{MARK}^PATIENT".encode()
        tag = Tag(keyword)
        ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    return change


@pytest.mark.parametrize(
    ("keyword", "vr"),
    [
        ("SliceThickness", "DS"),
        ("RescaleSlope", "DS"),
        ("PixelSpacing", "DS"),
        ("ImagePositionPatient", "DS"),
        ("InstanceNumber", "IS"),
        ("Rows", "US"),
        ("SpecificCharacterSet", "CS"),
        ("PhotometricInterpretation", "CS"),
        ("StudyDate", "DA"),
        ("PatientID", "LO"),
        ("SeriesDescription", "LO"),
    ],
)
def test_a_name_in_the_wrong_place_is_never_repeated(
    write_ct: Write,
    edit: Edit,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    keyword: str,
    vr: str,
) -> None:
    paths = write_ct()
    edit(paths[3], mark(keyword, vr))
    caplog.clear()
    said = ""

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (lambda: read_header(paths[3]), lambda: read_series(paths)):
            try:
                said += repr(read())
            except ReasonedError as exc:
                said += "".join(traceback.format_exception(exc)) + exc.message

    captured = capfd.readouterr()
    assert MARK not in said + captured.out + captured.err


def test_a_header_tells_patients_apart_without_naming_them(write_ct: Write) -> None:
    one = read_header(write_ct("one", patient_id="P1", patient_name=MARK, series_description=MARK)[0])
    two = read_header(write_ct("two", patient_id="P2")[0])

    assert one.patient_key != two.patient_key
    assert MARK not in repr(one)
    assert "'P1'" not in repr(one)
