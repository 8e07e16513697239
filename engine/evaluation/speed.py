"""How fast an enhancer runs on this machine, and how BM4D does beside it.

A phantom with simulated noise goes through the whole engine: noise estimate, descent, guards, measurement of
what is left. Seconds are wall time of single runs after one run that nobody counts. BM4D is told the true
noise and runs on the same volume, or on its middle where that is larger than 32x128x128, for it needs the
better part of a minute per million voxels; it is compared by seconds per voxel. It starts as many threads as
the machine has processors, the model as many as PyTorch was given: both are printed. On a CPU the plans of
many evaluations run on a smaller crop as well, which the row says, and fewer times when a run takes long.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import BUNDLES, DEFAULT_MODEL, load_bundle
from engine.device import choose_device
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions, Enhancer
from engine.errors import EngineInputError, OutOfRangeError
from engine.evaluation.cases import NoiseLevel, add_noise
from engine.evaluation.machine import peak_memory
from engine.evaluation.metrics import CT_RANGE_HU
from engine.phantom import head_phantom
from engine.registry import build_enhancer
from engine.simulation.randomness import Draw
from engine.volume import Volume

Shape = tuple[int, int, int]
Tell = Callable[[str], None]

SIGMA_HU = 30.0
_SPACING_MM = (2.0, 0.8, 0.8)
_PHANTOM: Shape = (64, 256, 256)
"""Larger volumes are mirrored copies of a phantom of this size, which takes seconds and not minutes."""
_PEER_CROP: Shape = (32, 128, 128)
_SMALLEST_CROP: Shape = (16, 64, 64)
_LONGEST_S = 60.0
"""A plan whose runs took this long together is not repeated again."""
_WITHOUT_MODES = ("classical", "identity")
_CPU_WORK = 1_100_000
"""Voxels times evaluations of one run that a CPU is asked for before a crop takes the volume's place."""


@dataclass(frozen=True)
class Plan:
    """A mode of a diffusion model and its evaluations. `options` go to the enhancer as they are."""

    name: str
    evaluations: int
    options: dict[str, str | int | float | bool] = field(default_factory=dict)


PLANS = {
    plan.name: plan
    for plan in (
        Plan("mean", 1, {"mode": "mean"}),
        Plan("refine4", 4, {"mode": "refine", "steps": 4}),
        Plan("refine10", 10, {"mode": "refine", "steps": 10}),
        Plan("sample50", 50, {"mode": "sample", "steps": 50}),
    )
}
ONLY = Plan("whole", 0)
"""The plan of enhancers that have no modes."""


@dataclass(frozen=True)
class SpeedRow:
    """One plan on one volume. `ran_on` is smaller than `asked` where a crop took the volume's place.

    peak_bytes   CUDA: most memory allocated on the device; CPU: growth of the process. None: not measured
    against_peer seconds per voxel of BM4D over ours; None when BM4D did not run
    """

    model: str
    plan: str
    asked: Shape
    ran_on: Shape
    evaluations: int
    seconds: tuple[float, ...]
    peak_bytes: int | None
    against_peer: float | None

    @property
    def median_s(self) -> float:
        """The middle one of the runs."""
        return statistics.median(self.seconds)

    @property
    def seconds_per_mvoxel(self) -> float:
        """Seconds for a million voxels."""
        return self.median_s * 1e6 / math.prod(self.ran_on)

    @property
    def mvoxels_per_s(self) -> float:
        """Million voxels enhanced in a second."""
        return math.prod(self.ran_on) / 1e6 / self.median_s


@dataclass(frozen=True)
class PeerSpeed:
    """BM4D, one run. `processors`: how many it kept busy, processor time over wall time."""

    name: str
    ran_on: Shape
    seconds: float
    processors: float = 1.0

    @property
    def seconds_per_mvoxel(self) -> float:
        """Seconds for a million voxels."""
        return self.seconds * 1e6 / math.prod(self.ran_on)


def load_enhancer(model: str | None, device: str) -> tuple[Enhancer, str]:
    """Return the enhancer of a name or bundle folder (None: the shipped model), and where it runs.

    Raises `BundleError` for a bundle that is not there, `EngineInputError` for an absent device.
    """
    if model in _WITHOUT_MODES:
        return build_enhancer(model), "cpu"
    name = model or DEFAULT_MODEL
    folder = Path(name) if Path(name).is_dir() else BUNDLES / name
    compute = choose_device(device)
    return DiffusionEnhancer(load_bundle(folder), compute), compute.label


def has_modes(enhancer: Enhancer) -> bool:
    """Whether the plans mean anything to it."""
    return isinstance(enhancer, DiffusionEnhancer)


def choose_plans(names: str) -> list[Plan]:
    """Return the plans of a comma-separated list. Raises `EngineInputError` for an unknown one."""
    chosen = [n for n in (name.strip() for name in names.split(",")) if n]
    unknown = [n for n in chosen if n not in PLANS]
    if unknown or not chosen:
        what = f"unknown mode {unknown[0]!r}" if unknown else "no mode"
        raise EngineInputError(f"{what}; choose from {', '.join(PLANS)}")
    return [PLANS[n] for n in chosen]


