"""The gate for Enhanced multi-frame objects: the same thirty assertions, asked of objects and of frames.

What an object says once (patient, study, equipment) is judged object by object; what functional groups say
is judged frame by frame, each laid out as a classic image. Numbers and titles are those of `verify`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset, FileDataset

from dicom_node.imaging import (
    verify_attributes,
    verify_derivation,
    verify_identity,
    verify_pixels,
    verify_tools,
)
from dicom_node.imaging import verify_functional_groups as groups
from dicom_node.imaging.decoders import Decoders, Frame, read_cells
from dicom_node.imaging.elements import tag_of, text
from dicom_node.imaging.enhanced_derivation import SERIAL_NUMBER
from dicom_node.imaging.enhanced_reader import object_frames
from dicom_node.imaging.headers import InstanceHeader, header_of
from dicom_node.imaging.multiframe import PER_FRAME, SHARED, dimensions_of, frame_header, frames_of
from dicom_node.imaging.parsing import PixelPlace, read_instance, transfer_syntax
from dicom_node.imaging.pixels import Cells, PixelFormat, UndecodablePixelsError, padding_of
from dicom_node.imaging.provenance import DerivationPolicy
from dicom_node.imaging.verify_model import (
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

_OWN_EVIDENCE: Final = (PER_FRAME, SHARED, "SourceImageEvidenceSequence", "DeviceSerialNumber")

_Instance = tuple[FileDataset, PixelPlace | None]

Sides = tuple[SeriesPair, SeriesPair]
"""The same pair of series as objects and as frames."""


def verify_enhanced_series(
    source: Path | Sequence[Path],
    derived: Path | Sequence[Path],
    *,
    policy: DerivationPolicy,
    limits: VerificationLimits | None = None,
    emitted: frozenset[str] = frozenset(),
    validators: bool = False,
    decoders: Decoders | None = None,
) -> VerificationReport:
    """Check derived Enhanced objects against theirs and return every assertion with its outcome.

    Arguments and errors are those of `verify_series`; `SkipSeriesError` MULTI_FRAME where the frames of an
    object cannot be told.
    """
    limits = limits or VerificationLimits()
    objects, paths = _pair_objects(files_of(source), files_of(derived), policy, limits, emitted)
    with ExitStack() as stack:
        pool = decoders if decoders is not None else stack.enter_context(Decoders())
        frames = _pair_frames(objects, paths, pool)
        sides: Sides = (objects, frames)
        checks = []
        for number, title, asked in ENHANCED_ASSERTIONS:
            tools = validators and number == verify_tools.VALIDATOR_ASSERTION
            found = chain.from_iterable(function(sides[level]) for level, function in asked)
            more = verify_tools.validators_see_nothing_new(paths) if tools else ()
            checks.append(sum_up(number, title, chain(found, more)))
        return VerificationReport(tuple(checks), verify_pixels.bias_of(frames))


def _pair_objects(
    sources: Sequence[Path],
    derived: Sequence[Path],
    policy: DerivationPolicy,
    limits: VerificationLimits,
    emitted: frozenset[str],
) -> tuple[SeriesPair, list[tuple[Path, Path]]]:
    """Match derived objects to the source objects that their frames name."""
    found = [(path, read_slice(path)) for path in sources]
    made = [(path, read_slice(path)) for path in derived]
    targets = {groups.source_uid(piece.dataset) for _, piece in made}
    homes = {p.header.series_instance_uid for _, p in found if p.header.sop_instance_uid in targets}
    own = [(path, p) for path, p in found if not homes or p.header.series_instance_uid in homes]
    free = {piece.header.sop_instance_uid: (path, piece) for path, piece in own}
    pairs, unpaired, paths = [], [], []
    for number, (path, piece) in enumerate(made, 1):
        match = free.pop(groups.source_uid(piece.dataset), None)
        if match is None:
            unpaired.append(number)
            continue
        pairs.append(Pair(number, match[1], piece, PixelFacts()))
        paths.append((match[0], path))
    series = SeriesPair(
        sources=tuple(piece for _, piece in own),
        derived=tuple(piece for _, piece in made),
        pairs=tuple(pairs),
        volumes=tuple((pair,) for pair in pairs),
        unpaired=tuple(unpaired),
        others=other_series(found, {p.header.series_instance_uid for _, p in own}),
        emitted=emitted,
        policy=policy,
        limits=limits,
        verified_at=datetime.now().astimezone(),
    )
    return series, paths


def _pair_frames(objects: SeriesPair, paths: Sequence[tuple[Path, Path]], decoders: Decoders) -> SeriesPair:
    """The same series frame by frame, with the facts about the pixels; one object in memory at a time."""
    pairs: list[Pair] = []
    sources: list[Slice] = []
    made: list[Slice] = []
    read: list[Frame] = []
    for before, after in paths:
        ones, others, facts, frames = _both_sides(before, after, objects.limits, decoders)
        read += frames
        for one, other, fact in zip(ones, others, facts, strict=False):
            pairs.append(Pair(len(pairs) + 1, one, other, fact))
        sources += ones
        made += others
    return replace(
        objects,
        sources=tuple(sources),
        derived=tuple(made),
        pairs=tuple(pairs),
        volumes=by_volume(pairs),
        unpaired=(),
        noise_of=lambda volume: noise_of(volume, lambda pair: read_cells(read[pair.number - 1], decoders)),
    )


def _both_sides(
    source: Path, derived: Path, limits: VerificationLimits, decoders: Decoders
) -> tuple[list[Slice], list[Slice], list[PixelFacts], list[Frame]]:
    """The frames of both objects, how the pixels of each pair compare, and where those of the source lie."""
    before, after = read_instance(source), read_instance(derived)
    facts, frames = _pixel_facts(before, after, limits, decoders)
    return _frames(before[0]), _frames(after[0]), facts, frames


def _frames(ds: FileDataset) -> list[Slice]:
    """Every frame as a slice of its own."""
    dimensions = dimensions_of(ds)
    meta = header_of(ds)
    return [
        Slice(frame_header(flat, dimensions), flat, None, meta.sop_class_uid, meta.sop_instance_uid)
        for flat in frames_of(ds)
    ]


def _pixel_facts(
    before: _Instance, after: _Instance, limits: VerificationLimits, decoders: Decoders
) -> tuple[list[PixelFacts], list[Frame]]:
    """Decode both objects frame by frame and compare them, one pair in memory at a time; and the source's frames."""
    flats, dimensions = frames_of(before[0]), dimensions_of(before[0])
    headers = [frame_header(flat, dimensions) for flat in flats]
    layout, count = headers[0].pixels, len(flats)
    place = after[1]
    share = 0 if place is None else place.length // count
    bare = PixelFacts(derived_bytes=share, derived_vr="" if place is None else place.vr)
    try:
        sources = _object_frames(before, layout, count)
        enhanced = _object_frames(after, layout, count)
        facts = [
            replace(
                _compared(flat, header, read_cells(one, decoders), read_cells(other, decoders), limits),
                derived_bytes=bare.derived_bytes,
                derived_vr=bare.derived_vr,
            )
            for flat, header, one, other in zip(flats, headers, sources, enhanced, strict=True)
        ]
        return facts, sources
    except UndecodablePixelsError as exc:
        return [replace(bare, error=exc.detail)] * count, []


