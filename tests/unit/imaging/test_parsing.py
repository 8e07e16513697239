"""What is kept of a parsed file, and which zones there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from dicom_node.imaging.parsing import read_instance
from dicom_node.imaging.provenance import zone_of

Write = Callable[..., list[Path]]
Edit = Callable[[Path, Callable[[FileDataset], None]], None]


def test_large_private_values_are_not_kept_in_memory_and_small_ones_are(write_ct: Write, edit: Edit) -> None:
    path = write_ct()[0]

    def add(ds: FileDataset) -> None:
        block = ds.private_block(0x0029, "VENDOR", create=True)
        block.add_new(0x10, "OB", b"x" * (1 << 20))
        block.add_new(0x11, "OB", b"y" * 64)

    edit(path, add)

    ds, place = read_instance(path)

    assert place is not None
    assert 0x00291010 not in ds
    assert 0x00291011 in ds


@pytest.mark.parametrize(("offset", "hours"), [("+0200", 2), ("-1200", -12), ("+1400", 14), ("+0545", 5.75)])
def test_a_zone_that_is_on_the_map(offset: str, hours: float) -> None:
    zone = zone_of(offset)

    assert zone is not None
    assert zone.utcoffset(None) == timedelta(hours=hours)


@pytest.mark.parametrize("offset", ["", "+9999", "-1300", "+1500", "+0160", "0200", "+02", "east"])
def test_a_zone_that_is_not(offset: str) -> None:
    assert zone_of(offset) is None
