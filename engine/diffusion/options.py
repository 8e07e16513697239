"""The diffusion enhancer's own options, read from `EnhanceOptions.extra`."""

from __future__ import annotations

from dataclasses import dataclass

from engine.enhancer import EnhanceOptions
from engine.errors import EngineInputError

MODES = ("mean", "refine", "sample")
_DEFAULT_STEPS = {"mean": 1, "refine": 4, "sample": 50}


@dataclass(frozen=True)
class DiffusionOptions:
    """mode, network evaluations per descent, and descents averaged (`sample` only)."""

    mode: str = "mean"
    steps: int = 1
    repeats: int = 1

    @property
    def steps_total(self) -> int:
        """Network evaluations of the whole volume."""
        return self.steps * self.repeats


def read_options(options: EnhanceOptions) -> DiffusionOptions:
    """Validate and complete the options.

    Raises `EngineInputError` for an unknown key or mode, a strength outside [0, 1], or a number of steps
    the mode does not have (mean: 1, refine: 2-10, sample: 2-1000).
    """
    if not 0.0 <= options.strength <= 1.0:
        raise EngineInputError(f"strength lies in [0, 1], found {options.strength}")
    extra = dict(options.extra)
    extra.pop("device", None)  # chosen when the enhancer was built
    mode = str(extra.pop("mode", "mean"))
    if mode not in MODES:
        raise EngineInputError(f"unknown mode {mode!r}; choose from {', '.join(MODES)}")
    steps = int(extra.pop("steps", _DEFAULT_STEPS[mode]))
    repeats = int(extra.pop("repeats", 1))
    if extra:
        raise EngineInputError(f"unknown diffusion options: {', '.join(sorted(extra))}")
    low, high = {"mean": (1, 1), "refine": (2, 10), "sample": (2, 1000)}[mode]
    if not low <= steps <= high:
        raise EngineInputError(f"mode {mode} takes {low} to {high} steps, found {steps}")
    if repeats < 1 or (repeats > 1 and mode != "sample"):
        raise EngineInputError("repeats is at least 1, and more than 1 only in mode sample")
    return DiffusionOptions(mode, steps, repeats)