def _object_frames(instance: _Instance, layout: PixelFormat, count: int) -> list[Frame]:
    """The frames of one object."""
    ds, place = instance
    if place is None:
        raise UndecodablePixelsError("no pixel data")
    return object_frames(place, transfer_syntax(ds), layout, count=count)


def _compared(
    flat: Dataset, header: InstanceHeader, one: Cells, other: Cells, limits: VerificationLimits
) -> PixelFacts:
    """How one pair of frames compares."""
    slope, intercept = header.rescale
    return verify_pixels.compare_pixels(
        one,
        other,
        header.pixels,
        padding=padding_of(flat, header.pixels),
        rescale=(1.0 if slope is None else slope, 0.0 if intercept is None else intercept),
        change_share=limits.change_share,
    )


def _equipment(objects: SeriesPair) -> Iterator[str]:
    """24: as in classic images, but for the serial number, which Enhanced objects have to state."""
    yield from (line for line in verify_attributes.equipment_is_ours(objects) if "DeviceSerial" not in line)
    if objects.policy.equipment_policy == "inherit":
        return
    for number, piece in enumerate(objects.derived, 1):
        if text(piece.dataset, "DeviceSerialNumber") != SERIAL_NUMBER:
            yield f"object {number}: DeviceSerialNumber is the scanner's"


