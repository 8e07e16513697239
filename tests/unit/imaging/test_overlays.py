"""Overlays: in planes of their own or in unused bits of the pixels; dropped, or kept bit by bit, by policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.series_reader import read_series
from dicom_node.imaging.verify import verify_series

Write = Callable[..., list[Path]]
KEEP = DerivationPolicy(overlays="keep")


def draw(ds: FileDataset) -> None:
    """An overlay in bit 15 of every third pixel, and one in a plane of its own."""
    pixels = np.frombuffer(ds.PixelData, "<u2").copy()
    pixels[::3] |= 0x8000
    ds.PixelData = pixels.tobytes()
    for group, position in ((0x6000, 15), (0x6002, 0)):
        ds.add_new((group, 0x0010), "US", ds.Rows)
        ds.add_new((group, 0x0011), "US", ds.Columns)
        ds.add_new((group, 0x0040), "CS", "G")
        ds.add_new((group, 0x0050), "SS", [1, 1])
        ds.add_new((group, 0x0100), "US", 16 if position else 1)
        ds.add_new((group, 0x0102), "US", position)
    ds.add_new((0x6002, 0x3000), "OW", bytes(range(180)))


@pytest.fixture
def drawn(write_ct: Write, edit: Callable[..., None]) -> list[Path]:
    """A CT series with both kinds of overlay."""
    paths = write_ct()
    for path in paths:
        edit(path, draw)
    return paths


def test_by_default_no_overlay_is_carried_over(
    drawn: list[Path], derive: Callable[..., object], tmp_path: Path
) -> None:
    derive(drawn, tmp_path / "derived")

    ds = dcmread(tmp_path / "derived" / "00003.dcm")
    assert not any(tag.group & 0xFF00 == 0x6000 for tag in ds.keys())  # noqa: SIM118
    assert not (np.frombuffer(ds.PixelData, "<u2") & 0xF000).any()
    assert verify_series(tmp_path / "source", tmp_path / "derived", policy=DerivationPolicy()).passed


def test_kept_overlays_are_the_sources_bit_by_bit_and_never_reach_the_voxels(
    drawn: list[Path], derive: Callable[..., object], tmp_path: Path
) -> None:
    derive(drawn, tmp_path / "derived", policy=KEEP)

    before, after = dcmread(drawn[2]), dcmread(tmp_path / "derived" / "00003.dcm")
    bits = [np.frombuffer(ds.PixelData, "<u2") & 0xF000 for ds in (before, after)]
    assert bits[0].any()
    assert (bits[0] == bits[1]).all()
    assert after[0x60023000].value == before[0x60023000].value
    assert read_series(drawn).volume.array.max() < 4096
    assert verify_series(tmp_path / "source", tmp_path / "derived", policy=KEEP).passed


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (13, lambda ds: setattr(ds, "PixelData", bytes(2) + ds.PixelData[2:])),
        (28, lambda ds: setattr(ds[0x60020050], "value", [2, 1])),
    ],
    ids=["a bit of it lost", "moved"],
)
def test_a_kept_overlay_that_changed_is_seen(
    drawn: list[Path],
    derive: Callable[..., object],
    edit: Callable[..., None],
    tmp_path: Path,
    number: int,
    change: Callable[[FileDataset], None],
) -> None:
    derive(drawn, tmp_path / "derived", policy=KEEP)
    edit(tmp_path / "derived" / "00003.dcm", change)

    report = verify_series(tmp_path / "source", tmp_path / "derived", policy=KEEP)
    assert number in report.failed_numbers
