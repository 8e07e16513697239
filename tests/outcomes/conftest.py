"""The cases of the outcome table: series that hospitals send, whole and damaged, each with its expected end.

A case makes a folder of files from clean material; the runner in `test_outcomes.py` takes it through door,
routing facts, assembly, enhancement, verification and validators.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.errors import Reason
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.phantom_enhanced import write_enhanced
from dicom_node.imaging.phantom_series import CT_STYLE, MR_STYLE, write_ct_series, write_mr_series
from engine.phantom import head_phantom, noisy_ct
from engine.volume import IntensityUnit, Volume
from tests.damage import Edit, in_lengths, setting

SLICES = 16
ENHANCED, SKIPPED, HELD, FAILED, REFUSED = "ENHANCED", "SKIPPED", "HELD", "FAILED", "REFUSED"


@dataclass(frozen=True)
class Material:
    """Clean volumes to make series from."""

    ct: Volume
    mr: Volume

    def write_ct(self, folder: Path, **style: object) -> list[Path]:
        """The CT volume as a classic series."""
        return write_ct_series(self.ct, folder, style=replace(CT_STYLE, **style))  # type: ignore[arg-type]

    def write_mr(self, folder: Path, **style: object) -> list[Path]:
        """The MR volume as a classic series."""
        return write_mr_series(self.mr, folder, style=replace(MR_STYLE, **style))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """A series and how it has to end.

    refused  files that the door turns away before the series is judged
    """

    name: str
    make: Callable[[Path, Material], object]
    outcome: str
    reason: Reason | None = None
    refused: int = 0
    notes: tuple[Reason, ...] = field(default=())


CASES: list[Case] = []


def case(outcome: str, reason: Reason | None = None, *, refused: int = 0, notes: tuple[Reason, ...] = ()):  # type: ignore[no-untyped-def]
    """Register a maker under its own name."""

    def register(make: Callable[[Path, Material], object]) -> Callable[[Path, Material], object]:
        CASES.append(Case(make.__name__.replace("_", "-"), make, outcome, reason, refused, notes))
        return make

    return register


def edited(name: str, outcome: str, reason: Reason | None, edit: Edit, *, only: int | None = None) -> None:
    """Register a CT series of which every slice, or one, was edited."""

    def make(folder: Path, material: Material) -> None:
        paths = material.write_ct(folder)
        for path in paths if only is None else paths[only : only + 1]:
            change(path, edit)

    CASES.append(Case(name, make, outcome, reason))


def change(path: Path, edit: Edit) -> None:
    """Edit one file through pydicom."""
    with quiet():
        ds = dcmread(path)
        edit(ds)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(path)


def raw(keyword: str, value: bytes) -> Edit:
    """Set an attribute to bytes that its VR does not allow."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import BaseTag

    def edit(ds: FileDataset) -> None:
        tag = BaseTag(tag_for_keyword(keyword) or 0)
        even = value + b" " * (len(value) % 2)
        ds._dict[tag] = RawDataElement(tag, dictionary_VR(tag)[:2], len(even), even, 0, False, True)

    return edit


def by_dcmtk(*command: str) -> Callable[[Path, Material], object]:
    """Recompress every slice of a CT series by a tool of DCMTK."""

    def make(folder: Path, material: Material) -> None:
        for path in material.write_ct(folder):
            packed = path.with_suffix(".packed")
            subprocess.run([*command, str(path), str(packed)], check=True, capture_output=True)
            packed.replace(path)

    return make


def _invert(ds: FileDataset) -> None:
    """The same HU with stored values upside down."""
    pixels = np.frombuffer(ds.PixelData, "<u2")
    ds.PixelData = (4095 - pixels).astype("<u2").tobytes()
    ds.RescaleSlope, ds.RescaleIntercept = -1, 4095 - 1024


def _japanese(ds: FileDataset) -> None:
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"