def _kept(objects: SeriesPair) -> Iterator[str]:
    """28: attributes of the object, but those that functional groups and evidence answer for."""
    judged = frozenset(tag_of(keyword) for keyword in _OWN_EVIDENCE)
    return verify_attributes.acquisition_is_kept(objects, judged_elsewhere=judged)


_OBJECTS, _FRAMES = 0, 1

ENHANCED_ASSERTIONS: Final = (
    (
        1,
        "one derived slice per source slice",
        (
            (_OBJECTS, verify_identity.pairing_is_a_bijection),
            (_FRAMES, verify_identity.pairing_is_a_bijection),
        ),
    ),
    (2, "SOP Instance UIDs are new", ((_OBJECTS, verify_identity.instances_are_new),)),
    (3, "one new series", ((_OBJECTS, verify_identity.series_is_new),)),
    (4, "the study is kept", ((_OBJECTS, verify_identity.study_is_kept),)),
    (5, "the patient is kept", ((_OBJECTS, verify_identity.patient_is_kept),)),
    (6, "SOP class and file meta agree", ((_OBJECTS, verify_identity.class_is_kept),)),
    (7, "series number and description", ((_OBJECTS, verify_identity.series_is_named),)),
    (8, "ImageType", ((_OBJECTS, groups.types_say_derived),)),
    (9, "frame of reference is kept", ((_FRAMES, verify_attributes.frame_of_reference_is_kept),)),
    (10, "position, orientation and spacing are kept", ((_FRAMES, verify_attributes.plane_is_kept),)),
    (11, "matrix and bits are kept", ((_FRAMES, verify_attributes.pixel_layout_is_kept),)),
    (12, "pixel data are complete and changed", ((_FRAMES, verify_pixels.pixels_are_there),)),
    (13, "pixel values are in range", ((_FRAMES, verify_pixels.pixels_are_in_range),)),
    (14, "rescale is kept", ((_FRAMES, groups.rescale_is_kept),)),
    (15, "padding is kept", ((_FRAMES, verify_pixels.padding_is_kept),)),
    (16, "the mean is kept", ((_FRAMES, verify_pixels.mean_is_kept),)),
    (17, "presentation is kept", ((_FRAMES, verify_attributes.presentation_is_kept),)),
    (18, "lossy compression is admitted", ((_OBJECTS, verify_attributes.loss_is_admitted),)),
    (19, "the derivation is described", ((_OBJECTS, groups.derivation_is_described),)),
    (20, "the derivation is coded", ((_OBJECTS, groups.derivation_is_coded),)),
    (21, "the source image is named", ((_OBJECTS, groups.source_frames_are_named),)),
    (22, "references are listed by series", ((_OBJECTS, groups.evidence_is_listed),)),
    (23, "contributing equipment", ((_OBJECTS, verify_derivation.contributors_are_listed),)),
    (24, "general equipment", ((_OBJECTS, _equipment),)),
    (25, "content qualification", ((_OBJECTS, verify_attributes.qualification_is_honest),)),
    (26, "nothing private or foreign is left", ((_OBJECTS, verify_attributes.nothing_foreign_is_left),)),
    (27, "instance numbers and order are kept", ((_FRAMES, verify_identity.order_is_kept),)),
    (
        28,
        "the acquisition is kept, times are new",
        (
            (_OBJECTS, _kept),
            (_OBJECTS, groups.groups_are_kept),
        ),
    ),
    (29, "validators and geometry see nothing new", ((_FRAMES, verify_tools.volume_verdict_is_kept),)),
    (30, "Implicit VR says the same", ((_OBJECTS, verify_tools.other_encoding_says_the_same),)),
)
"""Number, title, and what is asked: of the objects or of their frames."""
