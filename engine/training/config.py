"""What one training run is: read from TOML, frozen, written into the run folder and the bundle."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.diffusion.network import SHAPES
from engine.errors import EngineInputError


@dataclass(frozen=True)
class SourceConfig:
    """Where clean patches come from.

    match      glob below the data folder; several files share one weight
    weight     relative share of the patches of its modality
    halve      probability of 2x area downsampling in-plane (isotropic volumes: on every axis)
    average    largest number of neighbouring slices averaged
    as_ct      share of an MR volume's patches shown as CT through a random grey scale
    """

    match: str
    weight: float = 1.0
    halve: float = 0.0
    average: int = 1
    as_ct: float = 0.0


@dataclass(frozen=True)
class TrainingConfig:
    """A run. Patch shapes are (slices, rows, columns); `minutes` 0 means `steps` alone ends the run.

    repeats    how often a drawn batch is shown on average (`engine.training.stream`)
    memory     the last batches that those shown again are picked from
    workers    processes that simulate scans ahead on the CPU; 0 does so in the run itself, on its device
    threads    threads of the network on a CPU; 0 leaves the choice to torch
    """

    name: str
    data: str
    sources: tuple[SourceConfig, ...]
    validation: tuple[str, ...] = ()
    network: str = "base"
    shapes: tuple[tuple[int, int, int], ...] = ((32, 64, 64),)
    batch: int = 8
    accumulate: int = 1
    steps: int = 10_000
    minutes: float = 0.0
    learning_rate: float = 8e-4
    final_rate: float = 1e-6
    warm_up: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    auxiliary_after: float = 0.3
    auxiliary: dict[str, float] = field(
        default_factory=lambda: {"ssim": 0.05, "pyramid": 0.02, "bias": 0.1, "nll": 0.05}
    )
    ct_share: float = 0.6
    phantom_share: float = 0.12
    lesion_share: float = 0.3
    seed: int = 1
    device: str = "cpu"
    precision: str = "bfloat16"
    compile: bool = True
    checkpoint_s: float = 120.0
    validate_s: float = 300.0
    start_from: str = ""
    repeats: int = 1
    memory: int = 48
    workers: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.network not in SHAPES:
            raise EngineInputError(f"unknown network {self.network!r}; choose from {', '.join(SHAPES)}")
        if self.precision not in ("float32", "bfloat16"):
            raise EngineInputError(f"precision is float32 or bfloat16, not {self.precision!r}")
        if self.repeats < 1 or self.memory < 1 or self.workers < 0:
            raise EngineInputError("repeats and memory are at least 1, workers at least 0")
        if any(edge % 16 for shape in self.shapes for edge in shape):
            raise EngineInputError("every patch edge must be a multiple of 16")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def load_config(path: Path) -> TrainingConfig:
    """Read a TOML file. Raises `EngineInputError` naming an unknown key or a bad value."""
    return config_from(tomllib.loads(path.read_text(encoding="utf-8")))


def config_from(values: dict[str, Any]) -> TrainingConfig:
    """Build a configuration from plain values (TOML or the JSON of a run folder)."""
    known = {f.name for f in fields(TrainingConfig)}
    if unknown := sorted(set(values) - known):
        raise EngineInputError(f"unknown training keys: {', '.join(unknown)}")
    values = dict(values)
    values["sources"] = tuple(SourceConfig(**s) for s in values.get("sources", ()))
    values["validation"] = tuple(values.get("validation", ()))
    if "shapes" in values:
        values["shapes"] = tuple(tuple(int(e) for e in shape) for shape in values["shapes"])
    return TrainingConfig(**values)
