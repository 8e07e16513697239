"""NIfTI files: what the engine sees of them, and that nothing but enhanced voxels ever changes."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from dicom_node.imaging.nifti import (
    NiftiError,
    NiftiSource,
    modality_beside,
    read_nifti,
    to_stored,
    write_map,
    write_nifti,
)
from dicom_node.imaging.verify_nifti import verify_nifti
from engine.volume import IntensityUnit

OBLIQUE = np.array([[-0.8, 0.1, 0.3, 90], [0.1, 0.9, -0.4, -120], [0.05, 0.2, 2.9, -40], [0, 0, 0, 1]])
SHAPE = (12, 10, 9)


def save(
    path: Path, stored: Any, *, affine: Any = OBLIQUE, kind: Any = nib.Nifti1Image, **header: Any
) -> Path:
    """Write an image whose stored values are exactly these."""
    image = kind(stored, affine, dtype=stored.dtype)
    image.set_data_dtype(stored.dtype)
    for name, value in header.items():
        image.header[name] = value
    path.write_bytes(gzip.compress(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())
    return path


def scaled(path: Path, slope: float, intercept: float) -> Path:
    """Set the scaling in the header bytes themselves; nibabel would choose its own."""
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    return path


def values(dtype: str, shape: tuple[int, ...] = SHAPE) -> Any:
    return (np.random.default_rng(0).standard_normal(shape) * 50 + 100).clip(1, 250).astype(dtype)


def rewritten(source: NiftiSource, path: Path, enhanced: Any = None) -> bytes:
    """What a file holds after the way through the engine's form."""
    volume = source.volume if enhanced is None else source.volume.with_array(enhanced)
    write_nifti(path, source, to_stored(source, volume), compressed=False)
    return path.read_bytes()


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", ">f4", "<f8"]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_unchanged_voxels_give_the_same_file_byte_for_byte(tmp_path: Path, dtype: str, kind: Any) -> None:
    path = save(tmp_path / "a.nii", values(dtype), kind=kind, descrip=b"mine", xyzt_units=2)
    assert rewritten(read_nifti(path, "MR"), tmp_path / "b.nii") == path.read_bytes()


def test_a_big_endian_header_with_extension_and_trailing_bytes_is_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values(">i2"), OBLIQUE, nib.Nifti1Header(endianness=">"))
    image.header.extensions.append(Nifti1Extension("comment", b"kept as it is"))
    path = tmp_path / "a.nii"
    path.write_bytes(image.to_bytes() + b"trailer")
    assert rewritten(read_nifti(path, "MR"), tmp_path / "b.nii") == path.read_bytes()


def test_values_that_float32_cannot_hold_survive(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values("<i4") + 16_777_217)
    assert rewritten(read_nifti(path, "MR"), tmp_path / "b.nii") == path.read_bytes()


def test_the_engine_sees_slices_rows_columns_in_lps_millimetres(tmp_path: Path) -> None:
    stored = values("<i2")
    volume = read_nifti(save(tmp_path / "a.nii", stored), "CT").volume
    assert volume.unit is IntensityUnit.HU
    assert volume.array.shape == (9, 10, 12)
    assert volume.array[3, 4, 5] == stored[5, 4, 3]
    ras = OBLIQUE.astype(np.float32) @ [5, 4, 3, 1]
    np.testing.assert_allclose(volume.affine @ [3, 4, 5, 1], ras * [-1, -1, 1, 1], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_coarsest_axis_is_the_slice_axis_and_is_put_back(tmp_path: Path, axis: int) -> None:
    steps = np.ones(3)
    steps[axis] = 4.0
    path = save(tmp_path / "a.nii", values("<i2"), affine=np.diag([*steps, 1]))
    source = read_nifti(path, "MR")
    assert source.axes[0] == axis
    assert source.volume.spacing_mm == (4.0, 1.0, 1.0)
    assert rewritten(source, tmp_path / "b.nii") == path.read_bytes()


def test_the_header_may_name_the_slice_axis(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values("<i2"), affine=np.diag([1, 1, 4, 1]), dim_info=1 << 4)
    assert read_nifti(path, "MR").axes == (0, 2, 1)


def test_metres_become_millimetres(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values("<i2"), affine=np.diag([1e-3, 1e-3, 3e-3, 1]), xyzt_units=1)
    assert read_nifti(path, "MR").volume.spacing_mm == pytest.approx((3.0, 1.0, 1.0))


def test_scaling_is_honoured_both_ways(tmp_path: Path) -> None:
    path = scaled(save(tmp_path / "a.nii", values("<i2")), 0.5, -1000.0)
    source = read_nifti(path, "CT")
    assert source.volume.array[0, 0, 0] == source.stored[0, 0, 0] * 0.5 - 1000
    after = rewritten(source, tmp_path / "b.nii", source.volume.array + np.float32(1.0))
    assert after[:352] == path.read_bytes()[:352]
    np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii", "CT").stored, source.stored + 2)


def test_integers_round_half_to_even_and_clip(tmp_path: Path) -> None:
    source = read_nifti(save(tmp_path / "a.nii", values("u1")), "MR")
    array = source.volume.array.copy()
    array[0, 0, :5] = 10.5, 11.5, 300.0, -7.0, 12.4
    stored = to_stored(source, source.volume.with_array(array))
    assert stored[:5, 0, 0].tolist() == [10, 12, 255, 0, 12]


def test_voxels_that_are_no_numbers_are_not_measured_and_stay(tmp_path: Path) -> None:
    stored = values("<f4")
    stored[:3] = np.nan
    stored[3, 0, 0] = -np.inf
    source = read_nifti(save(tmp_path / "a.nii", stored), "MR")
    assert source.volume.valid is not None
    assert np.count_nonzero(~source.volume.valid) == 3 * 90 + 1
    moved = source.volume.array + source.volume.valid.astype(np.float32)
    after = read_nifti_bytes(rewritten(source, tmp_path / "b.nii", moved))
    np.testing.assert_array_equal(after[:3].view("<u4"), stored[:3].view("<u4"))
    assert verify_nifti(tmp_path / "b.nii", source, source.volume.with_array(moved)).passed


def read_nifti_bytes(content: bytes) -> Any:
    return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)


