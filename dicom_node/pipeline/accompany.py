"""What a route wants beside the derived series: written after it was verified, delivered together with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dicom_node.imaging.companions import Companions, CompanionWork, VolumeFigures, write_companions
from dicom_node.imaging.derived_writer import DerivedInstance
from dicom_node.imaging.neighbours import series_numbers_of
from dicom_node.imaging.provenance import DerivationPolicy, Provenance
from dicom_node.imaging.series_reader import SourceSeries
from dicom_node.imaging.uids import UidPlan
from engine.enhancer import EnhancementResult
from engine.volume import Volume


def accompany(
    asked: Mapping[str, bool],
    source: SourceSeries,
    results: Sequence[EnhancementResult],
    derived: tuple[DerivedInstance, ...],
    *,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
    directory: Path,
    neighbours: Sequence[Path],
) -> Companions:
    """Write the companions that were asked for; none where nothing was. Raises what `write_companions` does."""
    if not any(asked.values()):
        return Companions((), {})
    parts = list(zip(source.volumes, results, strict=True))
    work = CompanionWork(
        source=source,
        derived=derived,
        uncertainty=tuple(_uncertainty(part.volume, result) for part, result in parts),
        figures=tuple(
            VolumeFigures(part.label, result.report.noise_before, result.report.noise_after)
            for part, result in parts
        ),
        provenance=provenance,
        policy=policy,
        uids=uids,
        directory=directory,
        taken_series_numbers=series_numbers_of(neighbours),
    )
    return write_companions(
        work,
        uncertainty_map=asked.get("uncertainty_map", False),
        quality_report=asked.get("quality_report", False),
    )


def _uncertainty(volume: Volume, result: EnhancementResult) -> Volume | None:
    """The uncertainty of a volume on its own grid."""
    return None if result.uncertainty is None else volume.with_array(result.uncertainty)