def _bad_utf8(ds: FileDataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    raw("PatientName", b"M\xfcller^\xff\xfe")(ds)


def _cut(ds: FileDataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


def _lengthen(ds: FileDataset) -> None:
    ds.PixelData = ds.PixelData + b"\0\0"


# --- transfer syntaxes -------------------------------------------------------------------------------

for _name, _syntax in (
    ("explicit-little-endian", None),
    ("implicit-little-endian", ImplicitVRLittleEndian),
    ("deflated", DeflatedExplicitVRLittleEndian),
    ("big-endian", ExplicitVRBigEndian),
    ("rle", RLELossless),
    ("jpeg-2000-lossless", JPEG2000Lossless),
    ("jpeg-ls-lossless", JPEGLSLossless),
):
    CASES.append(
        Case(
            f"syntax-{_name}",
            lambda folder, m, s=_syntax: m.write_ct(folder, **({} if s is None else {"syntax": s})),  # type: ignore[misc]
            ENHANCED,
        )
    )
CASES.append(Case("syntax-jpeg-lossless-sv1", by_dcmtk("dcmcjpeg", "+e1"), ENHANCED))
CASES.append(Case("syntax-jpeg-lossless-process-14", by_dcmtk("dcmcjpeg", "+el"), ENHANCED))
CASES.append(Case("syntax-jpeg-extended-12-bit", by_dcmtk("dcmcjpeg", "+ee", "+q", "98"), ENHANCED))
CASES.append(Case("syntax-jpeg-ls-near-lossless", by_dcmtk("dcmcjpls", "+en", "+md", "2"), ENHANCED))


@case(ENHANCED)
def classic_mr(folder: Path, material: Material) -> None:
    material.write_mr(folder)


@case(ENHANCED)
def mr_with_a_slope_per_slice(folder: Path, material: Material) -> None:
    material.write_mr(folder, slopes=(1.0, 0.7, 1.3), intercept=0.0)


@case(ENHANCED)
def enhanced_ct(folder: Path, material: Material) -> None:
    write_enhanced([material.ct], folder / "1.dcm")


@case(ENHANCED, notes=(Reason.SEVERAL_VOLUMES,))
def enhanced_mr_of_two_time_points(folder: Path, material: Material) -> None:
    brighter = replace(material.mr, array=material.mr.array * np.float32(1.2))
    write_enhanced([material.mr, brighter], folder / "1.dcm")


@case(ENHANCED)
def signed_sixteen_bits(folder: Path, material: Material) -> None:
    material.write_ct(folder, signed=True, bits_stored=16, intercept=0.0)


@case(ENHANCED)
def padding_outside_the_circle(folder: Path, material: Material) -> None:
    valid = np.ones(material.ct.array.shape, np.bool_)
    valid[:, :5] = valid[:, -5:] = False
    padded = replace(material.ct, valid=valid)
    style = replace(CT_STYLE, signed=True, bits_stored=16, intercept=0.0, padding=-2000)
    write_ct_series(padded, folder, style=style)


edited("monochrome1", ENHANCED, None, setting(PhotometricInterpretation="MONOCHROME1"))
edited("negative-slope", ENHANCED, None, _invert)
edited("no-frame-of-reference", ENHANCED, None, setting(FrameOfReferenceUID=None))
edited("lossy-flag", ENHANCED, None, setting(LossyImageCompression="01", LossyImageCompressionRatio="8"))


# --- text and identity -------------------------------------------------------------------------------

edited("japanese-names", ENHANCED, None, _japanese)
edited("unknown-character-set", ENHANCED, None, raw("SpecificCharacterSet", b"ISO_IR 9999"))
edited("invalid-utf-8", ENHANCED, None, _bad_utf8)
edited("hostile-text", ENHANCED, None, raw("PatientName", b"=cmd|' /C calc'!A0^{{7*7}}%s<script>\x1b[31m"))
edited("name-of-64-kilobytes", ENHANCED, None, raw("PatientName", b"A" * 65000))
edited("description-too-long", ENHANCED, None, raw("SeriesDescription", b"thorax " * 40))
edited("dates-of-nothing", ENHANCED, None, setting(StudyDate="00000000", AcquisitionDate="99991231"))
edited(
    "empty-patient", ENHANCED, None, setting(PatientID="", PatientName="", PatientBirthDate="", PatientSex="")
)
edited("decimal-strings-too-long", ENHANCED, None, raw("SliceThickness", b"3.00000000000000000000000"))


@case(ENHANCED)
def private_blocks_and_overlays(folder: Path, material: Material) -> None:
    def add(ds: FileDataset) -> None:
        block = ds.private_block(0x0029, "VENDOR", create=True)
        block.add_new(0x10, "OB", b"x" * 4096)
        item = Dataset()
        item.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "LO", "nested")
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, "1.2.3"
        icon = Dataset()
        icon.Rows = icon.Columns = 2
        item.IconImageSequence = [icon]
        ds.ReferencedImageSequence = [item]
        ds.add_new(0x60000010, "US", 2)
        ds.add_new(0x60003000, "OW", b"\0\0")

    for path in material.write_ct(folder):
        change(path, add)


# --- several volumes, odd slices, geometry ------------------------------------------------------------


@case(ENHANCED, notes=(Reason.SEVERAL_VOLUMES,))
def two_echoes(folder: Path, material: Material) -> None:
    with quiet():
        series = dcmread(material.write_mr(folder / "1", attributes={"EchoNumbers": 1})[0]).SeriesInstanceUID
    second = {"EchoNumbers": 2, "EchoTime": "5", "SeriesInstanceUID": series}
    for number, path in enumerate(material.write_mr(folder / "2", attributes=second)):
        change(path, setting(SOPInstanceUID=f"1.2.3.{number}"))


@case(ENHANCED)
def localizer_inside(folder: Path, material: Material) -> None:
    path = material.write_ct(folder)[0]
    extra = Path(shutil.copy(path, folder / "scout.dcm"))
    change(
        extra,
        lambda ds: setting(
            SOPInstanceUID=ds.SOPInstanceUID + ".9",
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
            InstanceNumber=99,
        )(ds),
    )


@case(ENHANCED, notes=(Reason.GANTRY_TILT,))
def gantry_tilt(folder: Path, material: Material) -> None:
    affine = material.ct.affine.copy()
    affine[1, 0] = np.tan(np.radians(15)) * material.ct.spacing_mm[0]
    tilted = replace(material.ct, affine=affine)
    write_ct_series(tilted, folder, style=replace(CT_STYLE, attributes={"GantryDetectorTilt": "15"}))


@case(ENHANCED, notes=(Reason.BLOCKS,))
def two_blocks_of_spacing(folder: Path, material: Material) -> None:
    step = material.ct.spacing_mm[0]
    for index, path in enumerate(material.write_ct(folder)):
        if index >= 8:
            change(path, lambda ds, i=index: _shift(ds, (i - 7) * step))  # type: ignore[misc]


def _shift(ds: FileDataset, mm: float) -> None:
    ds.ImagePositionPatient[2] = float(ds.ImagePositionPatient[2]) + mm
    ds.SliceThickness = "6"


@case(HELD, Reason.MISSING_SLICE)
def one_slice_missing(folder: Path, material: Material) -> None:
    material.write_ct(folder)[5].unlink()


@case(HELD, Reason.MISSING_SLICE)
def last_missing_and_counted(folder: Path, material: Material) -> None:
    material.write_ct(folder, attributes={"ImagesInAcquisition": SLICES})[-1].unlink()


@case(HELD, Reason.DUPLICATE_POSITION)
def two_slices_at_one_place(folder: Path, material: Material) -> None:
    path = material.write_ct(folder)[4]
    extra = Path(shutil.copy(path, folder / "again.dcm"))
    change(extra, lambda ds: setting(SOPInstanceUID=ds.SOPInstanceUID + ".9", InstanceNumber=5)(ds))


@case(HELD, Reason.UID_CONFLICT)
def one_uid_two_contents(folder: Path, material: Material) -> None:
    path = material.write_ct(folder)[4]
    extra = Path(shutil.copy(path, folder / "again.dcm"))
    change(extra, setting(InstanceNumber=77))


@case(SKIPPED, Reason.TOO_FEW_SLICES)
def one_slice(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder)[1:]:
        path.unlink()


edited(
    "positions-all-equal",
    HELD,
    Reason.DUPLICATE_POSITION,
    setting(ImagePositionPatient=[0, 0, 0], AcquisitionTime="070500"),
)
edited("one-place-over-time", SKIPPED, Reason.TOO_FEW_SLICES, setting(ImagePositionPatient=[0, 0, 0]))
edited("no-positions", SKIPPED, Reason.NO_GEOMETRY, setting(ImagePositionPatient=None))
edited("no-orientation", SKIPPED, Reason.NO_GEOMETRY, setting(ImageOrientationPatient=None))
edited(
    "crooked-orientation",
    SKIPPED,
    Reason.NO_GEOMETRY,
    setting(ImageOrientationPatient=[1, 0, 0, 0.7, 0.7, 0]),
)
edited("orientation-of-zeros", SKIPPED, Reason.NO_GEOMETRY, setting(ImageOrientationPatient=[0] * 6))
for _bad in (
    b"0\\0",
    b"-1\\-1",
    b"nan\\nan",
    b"inf\\1",
    b"1e308\\1e308",
    b"0,9\\0,9",
    b"0.9",
    b"1e-40\\1e-40",
    b"",
    b"abc\\def",
):
    _label = _bad.decode().replace("\\", "-").replace(",", "c").replace(".", "p") or "empty"
    edited(f"pixel-spacing-{_label}", SKIPPED, Reason.NO_GEOMETRY, raw("PixelSpacing", _bad))
edited("one-other-matrix", HELD, Reason.MISSING_SLICE, setting(Rows=32, Columns=32), only=4)

# --- identity -----------------------------------------------------------------------------------------

edited("two-patients", HELD, Reason.PATIENT_MISMATCH, setting(PatientID="OTHER"), only=3)
edited("two-studies", HELD, Reason.MIXED_IDENTITY, setting(StudyInstanceUID="1.2.3.4"), only=3)
edited("two-frames-of-reference", HELD, Reason.MIXED_IDENTITY, setting(FrameOfReferenceUID="1.2.3.4"), only=3)
edited("two-devices", HELD, Reason.MIXED_IDENTITY, setting(Manufacturer="Another"), only=3)

# --- what the objects are -----------------------------------------------------------------------------

edited("localizers-only", SKIPPED, Reason.LOCALIZER, setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
edited("reformat", SKIPPED, Reason.NOT_SOURCE_IMAGE, setting(ImageType=["DERIVED", "SECONDARY", "MPR"]))
edited("projection", SKIPPED, Reason.NOT_SOURCE_IMAGE, setting(ImageType=["DERIVED", "PRIMARY", "MIP"]))
edited("mosaic", SKIPPED, Reason.MOSAIC, setting(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]))
edited("burned-in", SKIPPED, Reason.BURNED_IN, setting(BurnedInAnnotation="YES"))
edited(
    "our-own-work", SKIPPED, Reason.ALREADY_PROCESSED, setting(ManufacturerModelName="dicom-enhancement-node")
)
edited("multi-energy", SKIPPED, Reason.UNVALIDATED_CONTRAST, setting(MultienergyCTAcquisition="YES"))
for _class in (
    "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.88.11",
    "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.4.4", "1.3.12.2.1107.5.9.1",
):  # fmt: skip
    _why = {
        "1.2.840.10008.5.1.4.1.1.7": Reason.SECONDARY_CAPTURE,
        "1.2.840.10008.5.1.4.1.1.7.2": Reason.SECONDARY_CAPTURE,
        "1.2.840.10008.5.1.4.1.1.2.2": Reason.MULTI_FRAME,
        "1.2.840.10008.5.1.4.1.1.4.4": Reason.MULTI_FRAME,
    }.get(_class, Reason.UNSUPPORTED_SOP_CLASS)
    edited(
        f"class-{_class.removeprefix('1.2.840.10008.5.1.4.1.1.')}", SKIPPED, _why, setting(SOPClassUID=_class)
    )

# --- pixels -------------------------------------------------------------------------------------------

edited(
    "colour", SKIPPED, Reason.SECONDARY_CAPTURE, setting(SamplesPerPixel=3, PhotometricInterpretation="RGB")
)
edited("palette", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(PhotometricInterpretation="PALETTE COLOR"))
edited("one-bit", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(BitsAllocated=1, BitsStored=1, HighBit=0))
edited(
    "eight-bits-allocated",
    FAILED,
    Reason.DECODE_ERROR,
    setting(BitsAllocated=8, BitsStored=8, HighBit=7),
)
edited(
    "sixty-four-bits",
    SKIPPED,
    Reason.UNSUPPORTED_PIXELS,
    setting(BitsAllocated=64, BitsStored=64, HighBit=63),
)
edited("more-bits-than-room", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(BitsStored=20, HighBit=19))
edited("high-bit-too-low", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(BitsStored=12, HighBit=7))
edited("sign-flips", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(PixelRepresentation=1), only=3)
edited("no-rows", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(Rows=None))
edited("rows-of-nothing", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(Rows=0))
edited("more-rows-than-bytes", FAILED, Reason.DECODE_ERROR, setting(Rows=65535, Columns=65535))
edited("frames-times-four-billion", SKIPPED, Reason.MULTI_FRAME, setting(NumberOfFrames=2147483647))
edited("pixels-cut-short", FAILED, Reason.DECODE_ERROR, _cut, only=3)
edited("no-pixels", FAILED, Reason.UNREADABLE, setting(PixelData=None), only=3)
edited("trailing-byte-behind-pixels", ENHANCED, None, _lengthen)
for _slope in (b"0", b"nan", b"inf", b"", b"1e400", b"x"):
    edited(
        f"slope-{_slope.decode() or 'empty'}",
        SKIPPED,
        Reason.BAD_RESCALE,
        raw("RescaleSlope", _slope),
        only=2,
    )
edited("slope-missing", SKIPPED, Reason.BAD_RESCALE, setting(RescaleSlope=None), only=2)
edited("slope-tiny", SKIPPED, Reason.BAD_RESCALE, raw("RescaleSlope", b"1e-300"))
edited("slope-huge", SKIPPED, Reason.BAD_RESCALE, raw("RescaleSlope", b"1e300"))


def _corrupt(syntax: str) -> Callable[[Path, Material], object]:
    """One slice whose code stream ends in the middle."""

    def make(folder: Path, material: Material) -> None:
        change(material.write_ct(folder, syntax=syntax)[3], _halve)

    return make


def _halve(ds: FileDataset) -> None:
    """Keep the first half of the only frame."""
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) // 2]])