def test_what_lies_outside_the_field_of_view_of_a_ct_is_not_measured(tmp_path: Path) -> None:
    stored = values("<i2")
    stored[:2] = -2048
    path = save(tmp_path / "a.nii", stored)
    assert np.count_nonzero(read_nifti(path, "CT").volume.valid == np.False_) == 2 * 90
    assert read_nifti(path, "MR").volume.valid is None


def test_a_fourth_axis_of_length_one_is_as_good_as_none(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values("<i2", (*SHAPE, 1)))
    assert rewritten(read_nifti(path, "MR"), tmp_path / "b.nii") == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (values("<i2", (*SHAPE, 2)), "several volumes"),
        (values("<i2", (12, 10)), "at least 8"),
        (values("<i2", (12, 10, 4)), "at least 8"),
        (values("<c8"), "not supported"),
        (np.full(SHAPE, np.nan, "<f4"), "no voxel"),
    ],
)
def test_what_is_not_one_volume_of_numbers_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(NiftiError, match=words):
        read_nifti(save(tmp_path / "a.nii", content), "MR")


def damage(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: b"", "not a NIfTI"),
        (lambda c: c[:200], "not a NIfTI"),
        (lambda c: b"x" * 1000, "not a NIfTI"),
        (lambda c: c[:-1], "ends early"),
        (lambda c: gzip.compress(c)[:-20], "damaged"),
        (lambda c: damage(c, 70, b"\x39\x30"), "damaged"),
        (lambda c: damage(c, 344, b"ni1\0"), "two files"),
        (lambda c: damage(c, 280, bytes(48)), "singular"),
        (lambda c: damage(c, 112, np.array([1, np.inf], "<f4").tobytes()), "scl_slope"),
        (lambda c: damage(c, 42, b"\xff\xff"), "at least 8"),
    ],
)
def test_a_damaged_file_is_refused_with_one_line(tmp_path: Path, change: Any, words: str, capfd: Any) -> None:
    path = save(tmp_path / "a.nii", values("<i2"))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(NiftiError, match=words) as caught:
        read_nifti(path, "MR")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NiftiError, match="cannot be read"):
        read_nifti(tmp_path / "a.nii", "MR")


@pytest.mark.parametrize(
    ("facts", "modality"),
    [
        ('{"Modality": "CT"}', "CT"),
        ('{"Modality": "MR"}', "MR"),
        ('{"Modality": "PT"}', None),
        ("[", None),
        ("[]", None),
    ],
)
def test_a_file_beside_may_state_the_modality(tmp_path: Path, facts: str, modality: str | None) -> None:
    (tmp_path / "a.json").write_text(facts)
    assert modality_beside(tmp_path / "a.nii.gz") == modality
    assert modality_beside(tmp_path / "b.nii") is None


def test_a_map_lies_where_its_volume_lies(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", values("<f4"))
    source = read_nifti(path, "MR")
    write_map(tmp_path / "map.nii.gz", source.volume, axes=source.axes, compressed=True)
    before, after = nib.load(path), nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))


def test_compressed_files_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    source = read_nifti(save(tmp_path / "a.nii.gz", values("<i2")), "MR")
    for name in ("b.nii.gz", "c.nii.gz"):
        write_nifti(tmp_path / name, source, source.stored, compressed=True)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("at", "new", "failed"),
    [
        (148, b"x", (1,)),
        (352, b"\xe8\x03", (3,)),
        (352 + 2 * 600, b"\xe8\x03", (4,)),
        (280, b"\0\0\0\0", (1, 2)),
    ],
)
def test_verification_sees_each_fault(tmp_path: Path, at: int, new: bytes, failed: tuple[int, ...]) -> None:
    stored = values("<i2")
    stored[0, 0, 0] = -2000
    source = read_nifti(save(tmp_path / "a.nii", stored), "CT")
    written = tmp_path / "b.nii"
    rewritten(source, written)
    assert verify_nifti(written, source, source.volume).passed
    written.write_bytes(damage(written.read_bytes(), at, new))
    assert verify_nifti(written, source, source.volume).failed_numbers == failed


def test_verification_sees_a_shifted_mean(tmp_path: Path) -> None:
    source = read_nifti(save(tmp_path / "a.nii", values("<i2")), "CT")
    shifted = replace(source.volume, array=source.volume.array + np.float32(2))
    rewritten(source, tmp_path / "b.nii", shifted.array)
    report = verify_nifti(tmp_path / "b.nii", source, shifted)
    assert (report.failed_numbers, report.bias) == ((5,), pytest.approx(2.0))


def test_verification_allows_for_the_rounding_of_stored_floats(tmp_path: Path) -> None:
    path = scaled(save(tmp_path / "a.nii", values("<f4") + np.float32(1e6)), 1.0, -1e6)
    source = read_nifti(path, "CT")
    moved = source.volume.with_array(source.volume.array + np.float32(0.51))
    rewritten(source, tmp_path / "b.nii", moved.array)
    assert verify_nifti(tmp_path / "b.nii", source, moved).passed
