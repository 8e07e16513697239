"""Every assertion of verification holds for a good series and fails for the fault it is there for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.phantom_series import CT_STYLE, write_ct_series, write_mr_series
from dicom_node.imaging.verify import VerificationLimits, verify_series
from engine.volume import Volume

POLICY = DerivationPolicy()
Change = Callable[[FileDataset], None]


def test_a_right_series_passes_all_thirty_assertions(good: Any) -> None:
    report = good.verify()

    assert [c.detail for c in report.checks if not c.passed] == []
    assert [check.number for check in report.checks] == list(range(1, 31))
    assert report.passed
    assert report.bias == pytest.approx(0.5, abs=0.6)


def test_mr_passes_all_assertions_too(
    mr_volume: Volume, derive: Callable[..., object], tmp_path: Path
) -> None:
    paths = write_mr_series(mr_volume, tmp_path / "source")
    derive(paths, tmp_path / "derived")

    assert verify_series(tmp_path / "source", tmp_path / "derived", policy=POLICY).failed_numbers == ()


@pytest.mark.parametrize(
    "policy",
    [
        DerivationPolicy(equipment_policy="inherit"),
        DerivationPolicy(image_type_term=False, comment=False, station_name="NODE1", description_suffix="DN"),
        DerivationPolicy(manufacturer="Hospital", series_number_offset=100, uid_root="1.2.3"),
    ],
)
def test_every_policy_passes_its_own_verification(
    good: Any, derive: Callable[..., object], tmp_path: Path, policy: DerivationPolicy
) -> None:
    derive(sorted(good.source.iterdir()), tmp_path / "derived", policy=policy)

    assert verify_series(good.source, tmp_path / "derived", policy=policy).failed_numbers == ()


def pixels(ds: FileDataset) -> np.ndarray:
    """The cells of a file, writable."""
    return np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()


def setting(keyword: str, value: object) -> Change:
    """Set one attribute."""
    return lambda ds: setattr(ds, keyword, value)


def removing(keyword: str) -> Change:
    """Remove one attribute."""
    return lambda ds: ds.__delattr__(keyword)


def both_uids(uid: str) -> Change:
    """Give the file another SOP instance UID, consistently."""

    def change(ds: FileDataset) -> None:
        ds.SOPInstanceUID = uid
        ds.file_meta.MediaStorageSOPInstanceUID = uid

    return change


def test_a_missing_slice_is_noticed(bench: Any) -> None:
    (bench.derived / "00006.dcm").unlink()

    assert 1 in bench.verify().failed_numbers


def test_a_slice_too_many_is_noticed(bench: Any) -> None:
    shutil.copy(bench.derived / "00006.dcm", bench.derived / "00007.dcm")

    assert {1, 2, 27} <= set(bench.verify().failed_numbers)


def test_an_instance_uid_of_the_source_is_noticed(bench: Any) -> None:
    bench.change(3, both_uids(str(dcmread(bench.source / "0006.dcm").SOPInstanceUID)))

    assert 2 in bench.verify().failed_numbers


def test_an_instance_uid_the_node_used_before_is_noticed(good: Any) -> None:
    used = frozenset({str(dcmread(good.derived / "00003.dcm").SOPInstanceUID)})

    assert good.verify(emitted=used).failed_numbers == (2,)


def test_the_series_uid_of_the_source_is_noticed(bench: Any) -> None:
    bench.change_all(setting("SeriesInstanceUID", dcmread(bench.source / "0001.dcm").SeriesInstanceUID))

    assert 3 in bench.verify().failed_numbers


def test_series_uid_and_number_of_a_neighbouring_series_are_noticed(bench: Any, ct_volume: Volume) -> None:
    style = replace(CT_STYLE, series_number=7002)
    neighbour = write_ct_series(ct_volume, bench.source / "neighbour", style=style)
    assert bench.verify().failed_numbers == (7,)

    bench.change_all(setting("SeriesInstanceUID", dcmread(neighbour[0]).SeriesInstanceUID))

    assert {3, 7} <= set(bench.verify().failed_numbers)


def copy_source_pixels(bench: Any) -> None:
    """Undo the enhancement."""
    for number in range(1, 7):
        content = dcmread(bench.source / f"{number:04d}.dcm").PixelData
        bench.change(number, setting("PixelData", content))


def test_a_series_that_equals_its_source_is_noticed(bench: Any) -> None:
    copy_source_pixels(bench)

    assert bench.verify().failed_numbers == (12,)
    assert bench.verify(limits=VerificationLimits(allow_identical=True)).passed


@pytest.mark.parametrize("change", [{"strength": 0.0}, {"algorithm": "identity", "version": "1"}])
def test_a_series_that_was_meant_to_stay_the_same_may_equal_its_source(
    good: Any,
    derive: Callable[..., object],
    provenance: Provenance,
    bench_of: Callable[[Path, Path], Any],
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    made_by = replace(provenance, **change)  # type: ignore[arg-type]
    derive(sorted(good.source.iterdir()), tmp_path / "derived", made_by=made_by)
    shutil.copytree(good.source, tmp_path / "source")
    bench = bench_of(tmp_path / "source", tmp_path / "derived")
    copy_source_pixels(bench)

    assert bench.verify().failed_numbers == ()


def test_a_mean_that_moved_is_noticed_and_reported(bench: Any) -> None:
    def brighten(ds: FileDataset) -> None:
        cells = pixels(ds)
        cells[3:] += 3
        ds.PixelData = cells.tobytes()

    bench.change_all(brighten)

    report = bench.verify()
    assert report.failed_numbers == (16,)
    assert report.bias == pytest.approx(3.5, abs=0.6)


def test_the_mean_of_mr_may_move_by_half_a_percent(
    mr_volume: Volume, derive: Callable[..., object], tmp_path: Path
) -> None:
    write_mr_series(mr_volume, tmp_path / "source")
    paths = sorted((tmp_path / "source").iterdir())
    tissue = mr_volume.array > 0.15 * np.percentile(mr_volume.array, 99.9)
    mean = float(mr_volume.array[tissue].mean())
    derive(paths, tmp_path / "little", shift=0.003 * mean)
    derive(paths, tmp_path / "much", shift=0.008 * mean)
    derive(paths, tmp_path / "dark", shift=-0.008 * mean)

    assert verify_series(tmp_path / "source", tmp_path / "little", policy=POLICY).passed
    assert verify_series(tmp_path / "source", tmp_path / "much", policy=POLICY).failed_numbers == (16,)
    assert verify_series(tmp_path / "source", tmp_path / "dark", policy=POLICY).failed_numbers == (16,)


def test_what_the_magnitude_lifted_may_be_taken_away_by_the_noise_of_the_source(
    mr_volume: Volume, derive: Callable[..., object], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    shape, sigma = (10, 64, 64), 60.0
    noisy = np.hypot(300 + rng.normal(0, sigma, shape), rng.normal(0, sigma, shape)).astype(np.float32)
    write_mr_series(replace(mr_volume, array=noisy), tmp_path / "source")
    paths = sorted((tmp_path / "source").iterdir())
    derive(paths, tmp_path / "lift", shift=-(sigma**2) / (2 * 300))
    derive(paths, tmp_path / "more", shift=-2.5 * sigma**2 / (2 * 300))

    assert verify_series(tmp_path / "source", tmp_path / "lift", policy=POLICY).passed
    assert verify_series(tmp_path / "source", tmp_path / "more", policy=POLICY).failed_numbers == (16,)


def test_the_mean_of_dim_tissue_is_held_to_the_brightest_as_the_guards_hold_it(
    mr_volume: Volume, derive: Callable[..., object], tmp_path: Path
) -> None:
    array = mr_volume.array.copy()
    array[:, ::4] *= 3
    write_mr_series(replace(mr_volume, array=array), tmp_path / "source")
    paths = sorted((tmp_path / "source").iterdir())
    bright = float(np.percentile(array, 99.5))
    derive(paths, tmp_path / "little", shift=0.003 * bright)
    derive(paths, tmp_path / "much", shift=0.008 * bright)

    assert verify_series(tmp_path / "source", tmp_path / "little", policy=POLICY).passed
    assert verify_series(tmp_path / "source", tmp_path / "much", policy=POLICY).failed_numbers == (16,)


@pytest.mark.usefixtures("dciodvfy")
def test_validators_agree_with_a_right_series_and_see_a_wrong_one(bench: Any) -> None:
    assert bench.verify(validators=True).passed

    bench.change(3, removing("PositionReferenceIndicator"))

    checks = {check.number: check for check in bench.verify(validators=True).checks}
    assert "dciodvfy" in checks[29].detail


def test_details_name_attributes_and_never_values(bench: Any) -> None:
    marked = "MARKED^PATIENT"
    for keyword in ("PatientName", "AccessionNumber", "SeriesDescription", "InstitutionName"):
        bench.change(3, setting(keyword, marked))
    bench.change(4, setting("StudyInstanceUID", "1.2.3"))

    report = bench.verify()

    assert {4, 5, 7, 28} <= set(report.failed_numbers)
    assert "MARKED" not in repr(report) + str(report.as_json())


def test_a_damaged_file_is_an_error_of_its_own(bench: Any) -> None:
    (bench.derived / "00003.dcm").write_bytes(b"gone")

    with pytest.raises(UnreadableInstanceError):
        bench.verify()


@pytest.mark.parametrize("date", ["21100101", "2024.05.06", ""])
def test_an_acquisition_date_that_cannot_be_true_does_not_block_the_series(
    ct_volume: Volume, derive: Callable[..., object], tmp_path: Path, date: str
) -> None:
    style = replace(CT_STYLE, attributes={"AcquisitionDate": date})
    with quiet():
        paths = write_ct_series(ct_volume, tmp_path / "source", style=style)
    derive(paths, tmp_path / "derived")

    assert verify_series(tmp_path / "source", tmp_path / "derived", policy=POLICY).failed_numbers == ()