for _name, _syntax in (("rle", RLELossless), ("jpeg-2000", JPEG2000Lossless), ("jpeg-ls", JPEGLSLossless)):
    CASES.append(Case(f"corrupt-{_name}", _corrupt(_syntax), FAILED, Reason.DECODE_ERROR))


@case(FAILED, Reason.DECODE_ERROR)
def syntax_label_is_wrong(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder, syntax=JPEG2000Lossless):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.80", 1))


def _table(entries: bytes) -> Edit:
    """One frame in two fragments behind a basic offset table that says something else."""

    def edit(ds: FileDataset) -> None:
        (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
        half = len(frame) // 4 * 2
        items = (entries, frame[:half], frame[half:])
        ds.PixelData = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)
        ds["PixelData"].is_undefined_length = True

    return edit


for _name, _entries in (
    ("wrong", struct.pack("<L", 12345)),
    ("of-ones", b"\xff" * 8),
    ("for-two", struct.pack("<2L", 0, 99999)),
):
    CASES.append(
        Case(
            f"offset-table-{_name}",
            lambda folder, m, t=_entries: [  # type: ignore[misc]
                change(path, _table(t)) for path in m.write_ct(folder, syntax=JPEG2000Lossless)
            ],
            ENHANCED,
        )
    )
edited("row-of-filling", ENHANCED, None, lambda ds: setattr(ds, "PixelData", ds.PixelData + bytes(126)))
edited(
    "row-too-many",
    FAILED,
    Reason.DECODE_ERROR,
    lambda ds: setattr(ds, "PixelData", ds.PixelData + bytes(128)),
)


