"""Enhanced CT and MR objects made from engine volumes: multi-frame companions of `phantom_series`.

Several volumes become several temporal positions of one object, frame by frame in turns, so that neither the
order of frames nor their number says which volume a frame belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EnhancedCTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from dicom_node.imaging.elements import tag_of
from dicom_node.imaging.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, UidPlan
from engine.volume import IntensityUnit, Volume

_DIMENSIONS: Final = (
    ("StackID", "FrameContentSequence"),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("InStackPositionNumber", "FrameContentSequence"),
)
_COMMON: Final[Mapping[str, object]] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "StudyDate": "20240506",
    "SeriesDate": "20240506",
    "ContentDate": "20240506",
    "StudyTime": "070000",
    "SeriesTime": "070500",
    "ContentTime": "070600",
    "AcquisitionDateTime": "20240506070530",
    "AcquisitionDuration": 12.5,
    "AccessionNumber": "A-1",
    "ReferringPhysicianName": "REFERRER^ONE",
    "StudyID": "1",
    "PatientName": "PHANTOM^HEAD",
    "PatientID": "PHANTOM-1",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "PatientPosition": "HFS",
    "PositionReferenceIndicator": "",
    "Manufacturer": "Phantom Scanners",
    "ManufacturerModelName": "Enhanced One",
    "DeviceSerialNumber": "E-0001",
    "SoftwareVersions": "1.0",
    "SeriesNumber": 2,
    "SeriesDescription": "HEAD 3.0 SOFT",
    "InstanceNumber": 1,
    "ContentQualification": "PRODUCT",
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "00",
    "PresentationLUTShape": "IDENTITY",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
    "PixelPresentation": "MONOCHROME",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "NumberOfTemporalPositions": 1,
}
_CT: Final[Mapping[str, object]] = {
    "SOPClassUID": EnhancedCTImageStorage,
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    "MultienergyCTAcquisition": "NO",
}
_MR: Final[Mapping[str, object]] = {
    "SOPClassUID": EnhancedMRImageStorage,
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
    "ComplexImageComponent": "MAGNITUDE",
    "AcquisitionContrast": "UNKNOWN",
    "MRAcquisitionType": "3D",
    "MagneticFieldStrength": 3.0,
    "ResonantNucleus": "1H",
    "ApplicableSafetyStandardAgency": "IEC",
}


def write_enhanced(
    volumes: Sequence[Volume],
    path: Path,
    *,
    attributes: Mapping[str, object] | None = None,
    slopes: Sequence[float] = (1.0,),
    syntax: str = ExplicitVRLittleEndian,
) -> Path:
    """Write volumes of one grid as one Enhanced object (CT where they are in HU) and return the path.

    slopes      RescaleSlope of frame i is slopes[i % len]
    attributes  keyword to value, set on the object last; None removes the attribute
    """
    is_ct = volumes[0].unit is IntensityUnit.HU
    ds = _object(volumes, is_ct=is_ct, uids=UidPlan(str(path)))
    _add_frames(ds, volumes, slopes, is_ct=is_ct)
    for keyword, value in (attributes or {}).items():
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    if syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def _object(volumes: Sequence[Volume], *, is_ct: bool, uids: UidPlan) -> Dataset:
    """Everything but the frames."""
    ds = Dataset()
    for keyword, value in {**_COMMON, **(_CT if is_ct else _MR)}.items():
        setattr(ds, keyword, value)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids.instance_uid("study"), uids.series_uid
    ds.SOPInstanceUID = uids.instance_uid("object")
    ds.FrameOfReferenceUID = uids.instance_uid("frame of reference")
    ds.Rows, ds.Columns = (int(n) for n in volumes[0].array.shape[1:])
    ds.AcquisitionContextSequence = []
    organization = Dataset()
    organization.DimensionOrganizationUID = uids.instance_uid("dimensions")
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization.DimensionOrganizationUID,
            DimensionIndexPointer=tag_of(pointer),
            FunctionalGroupPointer=tag_of(group),
        )
        for pointer, group in _DIMENSIONS
    ]
    ds.SharedFunctionalGroupsSequence = [_shared(volumes[0], is_ct=is_ct)]
    return ds


def _shared(volume: Volume, *, is_ct: bool) -> Dataset:
    """The groups that all frames have in common."""
    slice_mm, row_mm, column_mm = volume.spacing_mm
    along_row, along_column = volume.affine[:3, 2] / column_mm, volume.affine[:3, 1] / row_mm
    cosines = [round(float(v), 10) + 0.0 for v in (*along_row, *along_column)]
    shared = Dataset()
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=[row_mm, column_mm], SliceThickness=slice_mm, SpacingBetweenSlices=slice_mm)
    ]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=cosines)]
    shared.FrameVOILUTSequence = [_item(WindowCenter=40, WindowWidth=400)]
    region = _item(CodeValue="12738006", CodingSchemeDesignator="SCT", CodeMeaning="Brain")
    shared.FrameAnatomySequence = [_item(FrameLaterality="U", AnatomicRegionSequence=[region])]
    if is_ct:
        shared.CTReconstructionSequence = [
            _item(ReconstructionAlgorithm="FILTER_BACK_PROJ", ConvolutionKernel="SOFT")
        ]
        shared.CTXRayDetailsSequence = [_item(KVP=120)]
    else:
        shared.MREchoSequence = [_item(EffectiveEchoTime=2.5)]
        shared.MRTimingAndRelatedParametersSequence = [_item(RepetitionTime=2000, FlipAngle=9)]
    return shared


def _add_frames(ds: Dataset, volumes: Sequence[Volume], slopes: Sequence[float], *, is_ct: bool) -> None:
    """Frames in turns: slice 1 of every volume, slice 2 of every volume, and so on."""
    groups: list[Dataset] = []
    frames = []
    intercept = -1024.0 if is_ct else 0.0
    for index in range(volumes[0].array.shape[0]):
        for time, volume in enumerate(volumes, 1):
            slope = slopes[len(groups) % len(slopes)]
            groups.append(_frame(volume, index, time, rescale=(slope, intercept), is_ct=is_ct))
            stored = np.rint((volume.array[index].astype(np.float64) - intercept) / slope)
            frames.append(np.clip(stored, 0, 4095).astype("<u2"))
    ds.NumberOfFrames = len(frames)
    ds.NumberOfTemporalPositions = len(volumes)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.add_new("PixelData", "OW", np.stack(frames).tobytes())


def _frame(volume: Volume, index: int, time: int, *, rescale: tuple[float, float], is_ct: bool) -> Dataset:
    """The groups of one frame."""
    position = volume.affine[:3, 0] * index + volume.affine[:3, 3]
    group = Dataset()
    group.PlanePositionSequence = [_item(ImagePositionPatient=[round(float(p), 6) + 0.0 for p in position])]
    group.FrameContentSequence = [
        _item(
            StackID="1",
            InStackPositionNumber=index + 1,
            TemporalPositionIndex=time,
            DimensionIndexValues=[1, time, index + 1],
            FrameAcquisitionDateTime="20240506070530",
            FrameReferenceDateTime="20240506070530",
            FrameAcquisitionDuration=1000.0,
        )
    ]
    group.PixelValueTransformationSequence = [
        _item(RescaleSlope=rescale[0], RescaleIntercept=rescale[1], RescaleType="HU" if is_ct else "US")
    ]
    kind = _item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME" if is_ct else "M", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    if is_ct:
        group.CTImageFrameTypeSequence = [kind]
    else:
        kind.ComplexImageComponent, kind.AcquisitionContrast = "MAGNITUDE", "UNKNOWN"
        group.MRImageFrameTypeSequence = [kind]
    return group


def _item(**values: object) -> Dataset:
    """A sequence item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
