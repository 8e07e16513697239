"""The seam between the node and whatever removes the noise.

One protocol, several implementations (`engine.registry`). The node never learns which library runs
behind it; it reads the identity and the report, and writes both into the derived objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import EnhancementCancelledError
from engine.volume import Volume

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and the name of the step; must return quickly."""


def no_progress(_fraction: float, _step: str) -> None:
    """Ignore progress."""


class CancelToken:
    """Set once, from any thread; the enhancer asks at every step and stops with an error."""

    def __init__(self) -> None:
        self._event = Event()

    def cancel(self) -> None:
        """Ask the enhancer to stop at its next step."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise `EnhancementCancelledError` when somebody asked to stop."""
        if self._event.is_set():
            raise EnhancementCancelledError("the enhancement was cancelled")


@dataclass(frozen=True)
class EnhancerIdentity:
    """Who produced the voxels; written into provenance and into the job key.

    name       the enhancer's fixed name, e.g. ``classical-dct-wiener``
    version    of the algorithm or model
    digest     SHA-256 (64 hex digits) of the weights, or of the algorithm's parameters when it has none
    title      one ASCII phrase a radiologist understands
    """

    name: str
    version: str
    digest: str
    title: str


@dataclass(frozen=True)
class EnhanceOptions:
    """What a route may ask of an enhancer.

    strength  in [0, 1]: the share of what the enhancer would remove that goes (1.0 all, 0.0 returns the input)
    seed      for enhancers that draw random numbers; recorded in provenance
    extra     enhancer-specific options, already validated by the enhancer's own factory
    """

    strength: float = 1.0
    seed: int = 0
    extra: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class EnhancementReport:
    """Facts about one run, JSON-ready.

    noise_before, noise_after   estimated noise standard deviation, in the volume's unit
    parameters                  what was actually used (strength, block size, timestep, device, ...)
    seconds                     wall time of the enhancer alone
    """

    noise_before: float
    noise_after: float
    parameters: Mapping[str, str | int | float | bool]
    seconds: float


@dataclass(frozen=True, eq=False)
class EnhancementResult:
    """The enhanced volume (same grid, same unit, padding untouched) and what is to be said about it.

    uncertainty  (slices, rows, columns), finite, not negative, in the volume's unit: the standard deviation
                 the enhancer ascribes to each enhanced intensity, 0 at padding. None when it estimates none.
    """

    volume: Volume
    report: EnhancementReport
    uncertainty: NDArray[np.float32] | None = None  # (slices, rows, columns)


class Enhancer(Protocol):
    """Removes noise from a volume.

    Guarantees: same shape, affine, unit and valid mask; voxels outside `valid` bit-identical; finite
    output; the same input and options on the same machine give the same bits.
    Raises `OutOfRangeError` when the scan is not one it was made for, `EnhancementCancelledError` when
    the token was set.
    """

    @property
    def identity(self) -> EnhancerIdentity:
        """Who this is, for provenance."""
        ...

    def enhance(
        self,
        volume: Volume,
        *,
        options: EnhanceOptions,
        progress: Progress = no_progress,
        cancel: CancelToken | None = None,
    ) -> EnhancementResult:
        """Return the enhanced volume and the report of the run."""
        ...
