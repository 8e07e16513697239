"""Enhanced voxels back to stored values, and onto the disk."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.errors import DeriveError, Reason
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import derive_series, to_cells
from dicom_node.imaging.pixels import Padding
from dicom_node.imaging.series_reader import SourceSeries, read_series
from dicom_node.imaging.uids import UidPlan
from engine.volume import Volume

Write = Callable[..., list[Path]]


def write_derived(
    source: SourceSeries, volume: Volume, directory: Path, made_by: Provenance, job: str = "job-1"
) -> list[Path]:
    """Derive with the standard policy."""
    directory.mkdir()
    written = derive_series(
        source,
        [volume],
        provenance=made_by,
        policy=DerivationPolicy(),
        uids=UidPlan(job),
        directory=directory,
    )
    return [instance.path for instance in written]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_an_unchanged_volume_gives_the_stored_values_back(
    write_ct: Write, provenance: Provenance, tmp_path: Path, bits: int, signed: bool
) -> None:
    paths = write_ct(bits_stored=bits, signed=signed, slopes=(1.0, 0.37, 2.5), intercept=-1000.3)
    source = read_series(paths)

    derived = write_derived(source, source.volume, tmp_path / "derived", provenance)

    for before, after in zip(paths, derived, strict=True):
        assert dcmread(before).PixelData == dcmread(after).PixelData


def test_real_values_are_rounded_half_to_even_and_clipped_to_the_stored_bits(write_ct: Write) -> None:
    piece = read_series(write_ct()).slices[0]
    real = np.full((40, 36), -1024.0, np.float32)
    real[0, :6] = [-1023.5, -1022.5, -1021.5, 9999.0, -9999.0, 3071.4]

    cells = to_cells(real, piece, None)

    assert cells[0, :6].tolist() == [0, 2, 2, 4095, 0, 4095]


def test_measured_values_that_would_read_as_padding_move_to_the_side_they_came_from(
    write_ct: Write,
) -> None:
    piece = replace(read_series(write_ct()).slices[0], padding=Padding(100, 110))
    real = np.full((40, 36), 0.0, np.float32)
    real[0, :5] = np.array([99, 101, 109, 110, 111], np.float32) - 1024

    cells = to_cells(real, piece, None)

    assert cells[0, :5].tolist() == [99, 99, 111, 111, 111]


def test_values_clipped_onto_padding_at_the_end_of_the_range_move_inside(write_ct: Write) -> None:
    piece = replace(read_series(write_ct()).slices[0], padding=Padding(0, 0))

    cells = to_cells(np.full((40, 36), -5000.0, np.float32), piece, None)

    assert set(cells.ravel().tolist()) == {1}


def test_padding_returns_bit_by_bit_whatever_the_enhancer_made_of_it(
    write_ct: Write, ct_volume: Volume, provenance: Provenance, tmp_path: Path
) -> None:
    valid = np.ones(ct_volume.array.shape, np.bool_)
    valid[:, :3] = False
    paths = write_ct(volume=replace(ct_volume, valid=valid), padding=-2000, signed=True, bits_stored=16)
    source = read_series(paths)
    enhanced = source.volume.with_array(np.full(source.volume.array.shape, 17.0, np.float32))

    derived = write_derived(source, enhanced, tmp_path / "derived", provenance)

    pixels = np.frombuffer(dcmread(derived[4]).PixelData, "<i2").reshape(40, 36)
    assert (pixels[:3] == -2000).all()
    assert (pixels[3:] == 17 + 1024).all()


def test_files_are_described_by_digest_size_and_position(
    write_ct: Write, derive: Callable[..., tuple[object, ...]], tmp_path: Path
) -> None:
    written = derive(write_ct(), tmp_path / "derived")

    for position, instance in enumerate(written):
        content = instance.path.read_bytes()  # type: ignore[attr-defined]
        assert instance.digest == hashlib.sha256(content).hexdigest()  # type: ignore[attr-defined]
        assert (instance.size, instance.position) == (len(content), position)  # type: ignore[attr-defined]
        ds = dcmread(instance.path)  # type: ignore[attr-defined]
        assert instance.sop_instance_uid == ds.SOPInstanceUID  # type: ignore[attr-defined]
        assert instance.series_instance_uid == ds.SeriesInstanceUID  # type: ignore[attr-defined]
        assert instance.transfer_syntax_uid == ds.file_meta.TransferSyntaxUID  # type: ignore[attr-defined]


def test_the_same_job_writes_the_same_bytes_and_another_job_other_uids(
    write_ct: Write, derive: Callable[..., tuple[object, ...]], tmp_path: Path
) -> None:
    paths = write_ct()

    first = derive(paths, tmp_path / "first")
    again = derive(paths, tmp_path / "again")
    other = derive(paths, tmp_path / "other", job_key="job-2")

    assert [i.digest for i in first] == [i.digest for i in again]  # type: ignore[attr-defined]
    assert {i.sop_instance_uid for i in first}.isdisjoint(  # type: ignore[attr-defined]
        i.sop_instance_uid  # type: ignore[attr-defined]
        for i in other
    )


def test_every_file_and_then_the_directory_is_synced(
    write_ct: Write, derive: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real_fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)

    derive(write_ct(), tmp_path / "derived")

    assert synced == [f"{n:05d}.dcm" for n in range(1, 11)] + ["derived"]


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, Reason.NO_SPACE), (errno.EIO, Reason.STORAGE_FAILED)]
)
def test_a_disk_that_fails_is_a_reason_not_a_crash(
    write_ct: Write,
    derive: Callable[..., object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    reason: Reason,
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(DeriveError) as caught:
        derive(write_ct(), tmp_path / "derived")
    assert caught.value.reason is reason


def test_an_existing_file_is_never_overwritten(
    write_ct: Write, derive: Callable[..., object], tmp_path: Path, provenance: Provenance
) -> None:
    paths = write_ct()
    derive(paths, tmp_path / "derived")
    source = read_series(paths)

    with pytest.raises(DeriveError, match="EEXIST"):
        derive_series(
            source,
            [source.volume],
            provenance=provenance,
            policy=DerivationPolicy(),
            uids=UidPlan("job-1"),
            directory=tmp_path / "derived",
        )


def test_a_volume_of_another_shape_is_refused(
    write_ct: Write, provenance: Provenance, tmp_path: Path
) -> None:
    source = read_series(write_ct())
    cropped = replace(source.volume, array=source.volume.array[1:].copy())

    with pytest.raises(DeriveError) as caught:
        write_derived(source, cropped, tmp_path / "derived", provenance)
    assert caught.value.reason is Reason.INTERNAL_ERROR


def test_sources_are_not_touched(write_ct: Write, derive: Callable[..., object], tmp_path: Path) -> None:
    paths = write_ct()
    before = [p.read_bytes() for p in paths]

    derive(paths, tmp_path / "derived")

    assert [p.read_bytes() for p in paths] == before
