"""Whether a complete series is enhanced, left alone or held for a person, and on what evidence.

Classic single-frame CT and MR on a regular grid are enhanced. Everything else ends here with a reason,
before any pixel is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.evidence import Evidence, gather
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.source_rules import require_one_volume, require_source_images
from dicom_node.imaging.stacking import arrange

__all__ = ["Evidence", "check_series"]


def check_series(headers: Sequence[InstanceHeader], *, minimum_slices: int, allow_lossy: bool) -> Evidence:
    """Return the evidence for a series that may be enhanced.

    Raises `SkipSeriesError` when it is right to leave the series alone, `HoldSeriesError` when a person
    has to look: other patients, other studies, two contents of one UID, missing slices, positions taken
    twice. Both carry the evidence gathered so far. What the images are is asked first, then whether they
    are all there, then how they lie.
    """
    if not headers:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, "No instance.")
    evidence = gather(headers)
    try:
        require_source_images(headers, allow_lossy=allow_lossy)
        _require_one_identity(headers)
        require_one_volume(headers)
        _require_all_counted(evidence)
        _require_enough(evidence, minimum_slices)
        _, evidence = arrange(headers, evidence)
    except (SkipSeriesError, HoldSeriesError) as exc:
        exc.evidence = exc.evidence or evidence.as_json()
        raise
    return evidence


def _require_one_identity(headers: Sequence[InstanceHeader]) -> None:
    """One patient, study, series, frame of reference and modality; every SOP instance once."""
    if len({h.patient_key for h in headers}) > 1:
        raise HoldSeriesError(Reason.PATIENT_MISMATCH)
    uids = [h.sop_instance_uid for h in headers]
    if len(set(uids)) < len(uids):
        raise HoldSeriesError(Reason.UID_CONFLICT, f"{len(uids) - len(set(uids))} UIDs appear twice.")
    for name, values in (
        ("StudyInstanceUID", {h.study_instance_uid for h in headers}),
        ("SeriesInstanceUID", {h.series_instance_uid for h in headers}),
        ("FrameOfReferenceUID", {h.frame_of_reference_uid for h in headers}),
        ("Modality", {h.modality for h in headers}),
        ("Manufacturer", {h.manufacturer for h in headers}),
    ):
        if len(values) > 1:
            raise HoldSeriesError(Reason.MIXED_IDENTITY, f"{len(values)} values of {name}.")


def _require_all_counted(evidence: Evidence) -> None:
    """The objects say how many there are, and there are not so many."""
    if evidence.expected_count is not None and evidence.found < evidence.expected_count:
        raise HoldSeriesError(
            Reason.MISSING_SLICE, f"{evidence.found} of {evidence.expected_count} instances arrived."
        )


def _require_enough(evidence: Evidence, minimum_slices: int) -> None:
    """At least as many slices as the enhancement needs."""
    if evidence.found < minimum_slices:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, f"{evidence.found} of at least {minimum_slices}.")
