"""The two companions themselves, built by highdicom: a Parametric Map for each volume, and one report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from highdicom import UID, PlanePositionSequence
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.imaging.companions import CompanionSeries, CompanionWork, stand_ins
from dicom_node.imaging.enhanced_derivation import SERIAL_NUMBER
from dicom_node.imaging.enhanced_writer import source_objects
from dicom_node.imaging.identity import MODEL_NAME

_HU: Final = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
_NO_UNIT: Final = CodedConcept("1", "UCUM", "no units")
_STANDARD_DEVIATION: Final = CodedConcept("113061", "DCM", "Standard Deviation")
_QUALITY: Final = CodedConcept("111050", "DCM", "Quality Assessment")
_USABLE: Final = CodedConcept("111237", "DCM", "Usable - Meets the quality control standard")
_PROCEDURE: Final = CodedConcept("133887000", "SCT", "Image quality analysis")


def parametric_maps(work: CompanionWork, series: CompanionSeries) -> list[Dataset]:
    """Return a map of the standard deviation for each volume."""
    made: list[Dataset] = []
    for covered in _maps(work):
        highest = float(covered.values.max(initial=0.0)) or 1.0
        mapping = RealWorldValueMapping(
            lut_label="UNCERTAINTY",
            lut_explanation="Standard deviation of the enhanced value",
            unit=_HU if work.source.is_ct else _NO_UNIT,
            value_range=(0.0, highest),
            slope=1.0,
            intercept=0.0,
            quantity_definition=_STANDARD_DEVIATION,
        )
        made.append(
            ParametricMap(
                stand_ins(covered.derived),
                covered.values,
                plane_positions=covered.positions,
                further_source_images=stand_ins(covered.sources),
                series_instance_uid=series.series_uid,
                series_number=series.series_number,
                sop_instance_uid=work.uids.instance_uid(f"{series.kind}:{len(made)}"),
                instance_number=len(made) + 1,
                # A map of a head shows a face as its source does.
                contains_recognizable_visual_features=True,
                real_world_value_mappings=[mapping],
                window_center=highest / 2,
                window_width=highest,
                content_label="UNCERTAINTY",
                content_qualification="RESEARCH",
                image_flavor="VOLUME",
                derived_pixel_contrast="STD_DEVIATION",
                series_description="Uncertainty of the enhancement",
                **_equipment(work),
                device_serial_number=SERIAL_NUMBER,
            )
        )
    return made


@dataclass(frozen=True, eq=False)
class _Map:
    """What one map covers.

    derived, sources   files, in the order of the values
    positions          of the frames of a multi-frame object, which need not all be in the map; else None
    """

    derived: list[Path]
    sources: list[Path]
    values: NDArray[np.float32]
    positions: list[PlanePositionSequence] | None


def _maps(work: CompanionWork) -> list[_Map]:
    """One map for each volume: its slices, or its frames."""
    objects = dict(zip(source_objects(work.source), work.derived, strict=False))
    slices = iter(work.derived)
    found = []
    for part, deviation in zip(work.source.volumes, work.uncertainty, strict=True):
        if deviation is None:
            continue
        values = np.ascontiguousarray(deviation.array, np.float32)
        sources = list(dict.fromkeys(piece.path for piece in part.slices))
        if part.slices[0].frame is None:
            found.append(_Map([next(slices).path for _ in part.slices], sources, values, None))
            continue
        positions = [
            PlanePositionSequence("PATIENT", piece.header.geometry.position or (0, 0, 0))
            for piece in part.slices
        ]
        found.append(_Map([objects[path].path for path in sources], sources, values, positions))
    return found


def quality_reports(work: CompanionWork, series: CompanionSeries) -> list[Dataset]:
    """Return one report: the noise of every volume before and after, and by what it was removed."""
    derived = stand_ins([instance.path for instance in work.derived])
    sources = stand_ins(list(dict.fromkeys(piece.path for piece in work.source.slices)))
    groups = []
    for figures in work.figures:
        name = f" of {figures.label}" if figures.label else ""
        groups.append(_group(work, f"Noise{name}, source", sources, figures.noise_before, []))
        verdict = [QualitativeEvaluation(name=_QUALITY, value=_USABLE)]
        groups.append(_group(work, f"Noise{name}, derived", derived, figures.noise_after, verdict))
    device = DeviceObserverIdentifyingAttributes(
        uid=UID(work.uids.instance_uid("observer")),
        manufacturer_name=work.policy.manufacturer,
        model_name=MODEL_NAME,
    )
    observer = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=_PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return [
        ComprehensiveSR(
            evidence=[*sources, *derived],
            content=report,
            series_instance_uid=series.series_uid,
            series_number=series.series_number,
            sop_instance_uid=work.uids.instance_uid(series.kind),
            instance_number=1,
            is_complete=True,
            is_final=True,
            series_description="Quality of the enhancement",
            **{**_equipment(work), "software_versions": None},
        )
    ]


def _group(
    work: CompanionWork, name: str, images: list[Any], noise: float, evaluations: list[Any]
) -> MeasurementsAndQualitativeEvaluations:
    """One measured standard deviation, the images it belongs to, and the algorithm."""
    made_by = work.provenance
    algorithm = AlgorithmIdentification(
        name=made_by.algorithm[:64],
        version=made_by.version[:64],
        parameters=[f"sha256:{made_by.digest}", f"strength={made_by.strength:g}"],
    )
    unit = _HU if work.source.is_ct else _NO_UNIT
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=UID(work.uids.instance_uid(name)), identifier=name),
        measurements=[Measurement(name=_STANDARD_DEVIATION, value=noise, unit=unit, algorithm_id=algorithm)],
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup(ds.SOPClassUID, ds.SOPInstanceUID) for ds in images],
    )


def _equipment(work: CompanionWork) -> dict[str, Any]:
    """Who made the companion."""
    return {
        "manufacturer": work.policy.manufacturer,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": work.provenance.software_versions,
    }
