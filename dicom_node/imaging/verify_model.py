"""What verification looks at: source and derived slices in pairs, with the facts about their pixels.

Details of a failed check name attributes, slice numbers and counts. Never a value: it may be a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from dicom_node.imaging.elements import canonical
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.parsing import PixelPlace
from dicom_node.imaging.provenance import DerivationPolicy

_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One numbered assertion and how it came out; `detail` is empty when it passed."""

    number: int
    title: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class VerificationReport:
    """All assertions on a derived series, in order.

    bias  mean of (derived - source) over the measured pixels, in HU or scanner units
    """

    checks: tuple[Check, ...]
    bias: float

    @property
    def passed(self) -> bool:
        """Whether every assertion holds."""
        return all(check.passed for check in self.checks)

    @property
    def failed_numbers(self) -> tuple[int, ...]:
        """The numbers of the assertions that do not hold."""
        return tuple(check.number for check in self.checks if not check.passed)

    def as_json(self) -> dict[str, Any]:
        """Plain values for the job log."""
        return {
            "passed": self.passed,
            "bias": self.bias,
            "failed": [{"number": c.number, "detail": c.detail} for c in self.checks if not c.passed],
        }


@dataclass(frozen=True)
class VerificationLimits:
    """How much the voxels may have changed.

    bias_hu         largest mean change of a CT series, HU
    bias_share      largest mean change of tissue in MR, as a share of the 99.5th percentile of the volume
    change_share    largest change of one voxel, as a share of the stored range: more is a wrap-around
    allow_identical whether a derived series may equal its source (strength 0 and the identity enhancer
                    always may)
    """

    bias_hu: float = 1.0
    bias_share: float = 0.005
    change_share: float = 0.5
    allow_identical: bool = False


@dataclass(frozen=True)
class PixelFacts:
    """What the pixels of one pair say; counts are pixels.

    error           why the pixels could not be compared, empty when they could
    derived_bytes, derived_vr   length and VR of the derived pixel data as stored
    outside         derived pixels with bits set that BitsStored does not hold
    padding_moved   pixels that are padding on one side only, or padding of another value
    change_sum, source_sum   sums over the measured pixels, real units
    sample          real values of the source at measured pixels, evenly spread
    signal          pixels of tissue: the derived value exceeds 15 % of the slice's highest
    signal_change, signal_power, signal_inverse   their sums of the change, of its square, and of one over the
                    derived value
    largest_change  of one measured pixel, real units
    change_bound    what `largest_change` must stay under for this slice's slope and bits
    """

    error: str = ""
    derived_bytes: int = 0
    derived_vr: str = ""
    identical: bool = False
    outside: int = 0
    padding_moved: int = 0
    measured: int = 0
    change_sum: float = 0.0
    source_sum: float = 0.0
    sample: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(0, np.float32), compare=False, repr=False
    )
    signal: int = 0
    signal_change: float = 0.0
    signal_power: float = 0.0
    signal_inverse: float = 0.0
    largest_change: float = 0.0
    change_bound: float = 0.0


@dataclass(frozen=True, eq=False)
class Slice:
    """One parsed instance without its pixel data."""

    header: InstanceHeader
    dataset: FileDataset = field(repr=False)
    place: PixelPlace | None
    meta_class_uid: str
    meta_instance_uid: str


@dataclass(frozen=True, eq=False)
class Pair:
    """A derived slice and the source slice it says it comes from; `number` counts the derived from 1."""

    number: int
    source: Slice
    derived: Slice
    pixels: PixelFacts


@dataclass(frozen=True, eq=False)
class SeriesPair:
    """A derived series beside its source.

    sources   source slices from which something is to be derived; those left out are not among them
    volumes   the pairs, volume by volume
    unpaired  numbers of derived slices whose source is not there, or is another slice's source already
    others    headers of other series that were found beside the source: they share the study
    emitted   SOP Instance UIDs the node used before
    verified_at   when this is judged, aware
    noise_of  measures the noise of a volume of the source
    """

    sources: tuple[Slice, ...]
    derived: tuple[Slice, ...]
    pairs: tuple[Pair, ...]
    volumes: tuple[tuple[Pair, ...], ...]
    unpaired: tuple[int, ...]
    others: tuple[InstanceHeader, ...]
    emitted: frozenset[str]
    policy: DerivationPolicy
    limits: VerificationLimits
    verified_at: datetime
    noise_of: Callable[[Sequence[Pair]], float] = lambda _volume: 0.0


CheckFunction = Callable[[SeriesPair], Iterable[str]]
"""Yields one line per problem; none means the assertion holds."""


def sum_up(number: int, title: str, found: Iterable[str]) -> Check:
    """Return how one assertion came out, with the first of the problems it found."""
    problems = list(found)
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Check(number, title, not problems, "; ".join(problems[:_SHOWN]) + more)


def differing(series: SeriesPair, keywords: Sequence[str]) -> Iterator[str]:
    """Yield every attribute that is not equal, byte for byte, in a pair; absent equals only absent."""
    for pair in series.pairs:
        for keyword in keywords:
            if canonical(pair.source.dataset, keyword) != canonical(pair.derived.dataset, keyword):
                yield f"slice {pair.number}: {keyword} differs"


def constant(series: SeriesPair, keywords: Sequence[str]) -> Iterator[str]:
    """Yield every attribute that has several values within the derived series."""
    for keyword in keywords:
        values = {canonical(piece.dataset, keyword) for piece in series.derived}
        if len(values) > 1:
            yield f"{keyword} has {len(values)} values in the series"