@case(FAILED, Reason.OUT_OF_RANGE)
def nothing_but_air(folder: Path, material: Material) -> None:
    air = replace(material.ct, array=np.full_like(material.ct.array, -1000))
    write_ct_series(air, folder, style=CT_STYLE)


@case(FAILED, Reason.UNSUPPORTED_PIXELS)
def padding_takes_everything(folder: Path, material: Material) -> None:
    def edit(ds: FileDataset) -> None:
        raw("PixelPaddingValue", b"\0\0")(ds)
        raw("PixelPaddingRangeLimit", b"\xff\xff")(ds)

    for path in material.write_ct(folder):
        change(path, edit)


@case(FAILED, Reason.DECODE_ERROR)
def frame_larger_than_stated(folder: Path, material: Material) -> None:
    def edit(ds: FileDataset) -> None:
        (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
        size = frame.index(b"\xff\x51") + 6  # Xsiz and Ysiz, later XTsiz and YTsiz, of the code stream
        huge = struct.pack(">2L", 60000, 60000)
        ds.PixelData = encapsulate(
            [frame[:size] + huge + frame[size + 8 : size + 16] + huge + frame[size + 24 :]]
        )

    for path in material.write_ct(folder, syntax=JPEG2000Lossless):
        change(path, edit)


# --- numbers and times that are none --------------------------------------------------------------------

edited("thickness-of-nothing", ENHANCED, None, raw("SliceThickness", b"nan"))
edited(
    "positions-with-marks",
    SKIPPED,
    Reason.NO_GEOMETRY,
    raw("ImagePositionPatient", b"1_0\\0\\1_0"),
    only=None,
)
edited("number-of-the-series-too-large", ENHANCED, None, raw("SeriesNumber", b"2147483647"))
edited(
    "counts-beyond-all-numbers",
    ENHANCED,
    None,
    lambda ds: [raw(k, b"1e300")(ds) for k in ("ImagesInAcquisition", "SeriesNumber", "AcquisitionNumber")],
)
for _name, _zone in (("behind-the-map", b"+9959"), ("with-minutes", b"-0075"), ("of-tomorrow", b"+2400")):
    edited(f"zone-{_name}", ENHANCED, None, raw("TimezoneOffsetFromUTC", _zone))


@case(ENHANCED)
def enhanced_beside_classic(folder: Path, material: Material) -> None:
    (classic, *_) = material.write_ct(folder)
    write_enhanced([material.ct], folder / "multi.dcm")
    with quiet():
        first = dcmread(classic, stop_before_pixels=True)
    same = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "Manufacturer")
    change(folder / "multi.dcm", setting(**{keyword: first[keyword].value for keyword in same}))


