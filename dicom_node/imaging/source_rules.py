"""Which images the enhancement was made for: rules over headers, one function per reason to leave a series.

Order matters: the first rule that objects gives the reason, from what the objects are to what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.evidence import LeftOut
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.pixels import can_decode

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_SECONDARY_CAPTURE_ROOT = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
"""Transfer syntaxes that may lose information, with the term of LossyImageCompressionMethod."""

_COMPUTED_WORDS = (
    "MPR MIP MINIP MAX_IP MIN_IP MEAN_IP AVERAGE_IP VRT VR VOLREN SSD REFORMATTED PROCESSED PASTED "
    "SUBTRACTION SUB DIFFERENCE ADC EADC FA TRACE TRACEW ISOTROPIC ANISO TENSOR TENSOR_B0 EXPADC "
    "CBF CBV RCBF RCBV MTT TTP TMAX PERFUSION RELCBF RELCBV RELMTT GBP T1MAP T2MAP T2STARMAP "
    "VELOCITY SPECTRO CURVED FUSED SEGMENTATION FIT MEAN STDDEV"
)
_COMPUTED_TERMS = frozenset(_COMPUTED_WORDS.split())
_COMPUTED_PHRASES = frozenset(
    {
        "PROJECTION IMAGE",
        "SCREEN SAVE",
        "PHASE MAP",
        "VELOCITY MAP",
        "T1 MAP",
        "T2 MAP",
        "T2_STAR MAP",
        "R2 MAP",
        "R2_STAR MAP",
        "B0 MAP",
        "FIELD MAP",
        "DIFFUSION MAP",
        "CSA REPORT",
        "CSA MPR",
        "CSA 3D EDITOR",
        "CSA RESAMPLED",
        "CSA MIP",
        "CSA PARALLEL",
        "CSAPARALLEL",
    }
)
_MONOENERGETIC_TERMS = ("VMI", "MONOENERGETIC", "MONO_")
_MATERIAL_TERMS = ("MAT_", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "EDW_ATOMIC_NUM")
_NON_MAGNITUDE_TERMS = frozenset({"P", "R", "I", "REAL", "IMAGINARY", "PHASE"})
_HU_RESCALE_TYPES = frozenset({"", "HU", "US", "HU_MOD"})

_SMALLEST_SLOPE, _LARGEST_SLOPE = 1e-9, 1e9
_FARTHEST_STEP = 2.0**23

Rule = Callable[[InstanceHeader], str | None]
"""Returns the detail of an objection, an empty one included, or None."""


def screen(
    headers: Sequence[InstanceHeader], policy: AssemblyPolicy
) -> tuple[tuple[int, ...], tuple[LeftOut, ...]]:
    """Return the indices of the images an enhancement may be made from, and what is left out beside them.

    A localizer, a map or a capture among source images is left out, if the policy allows; alone they are the
    series. Raises `SkipSeriesError` with the first reason not to enhance.
    """
    for reason, rule in _whole_rules(policy):
        _refuse_any(headers, reason, rule)
    if _mixed_layout(headers):
        raise SkipSeriesError(Reason.UNSUPPORTED_PIXELS, "The pixel format changes within the series.")
    odd = {index: found for index, header in enumerate(headers) if (found := _oddity(header, policy))}
    if len(odd) == len(headers) or (odd and policy.odd_slices == "refuse"):
        reason, detail = min(odd.values(), key=lambda found: _ODD_ORDER[found[0]])
        count = sum(1 for other, _ in odd.values() if other is reason)
        raise SkipSeriesError(reason, f"{detail} {count} of {len(headers)} instances.".strip())
    chosen = tuple(index for index in range(len(headers)) if index not in odd)
    for reason, rule in _SOURCE_RULES:
        _refuse_any([headers[index] for index in chosen], reason, rule)
    return chosen, tuple(
        LeftOut(headers[index].sop_instance_uid, reason) for index, (reason, _) in odd.items()
    )


def _whole_rules(policy: AssemblyPolicy) -> Iterator[tuple[Reason, Rule]]:
    """Rules of which one objection takes the whole series out."""
    yield Reason.ALREADY_PROCESSED, _already_processed
    if policy.diffusion == "leave_alone":
        yield Reason.UNVALIDATED_CONTRAST, _diffusion
    if not policy.allow_lossy:
        yield Reason.LOSSY_INPUT, _lossy


def _refuse_any(headers: Sequence[InstanceHeader], reason: Reason, rule: Rule) -> None:
    """Raise when any instance objects."""
    objections = [detail for header in headers if (detail := rule(header)) is not None]
    if objections:
        raise SkipSeriesError(
            reason, f"{objections[0]} {len(objections)} of {len(headers)} instances.".strip()
        )


def _oddity(header: InstanceHeader, policy: AssemblyPolicy) -> tuple[Reason, str] | None:
    """The first reason why this one image is no source image."""
    for reason, rule in _ODD_RULES:
        detail = rule(header)
        if detail is not None:
            return reason, detail
    detail = _other_contrast(header, monoenergetic=policy.monoenergetic == "if_measurable")
    return None if detail is None else (Reason.UNVALIDATED_CONTRAST, detail)


def _mixed_layout(headers: Sequence[InstanceHeader]) -> bool:
    """Whether sign, photometric interpretation or SOP class differ (matrix size is geometry's matter)."""
    classes = [h for h in headers if h.sop_class_uid in (CT_IMAGE, MR_IMAGE) and h.pixels.samples == 1]
    return len({(h.pixels.signed, h.pixels.photometric, h.sop_class_uid) for h in classes}) > 1


def _already_processed(h: InstanceHeader) -> str | None:
    return "" if h.derived_by_node else None


def _secondary_capture(h: InstanceHeader) -> str | None:
    captured = h.sop_class_uid == _SECONDARY_CAPTURE_ROOT or h.sop_class_uid.startswith(
        _SECONDARY_CAPTURE_ROOT + "."
    )
    return "" if captured or h.pixels.samples > 1 else None


def _multi_frame(h: InstanceHeader) -> str | None:
    return h.undivided if h.sop_class_uid in _MULTI_FRAME_CLASSES or h.number_of_frames > 1 else None


def _other_class(h: InstanceHeader) -> str | None:
    return None if h.sop_class_uid in (CT_IMAGE, MR_IMAGE) else f"SOP class {h.sop_class_uid}."


def _localizer(h: InstanceHeader) -> str | None:
    return "" if {"LOCALIZER", "SCOUT"} & set(h.image_type[2:]) else None


def _mosaic(h: InstanceHeader) -> str | None:
    return "" if "MOSAIC" in h.image_type else None


def _pixels(h: InstanceHeader) -> str | None:
    p = h.pixels
    if not p.is_supported:
        return f"{p.bits_allocated} bits allocated, {p.bits_stored} stored, {p.samples} samples."
    return None if can_decode(h.transfer_syntax_uid) else f"No decoder for {h.transfer_syntax_uid}."


def _burned_in(h: InstanceHeader) -> str | None:
    return "" if h.burned_in else None


def _computed(h: InstanceHeader) -> str | None:
    """Maps, projections, reformats and whatever a workstation says it derived."""
    terms = {term.upper() for term in h.image_type[2:]}
    if terms & (_COMPUTED_TERMS | _COMPUTED_PHRASES):
        return ""
    if h.image_type[:2] == ("DERIVED", "SECONDARY"):
        return ""
    return None if h.volumetric_properties in ("", "VOLUME") else ""


def _other_contrast(h: InstanceHeader, *, monoenergetic: bool) -> str | None:
    """Images whose values are no HU or no magnitude, or whose contrast was never looked at."""
    terms = [term.upper() for term in h.image_type[2:]]
    if h.sop_class_uid == CT_IMAGE and h.rescale_type.upper() not in _HU_RESCALE_TYPES:
        return "CT values other than HU."
    if any(term.startswith(_MATERIAL_TERMS) for term in terms):
        return "Multi-energy CT that shows materials."
    if not monoenergetic and (h.multi_energy or any(t.startswith(_MONOENERGETIC_TERMS) for t in terms)):
        return "Multi-energy CT."
    if h.sop_class_uid != MR_IMAGE:
        return None
    if set(terms) & _NON_MAGNITUDE_TERMS:
        return "MR phase, real or imaginary part."
    return None if h.complex_component in ("", "MAGNITUDE") else "MR phase, real or imaginary part."


def _diffusion(h: InstanceHeader) -> str | None:
    return "Diffusion weighting." if h.b_value is not None and h.b_value > 0 else None


def _bad_rescale(h: InstanceHeader) -> str | None:
    """CT states slope and intercept (Type 1); elsewhere they may be absent together."""
    slope, intercept = h.rescale
    if slope is None and intercept is None and h.sop_class_uid != CT_IMAGE:
        return None
    if slope is None or intercept is None or not isfinite(slope) or not isfinite(intercept):
        return "Missing or no number."
    if slope == 0:
        return "Slope zero."
    # Single precision has to tell neighbouring stored values apart, and hold their squares.
    fits = _SMALLEST_SLOPE <= abs(slope) <= _LARGEST_SLOPE and abs(intercept) <= _FARTHEST_STEP * abs(slope)
    return None if fits else "Beyond what single precision holds."


def _lossy(h: InstanceHeader) -> str | None:
    return "" if h.lossy_flag or h.transfer_syntax_uid in LOSSY_SYNTAXES else None


_ODD_RULES: tuple[tuple[Reason, Rule], ...] = (
    (Reason.SECONDARY_CAPTURE, _secondary_capture),
    (Reason.MULTI_FRAME, _multi_frame),
    (Reason.UNSUPPORTED_SOP_CLASS, _other_class),
    (Reason.LOCALIZER, _localizer),
    (Reason.MOSAIC, _mosaic),
    (Reason.BURNED_IN, _burned_in),
    (Reason.NOT_SOURCE_IMAGE, _computed),
)
"""What one image may be without taking the others out, from what it is to what it shows."""
_ODD_ORDER = {reason: rank for rank, (reason, _) in enumerate(_ODD_RULES)} | {
    Reason.UNVALIDATED_CONTRAST: len(_ODD_RULES)
}
_SOURCE_RULES: tuple[tuple[Reason, Rule], ...] = (
    (Reason.UNSUPPORTED_PIXELS, _pixels),
    (Reason.BAD_RESCALE, _bad_rescale),
)
"""What every source image has to fulfil: one that does not would leave a hole."""
