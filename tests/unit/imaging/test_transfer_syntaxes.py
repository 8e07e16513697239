"""Every transfer syntax of a CT or MR image: the voxels come out right, and what is lossy stays marked so."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, HTJ2KLossless, JPEGLSNearLossless

from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.series_reader import read_series
from dicom_node.imaging.verify import verify_series

Write = Callable[..., list[Path]]
Derive = Callable[..., object]


HTJ2K = """
/0//UQApQAAAAAAkAAAAKAAAAAAAAAAAAAAAJAAAACgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wA
EyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAMYAAf+TwAArABUAz/VP/gn0AsM0
AMAAEcAAEwABEwBt+wACNADAABHAABOAE+MAbWsAJHdVAMAAEsAAFcC8dPJ1AGzZsmXL9vQY/jGBvrgAwAAV8AAFqt7du3fv
/u/r9fr9fst5ALIymUwmk8lk/zACEYhAe/YhAey9AMAALXgABdGAJEmSJEmSJPn7/wCnp6enp6enp6dCfwBOx3Ecx3Ecx3Ec
x3Ec5/97gCPYQge/YQge/YQge/YQgey1Af/Z
"""
"""A reversible HTJ2K codestream (OpenJPH) of 40 x 36 values: (40 row + 7 column) modulo 4096."""
LOSSY_HTJ2K = """
/0//UQApQAAAAAAkAAAAKAAAAAAAAAAAAAAAJAAAACgAAAAAAAAAAAABDwEB/1AACAACAAAAJf9SAAwAAgABAAUEBEAA/1wA
IyKPdI9Fj0WPF4dch1yHPX+qf6p/wmg1aDVoeGAaYBpvv/9kABcAAU9wZW5KUEggVmVyIDAuMjYuMy7/kAAKAAAAAAB5AAH/
k8AAKwDJBi8ATgvq/QLHNACgABMA4/gAAjQAwABLAAFSzAc6tAB0UYuuAJN+tQDAAJIABaayS+QABGiVKIQo/kAL5Pc6OvZd
7Wo8AKABWFZV/f8wUde/dey5AKACuAAA/P97gOuuuuuuupsA/9k=
"""
"""The same values irreversibly: none is off by more than 24."""


@pytest.fixture
def dcmcjpeg() -> Callable[[list[Path], str], None]:
    """Compress files in place by DCMTK."""
    tool = shutil.which("dcmcjpeg")
    if tool is None:
        pytest.skip("dcmcjpeg (package dcmtk) is not installed")

    def compress(paths: list[Path], option: str) -> None:
        for path in paths:
            subprocess.run([tool, option, "+ua", str(path), str(path)], check=True, capture_output=True)

    return compress


@pytest.mark.parametrize(
    ("option", "syntax"), [("+e1", "1.2.840.10008.1.2.4.70"), ("+el", "1.2.840.10008.1.2.4.57")]
)
def test_both_forms_of_jpeg_lossless_give_the_same_voxels(
    write_ct: Write, dcmcjpeg: Callable[[list[Path], str], None], option: str, syntax: str
) -> None:
    plain, encoded = write_ct("plain"), write_ct("encoded")
    dcmcjpeg(encoded, option)

    series = read_series(encoded)

    assert {piece.header.transfer_syntax_uid for piece in series.slices} == {syntax}
    assert (series.volume.array == read_series(plain).volume.array).all()


@pytest.mark.parametrize("syntax", [HTJ2KLossless, UID("1.2.840.10008.1.2.4.202")], ids=["201", "202"])
def test_high_throughput_jpeg_2000_gives_the_exact_values(
    write_ct: Write, edit: Callable[..., None], syntax: UID
) -> None:
    def encode(ds: FileDataset) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([base64.b64decode(HTJ2K)])
        ds["PixelData"].is_undefined_length = True

    paths = write_ct()
    for path in paths:
        edit(path, encode)
    rows, columns = np.mgrid[0:40, 0:36]

    array = read_series(paths).volume.array

    assert (array == (rows * 40 + columns * 7) % 4096 - 1024).all()


def test_lossy_high_throughput_jpeg_2000_comes_close_and_is_marked(
    write_ct: Write, edit: Callable[..., None], derive: Derive, tmp_path: Path
) -> None:
    def encode(ds: FileDataset) -> None:
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.203")
        ds.PixelData = encapsulate([base64.b64decode(LOSSY_HTJ2K)])
        ds["PixelData"].is_undefined_length = True

    paths = write_ct()
    for path in paths:
        edit(path, encode)
    rows, columns = np.mgrid[0:40, 0:36]

    difference = read_series(paths).volume.array - ((rows * 40 + columns * 7) % 4096 - 1024)

    assert 0 < np.abs(difference).max() <= 24
    check_marked(paths, derive, tmp_path, method="ISO_15444_15")


def test_12_bit_jpeg_comes_close_and_stays_lossy(
    write_ct: Write, dcmcjpeg: Callable[[list[Path], str], None], derive: Derive, tmp_path: Path
) -> None:
    plain, encoded = write_ct("plain"), write_ct("source")
    dcmcjpeg(encoded, "+ee")

    difference = read_series(encoded).volume.array - read_series(plain).volume.array

    assert 0 < np.abs(difference).max() < 200
    assert abs(float(difference.mean())) < 2
    check_marked(encoded, derive, tmp_path, method="ISO_10918_1")


def check_marked(paths: list[Path], derive: Derive, tmp_path: Path, *, method: str) -> None:
    """The derived series says that its source was lossy, by which method and at what ratio."""
    derive(paths, tmp_path / "derived")

    ds = dcmread(tmp_path / "derived" / "00003.dcm")
    assert ds.LossyImageCompression == "01"
    assert method in str(ds.LossyImageCompressionMethod)
    assert all(float(ratio) > 1 for ratio in np.atleast_1d(ds.LossyImageCompressionRatio))
    assert verify_series(tmp_path / "source", tmp_path / "derived", policy=DerivationPolicy()).passed
    with pytest.raises(SkipSeriesError) as caught:
        read_series(paths, AssemblyPolicy(allow_lossy=False))
    assert caught.value.reason is Reason.LOSSY_INPUT


@pytest.mark.parametrize(
    ("syntax", "options", "method"),
    [
        (JPEGLSNearLossless, {"jls_error": 2}, "ISO_14495_1"),
        (JPEG2000, {"j2k_cr": [8]}, "ISO_15444_1"),
    ],
    ids=["JPEG-LS near-lossless", "JPEG 2000"],
)
def test_lossy_syntaxes_without_the_flag_are_marked_in_what_is_derived(
    write_ct: Write,
    edit: Callable[..., None],
    derive: Derive,
    tmp_path: Path,
    syntax: UID,
    options: dict[str, object],
    method: str,
) -> None:
    paths = write_ct()
    for path in paths:
        edit(path, lambda ds: ds.compress(syntax, generate_instance_uid=False, **options))

    check_marked(paths, derive, tmp_path, method=method)


def eight_bits(ds: FileDataset) -> None:
    """Store the slice in bytes: every fourth grey value."""
    pixels = (np.frombuffer(ds.PixelData, "<u2") >> 4).astype(np.uint8)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.RescaleSlope = "16"
    ds.add_new("PixelData", "OB", pixels.tobytes())


def test_pixels_of_8_bits_are_read_and_written_as_bytes(
    write_ct: Write, edit: Callable[..., None], derive: Derive, tmp_path: Path
) -> None:
    paths = write_ct()
    exact = read_series(paths).volume.array
    for path in paths:
        edit(path, eight_bits)

    assert np.abs(read_series(paths).volume.array - exact).max() <= 16
    derive(paths, tmp_path / "derived", shift=0.0)
    ds = dcmread(tmp_path / "derived" / "00003.dcm")
    assert (ds.BitsAllocated, len(ds.PixelData), ds["PixelData"].VR) == (8, ds.Rows * ds.Columns, "OB")
    report = verify_series(tmp_path / "source", tmp_path / "derived", policy=DerivationPolicy())
    assert set(report.failed_numbers) <= {12}  # one HU vanishes in steps of 16: nothing changed


def test_baseline_jpeg_of_8_bits_is_read(
    write_ct: Write, edit: Callable[..., None], dcmcjpeg: Callable[[list[Path], str], None]
) -> None:
    paths = write_ct()
    for path in paths:
        edit(path, eight_bits)
    exact = read_series(paths).volume.array
    dcmcjpeg(paths, "+eb")

    series = read_series(paths)

    assert series.slices[0].header.transfer_syntax_uid == "1.2.840.10008.1.2.4.50"
    assert np.abs(series.volume.array - exact).mean() < 20
