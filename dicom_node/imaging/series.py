"""One series of either kind: classic images, one file a slice, or Enhanced objects of many frames.

The rest of the node asks here and need not know which it has. A series of both kinds is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.assembly import AssemblyPolicy, SeriesPlan
from dicom_node.imaging.decoders import Decoders
from dicom_node.imaging.derived_writer import DerivedInstance, derive_series
from dicom_node.imaging.eligibility import check_series
from dicom_node.imaging.enhanced_reader import read_enhanced_series
from dicom_node.imaging.enhanced_writer import derive_enhanced_series
from dicom_node.imaging.headers import InstanceHeader, header_of
from dicom_node.imaging.multiframe import headers_of, is_enhanced
from dicom_node.imaging.parsing import read_dataset
from dicom_node.imaging.provenance import DerivationPolicy, Provenance
from dicom_node.imaging.series_reader import SourceSeries, read_series
from dicom_node.imaging.uids import UidPlan
from dicom_node.imaging.verify import verify_series
from dicom_node.imaging.verify_enhanced import verify_enhanced_series
from dicom_node.imaging.verify_model import VerificationLimits, VerificationReport
from dicom_node.imaging.verify_sides import files_of
from engine.volume import Volume


def read_headers_of(paths: Sequence[Path]) -> tuple[InstanceHeader, ...]:
    """Return a header for each classic instance and each frame of an Enhanced object, in the order of the paths.

    A multi-frame object beside single-frame ones is not taken apart. Raises `UnreadableInstanceError`.
    """
    kinds, found = set(), []
    for path in paths:
        ds = read_dataset(path, pixels=False)
        kinds.add(is_enhanced(ds))
        found.append(headers_of(ds))
    if len(kinds) > 1:
        return tuple(_beside_others(header_of(read_dataset(path, pixels=False))) for path in paths)
    return tuple(header for headers in found for header in headers)


def _beside_others(header: InstanceHeader) -> InstanceHeader:
    """The header of an instance in a series of both kinds."""
    return replace(header, undivided="Single-frame objects lie beside it.")


def judge_series(headers: Sequence[InstanceHeader], policy: AssemblyPolicy) -> SeriesPlan:
    """Return the volumes of a series that may be enhanced, with the evidence; raises as `check_series`.

    Every frame of a multi-frame object belongs to a volume, or the object is not taken: the derived object
    has the frames of its source, and one that was not enhanced must not say that it was.
    """
    if any(header.frame is not None for header in headers):
        policy = replace(policy, odd_slices="refuse")
    return check_series(headers, policy)


def read_source(
    paths: Sequence[Path], policy: AssemblyPolicy | None = None, *, decoders: Decoders | None = None
) -> SourceSeries:
    """Read the instances of one series and assemble their volumes; raises what `read_series` raises."""
    read = read_enhanced_series if _are_enhanced(paths) else read_series
    return read(paths, policy, decoders=decoders)


def derive_source(
    source: SourceSeries,
    enhanced: Sequence[Volume],
    *,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
    directory: Path,
    neighbours: Sequence[Path] = (),
    parameters: Sequence[Mapping[str, str | int | float | bool]] = (),
) -> tuple[DerivedInstance, ...]:
    """Write the derived series into `directory`, synced; raises what `derive_series` raises."""
    write = derive_series if source.slices[0].frame is None else derive_enhanced_series
    return write(
        source,
        enhanced,
        provenance=provenance,
        policy=policy,
        uids=uids,
        directory=directory,
        neighbours=neighbours,
        parameters=parameters,
    )


def verify_source(
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
    """Check a derived series against its source and return every assertion; arguments as `verify_series` takes."""
    if _are_enhanced(files_of(derived)):
        return verify_enhanced_series(
            source,
            derived,
            policy=policy,
            limits=limits,
            emitted=emitted,
            validators=validators,
            decoders=decoders,
        )
    return verify_series(
        source,
        derived,
        policy=policy,
        limits=limits,
        emitted=emitted,
        left_out=left_out,
        validators=validators,
        decoders=decoders,
    )


def _are_enhanced(paths: Sequence[Path]) -> bool:
    """Whether these are Enhanced objects, all that can be parsed: beside classic images they are left out."""
    found = False
    for path in paths:
        try:
            if not is_enhanced(read_dataset(path, pixels=False)):
                return False
            found = True
        except UnreadableInstanceError:
            continue
    return found
