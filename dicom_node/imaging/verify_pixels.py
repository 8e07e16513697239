"""Assertions 12, 13, 15 and 16: the pixels are there, in range, unbiased, and padding is still padding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from dicom_node.imaging.elements import text
from dicom_node.imaging.pixels import Cells, Padding, PixelFormat
from dicom_node.imaging.source_rules import CT_IMAGE
from dicom_node.imaging.verify_model import PixelFacts, SeriesPair

_SIGNAL_SHARE = 0.15
_BRIGHT_PERCENTILE = 99.5
_SAMPLED = 1024
"""Pixels of a slice that tell how bright its volume is."""
_UNCHANGED_BY_DESIGN = re.compile(r"(?:: identity\S* |strength=0(?:\.0*)?(?:\s|$))")


def compare_pixels(
    source: Cells,
    derived: Cells,
    layout: PixelFormat,
    *,
    padding: Padding | None,
    rescale: tuple[float, float],
    change_share: float,
    keeps_overlays: bool = False,
) -> PixelFacts:
    """Return the facts about one pair of equal shape; real values by the source slice's own rescale.

    With `keeps_overlays` the bits outside the stored values are the source's, otherwise there are none.
    """
    none = np.zeros(source.shape, np.bool_)
    before = none if padding is None else padding.mask(source, layout)
    after = none if padding is None else padding.mask(derived, layout)
    moved = (before != after) | (before & (source != derived))
    measured = ~before
    slope = abs(rescale[0])
    real = layout.to_stored(source)[measured].astype(np.float64) * rescale[0] + rescale[1]
    change = layout.to_stored(derived)[measured].astype(np.float64) * rescale[0] + rescale[1] - real
    after_change = real + change
    signal = after_change > _SIGNAL_SHARE * (np.percentile(after_change, 99.9) if real.size else 0.0)
    expected = layout.foreign_bits(source) if keeps_overlays else np.zeros_like(source)
    fits = layout.foreign_bits(derived) == expected
    return PixelFacts(
        identical=bool((source == derived).all()),
        outside=int((~fits & measured).sum()),
        padding_moved=int(moved.sum()),
        measured=int(measured.sum()),
        change_sum=float(change.sum()),
        source_sum=float(real.sum()),
        sample=real[:: max(1, real.size // _SAMPLED)].astype(np.float32),
        signal=int(signal.sum()),
        signal_change=float(change[signal].sum()),
        signal_power=float(np.square(change[signal]).sum()),
        signal_inverse=float((1.0 / np.maximum(after_change[signal], 1e-6)).sum()),
        largest_change=float(np.abs(change).max(initial=0.0)),
        change_bound=change_share * slope * (layout.maximum - layout.minimum),
    )


def bias_of(series: SeriesPair) -> float:
    """Return the mean change over all measured pixels, in real units."""
    measured = sum(pair.pixels.measured for pair in series.pairs)
    return sum(pair.pixels.change_sum for pair in series.pairs) / measured if measured else 0.0


def pixels_are_there(series: SeriesPair) -> Iterator[str]:
    """12: all the bytes, as OW (OB where a pixel is a byte), and no copy of the source without a reason."""
    for pair in series.pairs:
        layout = pair.derived.header.pixels
        if pair.pixels.derived_bytes != layout.frame_bytes + layout.frame_bytes % 2:
            yield f"slice {pair.number}: {pair.pixels.derived_bytes} bytes of pixel data"
        if pair.pixels.derived_vr != ("OW" if layout.bits_allocated > 8 else "OB"):
            yield f"slice {pair.number}: pixel data of VR {pair.pixels.derived_vr}"
        if pair.pixels.error:
            yield f"slice {pair.number}: {pair.pixels.error}"
    same = bool(series.pairs) and all(pair.pixels.identical for pair in series.pairs)
    if same and not series.limits.allow_identical and not _unchanged_by_design(series):
        yield "every slice equals its source"


def _unchanged_by_design(series: SeriesPair) -> bool:
    """Whether provenance itself says that the voxels are the source's."""
    said = "\\".join(text(pair.derived.dataset, "DerivationDescription") for pair in series.pairs)
    return _UNCHANGED_BY_DESIGN.search(said) is not None


def pixels_are_in_range(series: SeriesPair) -> Iterator[str]:
    """13: no bit outside BitsStored, and no voxel changed so much that it must have wrapped around."""
    for pair in series.pairs:
        facts = pair.pixels
        if facts.outside:
            yield f"slice {pair.number}: {facts.outside} pixels outside BitsStored"
        if facts.largest_change > facts.change_bound:
            yield f"slice {pair.number}: a pixel changed by {facts.largest_change:.4g}"


def padding_is_kept(series: SeriesPair) -> Iterator[str]:
    """15: the same pixels are padding, bit for bit, and no other."""
    for pair in series.pairs:
        if pair.pixels.padding_moved:
            yield f"slice {pair.number}: {pair.pixels.padding_moved} pixels changed sides"


def mean_is_kept(series: SeriesPair) -> Iterator[str]:
    """16: the mean of no volume moved: in CT of all measured pixels, in MR of tissue.

    The limit is the one that the guards hold an enhancer to, in MR a share of the 99.5th percentile. The
    magnitude of MR lifts a weak signal A under noise sigma by sigma^2 / (2 A) (Gudbjartsson and Patz 1995),
    which may be taken away; the change itself tells the sigma, and where that does not explain it, the source.
    Air, where nothing but that lift is seen, says nothing about a bias.
    """
    for number, volume in enumerate(series.volumes, 1):
        facts = [pair.pixels for pair in volume]
        if series.sources[0].header.sop_class_uid == CT_IMAGE:
            measured = max(sum(f.measured for f in facts), 1)
            bias, limit, lifted = sum(f.change_sum for f in facts) / measured, series.limits.bias_hu, 0.0
        else:
            bias, limit, lifted = _tissue_bias(facts, series.limits.bias_share)
            if -bias - lifted > limit:
                lifted = max(lifted, _lift(facts, series.noise_of(volume) ** 2))
        if max(bias, -bias - lifted) > limit:
            yield f"volume {number}: the mean moved by {bias:.4g}, more than {limit:.4g}"


def _tissue_bias(facts: Sequence[PixelFacts], share: float) -> tuple[float, float, float]:
    """Mean change in tissue, its limit, and what the magnitude of MR had added there."""
    count = max(sum(f.signal for f in facts), 1)
    bias = sum(f.signal_change for f in facts) / count
    seen = np.concatenate([np.zeros(0, np.float32), *(f.sample for f in facts)])
    limit = share * abs(float(np.percentile(seen, _BRIGHT_PERCENTILE))) if seen.size else 0.0
    power = sum(f.signal_power for f in facts) / count - bias**2
    return bias, limit, _lift(facts, power)


def _lift(facts: Sequence[PixelFacts], power: float) -> float:
    """What noise of that variance adds to the mean of the signal in MR."""
    return 0.5 * power * sum(f.signal_inverse for f in facts) / max(sum(f.signal for f in facts), 1)
