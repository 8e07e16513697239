"""What can go wrong in the engine, as one tree.

EngineError
├── EngineInputError        the caller broke a contract: shape, dtype, range
├── OutOfRangeError         the scan is outside what the enhancer was made for (carries a reason code)
├── UnsafeOutputError       a guard refused the enhanced volume (carries the guard's name)
├── EnhancementCancelledError   the caller's token was set
└── BundleError             a model bundle is missing, damaged or of an unknown layout
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of every error the engine raises on purpose."""


class EngineInputError(EngineError):
    """The caller broke a contract of shape, dtype, unit or range."""


class OutOfRangeError(EngineError):
    """The scan lies outside what the enhancer was made for; the right answer is to send nothing.

    `reason` is a fixed upper-case code such as ``NOISE_UNCERTAIN``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnsafeOutputError(EngineError):
    """A guard refused the enhanced volume. `guard` names the guard, `value` and `bound` say by how much."""

    def __init__(self, guard: str, *, value: float, bound: float) -> None:
        super().__init__(f"guard {guard} refused the enhanced volume: {value:.4g} exceeds {bound:.4g}")
        self.guard = guard
        self.value = value
        self.bound = bound


class EnhancementCancelledError(EngineError):
    """The cancellation token was set while the enhancer ran; there is no result."""


class BundleError(EngineError):
    """A model bundle is missing, damaged or of a layout this version does not read."""
