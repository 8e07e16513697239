"""The words routing rules may ask about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.imaging.headers import read_header
from dicom_node.imaging.summary import summarise

Write = Callable[..., list[Path]]


def test_a_summary_says_what_the_headers_say(write_ct: Write) -> None:
    headers = [read_header(p) for p in write_ct(attributes={"ContrastBolusAgent": "IOHEXOL"})]

    summary = summarise(headers, calling_ae="SCANNER", called_ae="ENHANCE")

    assert (summary.modality, summary.calling_ae, summary.called_ae) == ("CT", "SCANNER", "ENHANCE")
    assert (summary.body_part, summary.kernel, summary.manufacturer) == ("HEAD", "SOFT", "Phantom Scanners")
    assert summary.series_description == "HEAD 3.0 SOFT"
    assert (summary.slice_count, summary.slice_thickness_mm) == (10, 3.0)
    assert summary.contrast


def test_what_most_slices_say_stands_for_the_series(write_ct: Write, edit: Callable[..., None]) -> None:
    paths = write_ct()
    edit(paths[0], lambda ds: setattr(ds, "BodyPartExamined", "CHEST"))

    summary = summarise([read_header(p) for p in paths], calling_ae="A", called_ae="B")

    assert summary.body_part == "HEAD"
    assert not summary.contrast


@pytest.mark.parametrize(
    ("orientation", "name"),
    [
        (["1", "0", "0", "0", "1", "0"], "axial"),
        (["0", "1", "0", "0", "0", "-1"], "sagittal"),
        (["1", "0", "0", "0", "0", "-1"], "coronal"),
        (["1", "0", "0", "0", "0.9397", "0.3420"], "axial"),
        (["1", "0", "0", "0", "0.7071", "0.7071"], "oblique"),
        (["1", "0", "0", "1", "0", "0"], "unknown"),
        (None, "unknown"),
    ],
)
def test_the_plane_nearest_to_the_slices_is_named(
    write_ct: Write, orientation: list[str] | None, name: str
) -> None:
    headers = [read_header(p) for p in write_ct(attributes={"ImageOrientationPatient": orientation})]

    assert summarise(headers, calling_ae="A", called_ae="B").orientation == name


def test_a_summary_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="instance"):
        summarise([], calling_ae="A", called_ae="B")