@case(SKIPPED, Reason.MULTI_FRAME)
def frames_without_groups(folder: Path, material: Material) -> None:
    write_enhanced([material.ct], folder / "1.dcm")
    change(folder / "1.dcm", setting(PerFrameFunctionalGroupsSequence=None))


@case(SKIPPED, Reason.MULTI_FRAME)
def frames_by_the_billion(folder: Path, material: Material) -> None:
    write_enhanced([material.ct], folder / "1.dcm")
    change(folder / "1.dcm", setting(NumberOfFrames=2147483647))


@case(HELD, Reason.MISSING_SLICE)
def frames_without_place(folder: Path, material: Material) -> None:
    write_enhanced([material.ct], folder / "1.dcm")
    change(folder / "1.dcm", lambda ds: ds.PerFrameFunctionalGroupsSequence[3].pop("PlanePositionSequence"))


# --- files and the door -------------------------------------------------------------------------------


def spoil(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a file."""
    path.write_bytes(edit(path.read_bytes()))


PIXELS = b"\xe0\x7f\x10\x00OW"
"""How the pixel data of an uncompressed slice begin."""


def body(content: bytes) -> int:
    """Where the data set begins."""
    return 144 + int(struct.unpack("<L", content[140:144])[0])


@case(ENHANCED)
def executable_in_the_preamble(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder):
        spoil(path, lambda content: (b"MZ" + b"\x90" * 126) + content[128:])


def door(name: str, reason: Reason, edit: Callable[[bytes], bytes]) -> None:
    """Register a series of which one file is turned away, so that a slice is missing."""

    def make(folder: Path, material: Material) -> None:
        spoil(material.write_ct(folder)[5], edit)

    CASES.append(Case(name, make, HELD, Reason.MISSING_SLICE, refused=1))
    assert reason


def _nested(depth: int) -> Callable[[bytes], bytes]:
    item = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return lambda content: content[: body(content)] + item * depth + content[body(content) :]


door("file-cut-in-the-header", Reason.CANNOT_UNDERSTAND, lambda c: c[: body(c) + 300])
door("file-cut-in-the-pixels", Reason.CANNOT_UNDERSTAND, lambda c: c[:-1000])
door("nothing-but-file-meta", Reason.BAD_UID, lambda c: c[: body(c)])
door(
    "length-of-four-gigabytes",
    Reason.CANNOT_UNDERSTAND,
    lambda c: c[:-8202] + b"\xfe\xff\xff\xff" + c[-8198:],
)
door("nested-17-deep", Reason.CANNOT_UNDERSTAND, _nested(17))
door("nested-10000-deep", Reason.CANNOT_UNDERSTAND, _nested(10000))
door("group-0002-inside", Reason.CANNOT_UNDERSTAND, lambda c: c[: body(c)] + c[132:144] + c[body(c) :])
door("uid-with-a-path", Reason.BAD_UID, lambda c: _uid_like(c, b"../../etc/passwd"))
door("uid-with-letters", Reason.BAD_UID, lambda c: _uid_like(c, b"1.2.abc"))


def _uid_like(content: bytes, value: bytes) -> bytes:
    """Put another text where SOPInstanceUID stands, of the same length."""
    at = content.index(b"\x08\x00\x18\x00UI", body(content))
    length = struct.unpack("<H", content[at + 6 : at + 8])[0]
    return content[: at + 8] + value.ljust(length, b"\0") + content[at + 8 + length :]


door("nested-17-deep-in-lengths", Reason.CANNOT_UNDERSTAND, lambda c: _before(c, PIXELS, in_lengths(17)))
door(
    "another-patient-behind",
    Reason.CANNOT_UNDERSTAND,
    lambda c: _before(c, PIXELS, b"\x10\0\x20\0LO\4\0EVIL"),
)
door("pixels-twice", Reason.CANNOT_UNDERSTAND, lambda c: c + c[c.rindex(PIXELS) :])


@case(ENHANCED)
def nested_16_deep_in_lengths(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder):
        spoil(path, lambda c: _before(c, PIXELS, in_lengths(16)))


@case(ENHANCED)
def private_megabytes(folder: Path, material: Material) -> None:
    head = b"\xf1\x7f\x10\x00LO\x04\0VNDR\xf1\x7f\x10\x10OB\0\0" + struct.pack("<L", 8 << 20)
    for path in material.write_ct(folder):
        spoil(path, lambda c: c + head + bytes(8 << 20))


@case(REFUSED, Reason.CANNOT_UNDERSTAND, refused=SLICES)
def deflate_bomb_of_nothing(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder, syntax=DeflatedExplicitVRLittleEndian):
        content = path.read_bytes()
        squeezer = zlib.compressobj(wbits=-15)
        path.write_bytes(content[: body(content)] + squeezer.compress(b"\0" * 10_000_000) + squeezer.flush())


@case(REFUSED, Reason.BAD_UID, refused=SLICES)
def pixels_and_nothing_else(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder):
        spoil(path, lambda c: c[: body(c)] + c[c.rindex(b"\xe0\x7f\x10\x00OW") :])


@case(ENHANCED)
def tags_behind_the_pixels(folder: Path, material: Material) -> None:
    for path in material.write_ct(folder):
        spoil(path, lambda c: c + b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0")


@case(ENHANCED)
def ten_thousand_private_tags(folder: Path, material: Material) -> None:
    block = b"\x29\x00\x10\x00LO\x04\0VNDR" + b"".join(
        struct.pack("<HH2sH", 0x29, 0x1000 + i % 0xFF, b"LO", 2) + b"x " for i in range(0xFF)
    )
    for path in material.write_ct(folder):
        spoil(path, lambda c: _before(c, b"\xe0\x7f\x10\x00OW", block * 1))


def _before(content: bytes, mark: bytes, block: bytes) -> bytes:
    at = content.rindex(mark)
    return content[:at] + block + content[at:]


LATER = {
    "syntax-implicit-little-endian", "syntax-rle", "syntax-jpeg-lossless-process-14", "syntax-deflated",
    "signed-sixteen-bits", "no-frame-of-reference", "unknown-character-set", "name-of-64-kilobytes",
    "description-too-long", "empty-patient", "decimal-strings-too-long", "ten-thousand-private-tags",
    "executable-in-the-preamble", "trailing-byte-behind-pixels", "classic-mr", "enhanced-ct",
    "pixel-spacing--1--1", "pixel-spacing-inf-1", "pixel-spacing-0c9-0c9", "pixel-spacing-0p9",
    "pixel-spacing-abc-def", "pixel-spacing-empty", "slope-inf", "slope-x", "slope-1e400", "slope-tiny",
    "class-7.2", "class-11.1", "class-88.59", "class-481.3", "class-66.4", "class-128", "class-4.4",
    "offset-table-of-ones", "offset-table-for-two", "thickness-of-nothing", "positions-with-marks",
    "number-of-the-series-too-large", "counts-beyond-all-numbers", "zone-behind-the-map", "zone-with-minutes",
    "private-megabytes", "nested-16-deep-in-lengths", "row-of-filling", "frames-without-place",
    "two-studies", "two-devices", "projection", "orientation-of-zeros", "sixty-four-bits", "one-bit",
    "no-orientation", "last-missing-and-counted", "nothing-but-file-meta", "uid-with-letters",
}  # fmt: skip
"""Near relatives of other cases: they wait for the full table."""

# --- fixtures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def material() -> Material:
    """A small noisy head in HU and the same as an MR magnitude."""
    clean = head_phantom((SLICES, 64, 64), (3.0, 3.4, 3.4), 3)
    ct = noisy_ct(clean, 20.0, 5)
    return Material(ct, replace(ct, array=np.abs(ct.array + 1024), unit=IntensityUnit.ARBITRARY))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case."""
    if "table_case" in metafunc.fixturenames:
        marked = [
            pytest.param(c, marks=[pytest.mark.drill] if c.name in LATER else [], id=c.name) for c in CASES
        ]
        metafunc.parametrize("table_case", marked)


@pytest.fixture
def case_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one series."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder
