"""Classic CT and MR series made from an engine volume: valid objects of a scanner that does not exist.

They serve the demo and the tests of every room: what a scanner may vary (bits, sign, rescale per slice,
padding, transfer syntax, any attribute) is a field of the style. The same volume, seed and style give the
same files; another volume gives other UIDs, so two phantoms never share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pydicom.valuerep import DS

from dicom_node.imaging.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, UidPlan
from engine.volume import Volume


@dataclass(frozen=True)
class PhantomStyle:
    """What a scanner may vary between series.

    study_key      series with equal keys (and patient) stand in one study and frame of reference
    slopes         RescaleSlope of slice i is slopes[i % len]; empty: no rescale attributes (MR)
    padding        stored value written where `volume.valid` is False
    syntax         transfer syntax UID, compressed losslessly where it says so
    attributes     keyword to value, set on every instance last; None removes the attribute
    """

    patient_name: str = "PHANTOM^HEAD"
    patient_id: str = "PHANTOM-1"
    study_key: str = "study-1"
    series_number: int = 2
    series_description: str = "HEAD 3.0 SOFT"
    bits_stored: int = 12
    signed: bool = False
    slopes: tuple[float, ...] = (1.0,)
    intercept: float = -1024.0
    padding: int | None = None
    syntax: str = ExplicitVRLittleEndian
    first_instance_number: int = 1
    attributes: Mapping[str, object] = field(default_factory=dict)


CT_STYLE = PhantomStyle()
MR_STYLE = PhantomStyle(series_description="T1 3D SAG", slopes=(), intercept=0.0)

_UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)

_COMMON: Mapping[str, object] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "StudyDate": "20240506",
    "SeriesDate": "20240506",
    "AcquisitionDate": "20240506",
    "ContentDate": "20240506",
    "StudyTime": "070000",
    "SeriesTime": "070500",
    "ContentTime": "070600",
    "AccessionNumber": "A-1",
    "ReferringPhysicianName": "REFERRER^ONE",
    "StudyDescription": "PHANTOM",
    "StudyID": "1",
    "InstitutionName": "PHANTOM SITE",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "PatientPosition": "HFS",
    "BodyPartExamined": "HEAD",
    "PositionReferenceIndicator": "",
    "AcquisitionNumber": 1,
    "BurnedInAnnotation": "NO",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
}
_CT: Mapping[str, object] = {
    "SOPClassUID": CTImageStorage,
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "Manufacturer": "Phantom Scanners",
    "ManufacturerModelName": "CT One",
    "DeviceSerialNumber": "CT-0001",
    "SoftwareVersions": "1.0",
    "StationName": "CT1",
    "KVP": "120",
    "XRayTubeCurrent": "200",
    "ConvolutionKernel": "SOFT",
    "GantryDetectorTilt": "0",
    "WindowCenter": "40",
    "WindowWidth": "80",
}
_MR: Mapping[str, object] = {
    "SOPClassUID": MRImageStorage,
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    "Manufacturer": "Phantom Scanners",
    "ManufacturerModelName": "MR One",
    "DeviceSerialNumber": "MR-0001",
    "SoftwareVersions": "1.0",
    "StationName": "MR1",
    "ScanningSequence": "GR",
    "SequenceVariant": "SP",
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "2000",
    "EchoTime": "2.5",
    "EchoTrainLength": "1",
    "FlipAngle": "9",
    "MagneticFieldStrength": "3",
    "WindowCenter": "500",
    "WindowWidth": "1000",
}


def write_ct_series(
    volume: Volume, directory: Path, *, seed: int = 0, style: PhantomStyle = CT_STYLE
) -> list[Path]:
    """Write one CT Image per slice of a volume in HU and return the paths in slice order.

    `directory` is created. Values outside the stored range are clipped; `seed` varies only the UIDs.
    """
    return _write(volume, directory, seed=seed, style=style, module=_CT)


def write_mr_series(
    volume: Volume, directory: Path, *, seed: int = 0, style: PhantomStyle = MR_STYLE
) -> list[Path]:
    """Write one MR Image per slice of a non-negative volume; otherwise as `write_ct_series`."""
    return _write(volume, directory, seed=seed, style=style, module=_MR)


def _write(
    volume: Volume, directory: Path, *, seed: int, style: PhantomStyle, module: Mapping[str, object]
) -> list[Path]:
    """Build and save every slice."""
    directory.mkdir(parents=True, exist_ok=True)
    plan = UidPlan(_fingerprint(volume, seed, style, module))
    paths = []
    for index in range(volume.array.shape[0]):
        ds = _header(volume, index, style, module, plan)
        _set_pixels(ds, volume, index, style)
        for keyword, value in style.attributes.items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)
        path = directory / f"{index + 1:04d}.dcm"
        _save(ds, path, style)
        paths.append(path)
    return paths


def _fingerprint(volume: Volume, seed: int, style: PhantomStyle, module: Mapping[str, object]) -> str:
    """A key that differs whenever the files would."""
    digest = hashlib.sha256(volume.array.tobytes())
    digest.update(volume.affine.tobytes())
    digest.update(repr((seed, style, module["Modality"])).encode())
    return digest.hexdigest()


def _header(
    volume: Volume, index: int, style: PhantomStyle, module: Mapping[str, object], plan: UidPlan
) -> Dataset:
    """Everything but the pixels of slice `index`."""
    ds = Dataset()
    for keyword, value in {**_COMMON, **module}.items():
        setattr(ds, keyword, value)
    study = UidPlan("\n".join((style.study_key, style.patient_id)))
    ds.PatientName, ds.PatientID = style.patient_name, style.patient_id
    ds.StudyInstanceUID = study.instance_uid("study")
    ds.FrameOfReferenceUID = study.instance_uid("frame of reference")
    ds.SeriesInstanceUID = plan.series_uid
    ds.SOPInstanceUID = plan.instance_uid(str(index))
    ds.SeriesNumber = style.series_number
    ds.SeriesDescription = style.series_description
    ds.InstanceNumber = style.first_instance_number + index
    ds.AcquisitionTime = f"{70500 + index // 100:06d}.{index % 100:02d}"
    _set_geometry(ds, volume, index)
    return ds


def _set_geometry(ds: Dataset, volume: Volume, index: int) -> None:
    """Image Plane module of slice `index` (PS3.3 C.7.6.2)."""
    slice_mm, row_mm, column_mm = volume.spacing_mm
    along_row = volume.affine[:3, 2] / column_mm
    along_column = volume.affine[:3, 1] / row_mm
    position = volume.affine[:3, 0] * index + volume.affine[:3, 3]
    ds.ImagePositionPatient = _decimals(position)
    ds.ImageOrientationPatient = _decimals(np.concatenate([along_row, along_column]))
    ds.PixelSpacing = _decimals(np.array([row_mm, column_mm]))
    ds.SliceThickness = _decimals(np.array([slice_mm]))[0]
    ds.SpacingBetweenSlices = _decimals(np.array([slice_mm]))[0]
    normal = np.cross(along_row, along_column)
    ds.SliceLocation = _decimals(np.array([float(position @ normal)]))[0]
    ds.Rows, ds.Columns = (int(n) for n in volume.array.shape[1:])


def _decimals(values: NDArray[np.float64]) -> list[object]:
    """Decimal strings of at most 16 characters (PS3.5 6.2), without negative zeros."""
    return [DS(round(float(value), 10) + 0.0, auto_format=True) for value in values]


def _set_pixels(ds: Dataset, volume: Volume, index: int, style: PhantomStyle) -> None:
    """Pixel module and rescale of slice `index`."""
    slope = style.slopes[index % len(style.slopes)] if style.slopes else 1.0
    bits = style.bits_stored
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if style.signed else (0, (1 << bits) - 1)
    real = volume.array[index].astype(np.float64)
    stored = np.clip(np.rint((real - style.intercept) / slope), low, high).astype(np.int32)
    if style.padding is not None and volume.valid is not None:
        stored[~volume.valid[index]] = style.padding
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(style.signed)
    if style.slopes:
        ds.RescaleSlope, ds.RescaleIntercept = (
            _decimals(np.array([slope]))[0],
            _decimals(np.array([style.intercept]))[0],
        )
    if style.slopes and ds.Modality == "CT":
        ds.RescaleType = "HU"
    if style.padding is not None:
        ds.add_new("PixelPaddingValue", "SS" if style.signed else "US", style.padding)
    big = style.syntax == ExplicitVRBigEndian
    dtype = np.dtype(np.int16 if style.signed else np.uint16).newbyteorder(">" if big else "<")
    ds.add_new("PixelData", "OW", stored.astype(dtype).tobytes())


def _save(ds: Dataset, path: Path, style: PhantomStyle) -> None:
    """Write a Part 10 file in the style's transfer syntax."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    if style.syntax in _UNCOMPRESSED:
        meta.TransferSyntaxUID = UID(style.syntax)
    else:
        ds.compress(style.syntax, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)
