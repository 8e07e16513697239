"""The gate: a derived series is held against its source, assertion by assertion, before it is sent.

The files are read back from disk and judged by rules of their own; with the writer they share only the
parser of bytes and the vocabulary. The numbers are fixed: operators and the job log know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from pydicom.dataset import FileDataset

from dicom_node.errors import HoldSeriesError, SkipSeriesError
from dicom_node.imaging import (
    verify_attributes,
    verify_derivation,
    verify_identity,
    verify_pixels,
    verify_tools,
)
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.decoders import Decoders, Frame, read_cells
from dicom_node.imaging.elements import items, text
from dicom_node.imaging.eligibility import check_series
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.pixels import Cells, UndecodablePixelsError, padding_of
from dicom_node.imaging.provenance import DerivationPolicy
from dicom_node.imaging.series_reader import has_embedded_overlay
from dicom_node.imaging.verify_model import (
    Check,
    CheckFunction,
    Pair,
    PixelFacts,
    SeriesPair,
    Slice,
    VerificationLimits,
    VerificationReport,
    sum_up,
)
from dicom_node.imaging.verify_noise import noise_of
from dicom_node.imaging.verify_sides import by_volume, files_of, other_series, read_slice

__all__ = ["Check", "VerificationLimits", "VerificationReport", "verify_series"]

ASSERTIONS: tuple[tuple[int, str, CheckFunction], ...] = (
    (1, "one derived slice per source slice", verify_identity.pairing_is_a_bijection),
    (2, "SOP Instance UIDs are new", verify_identity.instances_are_new),
    (3, "one new series", verify_identity.series_is_new),
    (4, "the study is kept", verify_identity.study_is_kept),
    (5, "the patient is kept", verify_identity.patient_is_kept),
    (6, "SOP class and file meta agree", verify_identity.class_is_kept),
    (7, "series number and description", verify_identity.series_is_named),
    (8, "ImageType", verify_attributes.image_type_says_derived),
    (9, "frame of reference is kept", verify_attributes.frame_of_reference_is_kept),
    (10, "position, orientation and spacing are kept", verify_attributes.plane_is_kept),
    (11, "matrix and bits are kept", verify_attributes.pixel_layout_is_kept),
    (12, "pixel data are complete and changed", verify_pixels.pixels_are_there),
    (13, "pixel values are in range", verify_pixels.pixels_are_in_range),
    (14, "rescale is kept", verify_attributes.rescale_is_kept),
    (15, "padding is kept", verify_pixels.padding_is_kept),
    (16, "the mean is kept", verify_pixels.mean_is_kept),
    (17, "presentation is kept", verify_attributes.presentation_is_kept),
    (18, "lossy compression is admitted", verify_attributes.loss_is_admitted),
    (19, "the derivation is described", verify_derivation.derivation_is_described),
    (20, "the derivation is coded", verify_derivation.derivation_is_coded),
    (21, "the source image is named", verify_derivation.source_image_is_named),
    (22, "references are listed by series", verify_derivation.references_are_listed),
    (23, "contributing equipment", verify_derivation.contributors_are_listed),
    (24, "general equipment", verify_attributes.equipment_is_ours),
    (25, "content qualification", verify_attributes.qualification_is_honest),
    (26, "nothing private or foreign is left", verify_attributes.nothing_foreign_is_left),
    (27, "instance numbers and order are kept", verify_identity.order_is_kept),
    (28, "the acquisition is kept, times are new", verify_attributes.acquisition_is_kept),
    (29, "validators and geometry see nothing new", verify_tools.volume_verdict_is_kept),
    (30, "Implicit VR says the same", verify_tools.other_encoding_says_the_same),
)


def verify_series(
    source: Path | Sequence[Path],
    derived: Path | Sequence[Path],
    *,
    policy: DerivationPolicy,
    limits: VerificationLimits | None = None,
    emitted: frozenset[str] = frozenset(),
    left_out: frozenset[str] | None = None,
    validators: bool = False,
    decoders: Decoders | None = None,
) -> VerificationReport:
    """Check a derived series against its source and return every assertion with its outcome.

    `source` and `derived` are folders or lists of files. Files of other series beside the source are
    taken as the rest of the study; `emitted` holds SOP Instance UIDs used before, `left_out` those of source
    instances from which nothing was to be derived (None: as assembly judges them). `validators` also runs
    dciodvfy and dcentvfy where they are installed (some 25 ms per slice). Raises `UnreadableInstanceError`
    when a file cannot be parsed.
    """
    limits = limits or VerificationLimits()
    made = [(path, read_slice(path)) for path in files_of(derived)]
    found = [(path, read_slice(path)) for path in files_of(source)]
    targets = {_target(piece.dataset) for _, piece in made}
    homes = {p.header.series_instance_uid for _, p in found if p.header.sop_instance_uid in targets} or {
        p.header.series_instance_uid for _, p in found
    }
    own = [(path, p) for path, p in found if p.header.series_instance_uid in homes]
    spared = _left_out([p.header for _, p in own]) if left_out is None else left_out
    own = [(path, p) for path, p in own if p.header.sop_instance_uid not in spared]
    with ExitStack() as stack:
        pool = decoders if decoders is not None else stack.enter_context(Decoders())
        pairs, unpaired, paths = _pair(own, made, limits, pool, keeps_overlays=policy.overlays == "keep")
        series = SeriesPair(
            sources=tuple(piece for _, piece in own),
            derived=tuple(piece for _, piece in made),
            pairs=pairs,
            volumes=by_volume(pairs),
            unpaired=unpaired,
            others=other_series(found, homes),
            emitted=emitted,
            policy=policy,
            limits=limits,
            verified_at=datetime.now().astimezone(),
            noise_of=lambda volume: noise_of(volume, lambda pair: _cells(pair.source, pool)),
        )
        checks = []
        for number, title, function in ASSERTIONS:
            asked = validators and number == verify_tools.VALIDATOR_ASSERTION
            tools = verify_tools.validators_see_nothing_new(paths) if asked else ()
            checks.append(sum_up(number, title, chain(function(series), tools)))
        return VerificationReport(tuple(checks), verify_pixels.bias_of(series))


def _left_out(headers: Sequence[InstanceHeader]) -> frozenset[str]:
    """Instances that assembly leaves out of a series; none where it would not take the series at all."""
    try:
        plan = check_series(headers, AssemblyPolicy(released=True))
    except (SkipSeriesError, HoldSeriesError):
        return frozenset()
    return frozenset(entry.sop_instance_uid for entry in plan.left_out)


def _target(ds: FileDataset) -> str:
    """The SOP instance a derived slice names as its source."""
    found = items(ds, "SourceImageSequence")
    return text(found[0], "ReferencedSOPInstanceUID") if found else ""


def _pair(
    sources: Sequence[tuple[Path, Slice]],
    derived: Sequence[tuple[Path, Slice]],
    limits: VerificationLimits,
    decoders: Decoders,
    *,
    keeps_overlays: bool,
) -> tuple[tuple[Pair, ...], tuple[int, ...], list[tuple[Path, Path]]]:
    """Match derived slices to their sources; what cannot be matched, or not uniquely, is left over."""
    free = {piece.header.sop_instance_uid: (path, piece) for path, piece in sources}
    pairs, unpaired, paths = [], [], []
    for number, (path, piece) in enumerate(derived, 1):
        match = free.pop(_target(piece.dataset), None)
        if match is None:
            unpaired.append(number)
            continue
        facts = _pixel_facts(match[1], piece, limits, decoders, keeps_overlays=keeps_overlays)
        pairs.append(Pair(number, match[1], piece, facts))
        paths.append((match[0], path))
    return tuple(pairs), tuple(unpaired), paths


def _pixel_facts(
    source: Slice,
    derived: Slice,
    limits: VerificationLimits,
    decoders: Decoders,
    *,
    keeps_overlays: bool,
) -> PixelFacts:
    """Decode both slices and compare them; one pair in memory at a time."""
    header = source.header
    length, vr = (derived.place.length, derived.place.vr) if derived.place is not None else (0, "")
    try:
        before, after = _cells(source, decoders), _cells(derived, decoders)
    except UndecodablePixelsError as exc:
        return PixelFacts(error=exc.detail, derived_bytes=length, derived_vr=vr)
    if derived.header.pixels != header.pixels:
        error = "the pixels have another layout than the source's"
        return PixelFacts(error=error, derived_bytes=length, derived_vr=vr)
    slope, intercept = header.rescale
    facts = verify_pixels.compare_pixels(
        before,
        after,
        header.pixels,
        padding=padding_of(source.dataset, header.pixels),
        rescale=(1.0 if slope is None else slope, 0.0 if intercept is None else intercept),
        change_share=limits.change_share,
        keeps_overlays=keeps_overlays and has_embedded_overlay(source.dataset),
    )
    return replace(facts, derived_bytes=length, derived_vr=vr)


def _cells(piece: Slice, decoders: Decoders) -> Cells:
    """The cells of one slice."""
    layout = piece.header.pixels
    if not layout.is_supported or piece.place is None:
        raise UndecodablePixelsError("the pixel format is not supported, or there are no pixels")
    return read_cells(Frame(piece.place, piece.header.transfer_syntax_uid, layout), decoders)
