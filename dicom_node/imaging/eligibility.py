"""Whether a complete series is enhanced, left alone or held for a person, and on what evidence.

Whatever is one or several regular volumes of classic single-frame CT or MR images is enhanced. Everything
else ends here with a reason, before any pixel is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy, SeriesPlan, assemble
from dicom_node.imaging.evidence import Evidence, gather
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.source_rules import screen

__all__ = ["AssemblyPolicy", "Evidence", "SeriesPlan", "check_series"]


def check_series(headers: Sequence[InstanceHeader], policy: AssemblyPolicy) -> SeriesPlan:
    """Return the volumes of a series that may be enhanced, with the evidence.

    Raises `SkipSeriesError` when it is right to leave the series alone, `HoldSeriesError` when a person
    has to look: other patients, other studies, two contents of one UID, missing slices, positions taken
    twice. Both carry the evidence gathered so far. What the images are is asked first, then whether they
    are all there, then how they lie.
    """
    if not headers:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, "No instance.")
    if len(headers) > policy.most_slices:
        raise SkipSeriesError(Reason.TOO_LARGE, f"{len(headers)} slices of at most {policy.most_slices}.")
    evidence = gather(headers)
    try:
        chosen, left_out = screen(headers, policy)
        evidence = replace(evidence, left_out=left_out)
        _require_one_identity([headers[i] for i in chosen])
        if not policy.released:
            _require_all_counted(evidence)
        _require_enough(len(chosen), policy.minimum_slices)
        return assemble(headers, policy, evidence, chosen)
    except (SkipSeriesError, HoldSeriesError) as exc:
        exc.evidence = exc.evidence or evidence.as_json()
        raise


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


def _require_enough(found: int, minimum_slices: int) -> None:
    """At least as many slices as the enhancement needs."""
    if found < minimum_slices:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, f"{found} of at least {minimum_slices}.")
