"""One fault in one slice of a good derived series, and the assertion that sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.imaging.verify import ASSERTIONS
from engine.volume import Volume

Change = Callable[[FileDataset], None]


def pixels(ds: FileDataset) -> np.ndarray:
    """The cells of a file, writable."""
    return np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()


def put(ds: FileDataset, row: int, column: int, value: int) -> None:
    """Set one cell."""
    cells = pixels(ds)
    cells[row, column] = value
    ds.PixelData = cells.tobytes()


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


def swap_first_contributors(ds: FileDataset) -> None:
    items = list(ds.ContributingEquipmentSequence)
    ds.ContributingEquipmentSequence = Items([items[1], items[0], items[2]])


def drop_contributor(index: int) -> Change:
    def change(ds: FileDataset) -> None:
        items = list(ds.ContributingEquipmentSequence)
        del items[index]
        ds.ContributingEquipmentSequence = Items(items)

    return change


def private_in_item(ds: FileDataset) -> None:
    ds.RequestAttributesSequence[0].add_new(0x00090010, "LO", "VENDOR")


def list_more(ds: FileDataset) -> None:
    ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence.append(reference("1.2.3.77"))


def icon(ds: FileDataset) -> None:
    ds.IconImageSequence = [Dataset()]


def claim(ds: FileDataset, uid: str) -> None:
    ds.SourceImageSequence[0].ReferencedSOPInstanceUID = uid


def source_of_neighbour(ds: FileDataset) -> str:
    """The source of the slice above, which is taken."""
    neighbour = dcmread(Path(str(ds.filename)).with_name("00004.dcm"))
    return str(neighbour.SourceImageSequence[0].ReferencedSOPInstanceUID)


def request_another_step(ds: FileDataset) -> None:
    ds.RequestAttributesSequence[0].ScheduledProcedureStepID = "S2"


def unknown_code_in_related(ds: FileDataset) -> None:
    ds.RelatedSeriesSequence[0].PurposeOfReferenceCodeSequence[0].CodeMeaning = "Source"


def relist(ds: FileDataset) -> None:
    for series in ds.ReferencedSeriesSequence:
        series.SeriesInstanceUID = "1.2.999"


def swap_purposes(ds: FileDataset) -> None:
    ds.ContributingEquipmentSequence[1].PurposeOfReferenceCodeSequence[0].CodeValue = "109102"


def reference(uid: str) -> Dataset:
    """A reference to a CT instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def code(value: str, meaning: str) -> Dataset:
    """A DCM code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def claim_loss(ds: FileDataset) -> None:
    ds.LossyImageCompression = "01"
    for keyword in ("LossyImageCompressionMethod", "LossyImageCompressionRatio"):
        if keyword in ds:
            delattr(ds, keyword)


FAULTS: list[tuple[int, str, Change]] = [
    (1, "its source is another slice's", lambda ds: claim(ds, source_of_neighbour(ds))),
    (1, "its source is unknown", lambda ds: claim(ds, "1.2.3.4.5.6")),
    (1, "no source at all", removing("SourceImageSequence")),
    (2, "malformed UID", both_uids("1.2.03")),
    (3, "two series", setting("SeriesInstanceUID", "1.2.3.4.5")),
    (4, "another accession number", setting("AccessionNumber", "A-2")),
    (4, "another study", setting("StudyInstanceUID", "1.2.3.4.5")),
    (4, "another study date", setting("StudyDate", "20240507")),
    (4, "another referrer", setting("ReferringPhysicianName", "REFERRER^TWO")),
    (5, "another name", setting("PatientName", "PHANTOM^H?AD")),
    (5, "another patient", setting("PatientID", "PHANTOM-2")),
    (5, "birth date gone", removing("PatientBirthDate")),
    (5, "another character set", setting("SpecificCharacterSet", "ISO_IR 192")),
    (5, "a lost character", setting("SeriesDescription", "H?AD [AI-DN]")),
    (6, "another modality", setting("Modality", "MR")),
    (6, "meta of another instance", lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2.3")),
    (6, "meta of another class", lambda ds: setattr(ds.file_meta, "MediaStorageSOPClassUID", "1.2.3")),
    (7, "two series numbers", setting("SeriesNumber", 7999)),
    (7, "series number zero", setting("SeriesNumber", 0)),
    (7, "the source's series number", setting("SeriesNumber", 2)),
    (7, "no suffix", setting("SeriesDescription", "HEAD")),
    (7, "description too long", setting("SeriesDescription", "H" * 64 + "[AI-DN]")),
    (8, "ORIGINAL", setting("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL", "", "DENOISED"])),
    (8, "bad value 2", setting("ImageType", ["DERIVED", "TERTIARY", "AXIAL", "", "DENOISED"])),
    (8, "AI as value 3", setting("ImageType", ["DERIVED", "PRIMARY", "AI", "", "DENOISED"])),
    (8, "no term", setting("ImageType", ["DERIVED", "PRIMARY", "AXIAL"])),
    (8, "lower case", setting("ImageType", ["DERIVED", "PRIMARY", "AXIAL", "x", "DENOISED"])),
    (9, "another frame of reference", setting("FrameOfReferenceUID", "1.2.3.4.5")),
    (9, "no frame of reference", removing("FrameOfReferenceUID")),
    (10, "turned", setting("ImageOrientationPatient", [1, 0, 0, 0, 0.9999999, 0])),
    (10, "moved", setting("ImagePositionPatient", [0, 0, 0])),
    (10, "scaled", setting("PixelSpacing", [0.8, 0.91])),
    (10, "another thickness", setting("SliceThickness", "4")),
    (10, "another spelling of the same thickness", setting("SliceThickness", "3.00")),
    (11, "more bits", setting("BitsStored", 13)),
    (11, "inverted", setting("PhotometricInterpretation", "MONOCHROME1")),
    (11, "another padding value", lambda ds: ds.add_new("PixelPaddingValue", "US", 1)),
    (12, "truncated", lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2])),
    (12, "as bytes", lambda ds: ds.add_new("PixelData", "OB", ds.PixelData)),
    (13, "bits above BitsStored", lambda ds: put(ds, 20, 20, 0x1123)),
    (13, "wrapped around", lambda ds: put(ds, 0 + 4, 0, 4090)),
    (14, "another slope", setting("RescaleSlope", "1.1")),
    (14, "another intercept", setting("RescaleIntercept", "-1000")),
    (14, "unspecified unit", setting("RescaleType", "US")),
    (15, "padding filled", lambda ds: put(ds, 0, 0, 5)),
    (15, "measured became padding", lambda ds: put(ds, 20, 20, 0)),
    (17, "another window", setting("WindowCenter", "50")),
    (17, "a window gone", removing("WindowWidth")),
    (17, "extremes of the source", lambda ds: ds.add_new("LargestImagePixelValue", "US", 9)),
    (18, "lossy no more", setting("LossyImageCompression", "00")),
    (18, "no method", removing("LossyImageCompressionMethod")),
    (18, "no ratio", removing("LossyImageCompressionRatio")),
    (19, "not described", removing("DerivationDescription")),
    (19, "no digest", setting("DerivationDescription", "Noise reduction")),
    (19, "too long", lambda ds: setattr(ds, "DerivationDescription", ds.DerivationDescription + "x" * 1000)),
    (20, "wrong meaning", lambda ds: setattr(ds.DerivationCodeSequence[0], "CodeMeaning", "Denoising")),
    (20, "no such code", lambda ds: setattr(ds, "DerivationCodeSequence", [code("999999", "Denoising")])),
    (20, "not coded", removing("DerivationCodeSequence")),
    (20, "an unknown code elsewhere", unknown_code_in_related),
    (21, "no purpose", lambda ds: ds.SourceImageSequence[0].__delattr__("PurposeOfReferenceCodeSequence")),
    (21, "two sources", lambda ds: ds.SourceImageSequence.append(reference("1.2.3"))),
    (
        21,
        "not at its place",
        lambda ds: setattr(ds.SourceImageSequence[0], "SpatialLocationsPreserved", "NO"),
    ),
    (21, "another class", lambda ds: setattr(ds.SourceImageSequence[0], "ReferencedSOPClassUID", "1.2")),
    (21, "no source series", removing("RelatedSeriesSequence")),
    (22, "not listed", removing("ReferencedSeriesSequence")),
    (22, "listed without being referred to", list_more),
    (22, "listed under another series", relist),
    (23, "order", swap_first_contributors),
    (23, "no scanner", drop_contributor(1)),
    (23, "no node", drop_contributor(2)),
    (23, "no manufacturer", lambda ds: setattr(ds.ContributingEquipmentSequence[-1], "Manufacturer", "")),
    (23, "purpose", swap_purposes),
    (24, "the scanner's manufacturer", setting("Manufacturer", "Phantom Scanners")),
    (24, "the scanner's model", setting("ManufacturerModelName", "CT One")),
    (24, "the scanner's serial number", setting("DeviceSerialNumber", "CT-0001")),
    (24, "one version only", setting("SoftwareVersions", "0.1.0")),
    (24, "the scanner's station", setting("StationName", "CT1")),
    (25, "a product", setting("ContentQualification", "PRODUCT")),
    (25, "not qualified", removing("ContentQualification")),
    (25, "synthetic no more", setting("SyntheticData", "NO")),
    (26, "private", lambda ds: ds.add_new(0x00090010, "LO", "VENDOR")),
    (26, "private in an item", private_in_item),
    (26, "an overlay", lambda ds: ds.add_new(0x60000010, "US", 4)),
    (26, "an icon", icon),
    (26, "the step that made the source", setting("PerformedProcedureStepID", "P1")),
    (27, "another number", setting("InstanceNumber", 77)),
    (27, "a number twice", setting("InstanceNumber", 4)),
    (28, "another voltage", setting("KVP", "80")),
    (28, "another request", request_another_step),
    (28, "an attribute too many", setting("ProtocolName", "NEW")),
    (28, "an attribute gone", removing("ConvolutionKernel")),
    (28, "series time differs", setting("SeriesTime", "040000")),
    (28, "made before acquired", setting("ContentDate", "20200101")),
    (28, "never made", removing("InstanceCreationTime")),
    (29, "out of line", setting("ImagePositionPatient", [-9, -10, -8.2])),
    (30, "a sequence that is none", lambda ds: ds.add_new("ReferencedStudySequence", "OB", b"\1\2\3\4")),
]


@pytest.mark.parametrize(
    ("number", "change"),
    [(number, change) for number, _, change in FAULTS],
    ids=[f"{number}-{name}" for number, name, _ in FAULTS],
)
def test_one_fault_in_one_slice_fails_its_assertion(bench: Any, number: int, change: Change) -> None:
    bench.change(3, change)

    report = bench.verify()

    assert number in report.failed_numbers
    assert not report.passed


def test_every_assertion_has_a_fault_that_fails_it() -> None:
    alone = {number for number, _, _ in FAULTS}
    of_the_whole_series = {12, 16}

    assert alone | of_the_whole_series == {number for number, _, _ in ASSERTIONS}


BLIND_SPOTS: list[tuple[str, int, Change]] = [
    ("ImageType ORIGINAL", 8, setting("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL", "", "DENOISED"])),
    ("ImageType value 3 AI", 8, setting("ImageType", ["DERIVED", "PRIMARY", "AI", "", "DENOISED"])),
    (
        "missing purpose code",
        21,
        lambda ds: ds.SourceImageSequence[0].__delattr__("PurposeOfReferenceCodeSequence"),
    ),
    (
        "wrong meaning for 113087",
        20,
        lambda ds: setattr(ds.DerivationCodeSequence[0], "CodeMeaning", "Noise reduction"),
    ),
    ("non-existent DCM code", 20, lambda ds: setattr(ds.DerivationCodeSequence[0], "CodeValue", "999999")),
    ("other FrameOfReferenceUID", 9, setting("FrameOfReferenceUID", "1.2.3.4")),
    ("changed orientation", 10, setting("ImageOrientationPatient", [1, 0, 0, 0, 0.99, 0.14])),
    ("changed pixel spacing", 10, setting("PixelSpacing", [0.7, 0.9])),
    ("changed rescale slope", 14, setting("RescaleSlope", "2")),
    ("values beyond BitsStored", 13, lambda ds: put(ds, 20, 20, 0x4000)),
    ("lossy without ratio and method", 18, claim_loss),
    ("duplicate InstanceNumber", 27, setting("InstanceNumber", 4)),
]


@pytest.mark.parametrize(
    ("number", "change"), [(n, c) for _, n, c in BLIND_SPOTS], ids=[name for name, _, _ in BLIND_SPOTS]
)
def test_a_fault_that_no_public_validator_sees_is_seen_here(
    ct_volume: Volume,
    derive: Callable[..., object],
    bench_of: Callable[[Path, Path], Any],
    tmp_path: Path,
    number: int,
    change: Change,
) -> None:
    paths = write_ct_series(ct_volume, tmp_path / "source")
    derive(paths, tmp_path / "derived")
    bench = bench_of(tmp_path / "source", tmp_path / "derived")
    assert bench.verify().passed

    bench.change(3, change)

    assert number in bench.verify().failed_numbers
