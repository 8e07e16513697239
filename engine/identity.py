"""The enhancer that changes nothing: for dry runs of a route and for tests of everything around it."""

from __future__ import annotations

import hashlib
import time

from engine.enhancer import (
    CancelToken,
    EnhancementReport,
    EnhancementResult,
    EnhanceOptions,
    EnhancerIdentity,
    Progress,
    no_progress,
)
from engine.noise import estimate_noise
from engine.volume import Volume

_VERSION = "1"


class IdentityEnhancer:
    """Returns the very intensities it was given; the report says how noisy they are."""

    @property
    def identity(self) -> EnhancerIdentity:
        """Who this is, for provenance."""
        digest = hashlib.sha256(f"identity {_VERSION}".encode()).hexdigest()
        return EnhancerIdentity("identity", _VERSION, digest, "Unchanged copy, no noise removed")

    def enhance(
        self,
        volume: Volume,
        *,
        options: EnhanceOptions,
        progress: Progress = no_progress,
        cancel: CancelToken | None = None,
    ) -> EnhancementResult:
        """Return `volume` unchanged, whatever the strength."""
        began = time.perf_counter()
        progress(0.0, "measure noise")
        sigma = estimate_noise(volume).sigma
        if cancel is not None:
            cancel.raise_if_cancelled()
        progress(1.0, "done")
        report = EnhancementReport(
            noise_before=sigma,
            noise_after=sigma,
            parameters={"strength": options.strength},
            seconds=time.perf_counter() - began,
        )
        return EnhancementResult(volume, report)