def parse_shape(text: str) -> Shape:
    """Read ``slices,rows,columns``. Raises `EngineInputError` unless all are whole and at least 16."""
    parts = text.split(",")
    if len(parts) != 3 or not all(p.strip().isdecimal() and int(p) >= 16 for p in parts):
        raise EngineInputError(f"a shape is slices,rows,columns of at least 16 each, not {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])


def benchmark_volume(shape: Shape, seed: int = 0) -> Volume:
    """Return a noisy head of `shape`: 30 HU of a soft kernel's noise, the same bits for one seed."""
    size = tuple(min(n, most) for n, most in zip(shape, _PHANTOM, strict=True))
    head = head_phantom((size[0], size[1], size[2]), _SPACING_MM, seed)
    noisy, _ = add_noise(head.array, NoiseLevel(True, SIGMA_HU, True), CT_RANGE_HU, Draw(seed))
    grown = np.pad(noisy, [(0, n - m) for n, m in zip(shape, size, strict=True)], mode="symmetric")
    return Volume(np.ascontiguousarray(grown), head.affine, head.unit)


def measure(
    enhancer: Enhancer,
    shapes: Sequence[Shape],
    plans: Sequence[Plan],
    *,
    on_cuda: bool,
    repeats: int,
    peer: PeerSpeed | None,
    tell: Tell,
) -> list[SpeedRow]:
    """Time every plan on every shape. Raises `EngineInputError` when the phantom is refused."""
    rows = []
    for shape in shapes:
        volume = benchmark_volume(shape)
        for plan in plans:
            tell(f"{enhancer.identity.name} {plan.name} on {as_text(shape)}")
            rows.append(_time_plan(enhancer, volume, plan, on_cuda=on_cuda, repeats=repeats, peer=peer))
    return rows


def _time_plan(
    enhancer: Enhancer, volume: Volume, plan: Plan, *, on_cuda: bool, repeats: int, peer: PeerSpeed | None
) -> SpeedRow:
    """Time one plan on one volume, or on its crop."""
    asked = _shape(volume)
    part = volume if on_cuda else _centre(volume, affordable(asked, plan.evaluations))
    options = EnhanceOptions(strength=1.0, extra=plan.options)
    seconds: list[float] = []
    with peak_memory(on_cuda=on_cuda) as peak:
        # What is prepared once: by a GPU for every plan, by a CPU for every shape.
        facts = _run(enhancer, part, options if on_cuda else EnhanceOptions(strength=1.0))
        while len(seconds) < repeats and sum(seconds) < _LONGEST_S:
            start = time.perf_counter()
            facts = _run(enhancer, part, options)
            seconds.append(time.perf_counter() - start)
    ratio = None
    if peer is not None:
        ratio = peer.seconds_per_mvoxel / (statistics.median(seconds) * 1e6 / part.array.size)
    return SpeedRow(
        model=enhancer.identity.name,
        plan=plan.name,
        asked=asked,
        ran_on=_shape(part),
        evaluations=int(facts.get("evaluations", 0)),
        seconds=tuple(seconds),
        peak_bytes=peak[0] if peak else None,
        against_peer=ratio,
    )


def _run(enhancer: Enhancer, volume: Volume, options: EnhanceOptions) -> dict[str, Any]:
    """Enhance once and return the report's facts."""
    try:
        return dict(enhancer.enhance(volume, options=options).report.parameters)
    except OutOfRangeError as exc:
        raise EngineInputError(f"the phantom of {as_text(_shape(volume))} was refused: {exc}") from exc


def affordable(shape: Shape, evaluations: int) -> Shape:
    """Return the largest crop, halving the longest side, whose work a CPU is asked for."""
    size = list(shape)
    while math.prod(size) * max(evaluations, 1) > _CPU_WORK:
        halved = [n // 2 if n // 2 >= least else 0 for n, least in zip(size, _SMALLEST_CROP, strict=True)]
        if not any(halved):
            break
        axis = int(np.argmax([n if half else 0 for n, half in zip(size, halved, strict=True)]))
        size[axis] = halved[axis]
    return size[0], size[1], size[2]


def time_bm4d(shape: Shape, tell: Tell) -> PeerSpeed | None:
    """Run BM4D, told the true noise, on at most 32x128x128; None when it is not installed."""
    if importlib.util.find_spec("bm4d") is None:
        return None
    import bm4d

    part = _centre(benchmark_volume(shape), _PEER_CROP)
    tell(f"BM4D on {as_text(_shape(part))}")
    start, spent = time.perf_counter(), time.process_time()
    bm4d.bm4d(part.array.astype(np.float64), SIGMA_HU)
    seconds, busy = time.perf_counter() - start, time.process_time() - spent
    return PeerSpeed("bm4d", _shape(part), seconds, busy / seconds)


def as_json(rows: Sequence[SpeedRow], peer: PeerSpeed | None, facts: dict[str, str | int]) -> dict[str, Any]:
    """Return all figures as plain values."""
    return {
        "machine": facts,
        "sigma_hu": SIGMA_HU,
        "peer": None if peer is None else asdict(peer) | {"seconds_per_mvoxel": peer.seconds_per_mvoxel},
        "rows": [_row_json(r) for r in rows],
    }


def _row_json(row: SpeedRow) -> dict[str, Any]:
    """One row with the figures that follow from it."""
    derived = {
        "median_s": row.median_s,
        "seconds_per_mvoxel": row.seconds_per_mvoxel,
        "mvoxels_per_s": row.mvoxels_per_s,
    }
    return asdict(row) | derived


def as_text(shape: Shape) -> str:
    """A shape as tables show it."""
    return "x".join(str(n) for n in shape)


def _shape(volume: Volume) -> Shape:
    slices, rows, columns = volume.array.shape
    return slices, rows, columns


def _centre(volume: Volume, size: Shape) -> Volume:
    """The middle of a volume, no larger than `size`."""
    at = tuple(
        slice(max(0, (n - m) // 2), max(0, (n - m) // 2) + m)
        for n, m in zip(volume.array.shape, size, strict=True)
    )
    return Volume(np.ascontiguousarray(volume.array[at]), volume.affine, volume.unit)
