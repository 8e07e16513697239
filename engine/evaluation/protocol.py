"""The evaluation from a plan to the report: which scans, which crops, every level, every peer, every probe."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bundle import ModelBundle, load_bundle
from engine.device import choose_device
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.errors import EngineInputError
from engine.evaluation.cases import (
    NoiseLevel,
    NoisyCase,
    Shape,
    Truth,
    cases_of,
    load_scan,
    parse_levels,
    truths,
)
from engine.evaluation.compare import Tell, compare
from engine.evaluation.machine import machine_facts
from engine.evaluation.peers import choose_peers
from engine.evaluation.probing import run_probes
from engine.evaluation.report import Findings, as_text, write_report
from engine.volume import IntensityUnit

_THINNEST = 8
_LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "bm4d")


@dataclass(frozen=True)
class Plan:
    """What to evaluate, on what, how thoroughly. `crop` None: whole scans."""

    data: Path
    output: Path
    bundle: Path
    match: tuple[str, ...] = ()
    kept_only: bool = False
    noise: str = ""
    peers: str = ""
    crop: Shape | None = (16, 128, 128)
    crops: int = 4
    draws: int = 1
    cache: Path | None = None
    device: str = "auto"
    strength: float = 1.0
    mode: str = "mean"
    probes: bool = True
    command: str = ""


def parse_crop(text: str) -> Shape | None:
    """Read ``slices,rows,columns`` or ``whole``. Raises `EngineInputError` for anything else."""
    if text == "whole":
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(p.strip().isdecimal() and int(p) >= 8 for p in parts):
        raise EngineInputError(f"a crop is slices,rows,columns of at least 8 each, or whole, not {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])


def run(plan: Plan, tell: Tell) -> None:
    """Evaluate and write the report.

    Raises `EngineInputError` for an unknown level, peer or crop or when no scan matches, `BundleError` for a
    bundle that cannot be read.
    """
    start = time.perf_counter()
    if plan.crops < 1 or plan.draws < 1:
        raise EngineInputError("crops and draws are at least 1")
    peers, levels = choose_peers(plan.peers), parse_levels(plan.noise)
    bundle = load_bundle(plan.bundle)
    compute = choose_device(plan.device)
    enhancer = DiffusionEnhancer(bundle, compute)
    options = EnhanceOptions(strength=plan.strength, extra={"mode": plan.mode})
    crops = _crops(plan, bundle, levels)
    cases = _cases(crops, levels, plan.draws)
    scores, pictures = compare(cases, enhancer, options, peers, tell=tell, cache=plan.cache)
    heading = f"{bundle.model_id} {bundle.version}: evaluation"
    extras: dict[str, Sequence[dict[str, Any]]] = {}

    def write() -> None:
        minutes = {"minutes": round((time.perf_counter() - start) / 60, 1)}
        facts = _facts(plan, bundle, crops, compute.label) | minutes
        write_report(plan.output, Findings(heading, facts, scores, pictures, extras))

    write()  # what is known stands already while the probes go on
    if plan.probes:
        for title, rows in run_probes(enhancer, options, crops, levels, tell):
            extras[title] = rows
            write()
    for metric in ("psnr_body", "psnr", "ssim_body", "snr_gain"):
        tell("\n" + as_text(scores, metric))
    tell(f"\nwritten: {plan.output / 'report.html'}")


def _crops(plan: Plan, bundle: ModelBundle, levels: Sequence[NoiseLevel]) -> list[Truth]:
    """Cut the crops of every scan that matches, has a level of its modality and is no single slice."""
    patterns = plan.match or ("*.npz", "*.nii", "*.nii.gz")
    if plan.kept_only:
        patterns = tuple(bundle.manifest.get("training", {}).get("validation", ()))
    paths = sorted({p for m in patterns for p in plan.data.glob(m) if p.suffix != ".json"})
    wanted = {level.is_ct for level in levels}
    crops: list[Truth] = []
    for path in paths:
        scan = load_scan(path)
        if (scan.unit is IntensityUnit.HU) in wanted and min(scan.array.shape) >= _THINNEST:
            crops += truths(path.name.split(".")[0], scan, plan.crop, plan.crops)
    if not crops:
        raise EngineInputError(
            f"no scan for these levels matches {', '.join(patterns) or 'nothing'} in the data folder"
        )
    return crops


def _cases(crops: Sequence[Truth], levels: Sequence[NoiseLevel], draws: int) -> Iterator[NoisyCase]:
    """Yield the cases one by one; a case is made when it is due."""
    yield from cases_of(crops, levels, draws)


def _facts(plan: Plan, bundle: ModelBundle, crops: Sequence[Truth], place: str) -> dict[str, Any]:
    """What the figures depend on."""
    counts: dict[str, int] = {}
    for crop in crops:
        counts[crop.scan] = counts.get(crop.scan, 0) + 1
    return {
        "command": plan.command,
        "model": f"{bundle.model_id} {bundle.version}",
        "weights SHA-256": bundle.digest,
        "mode, strength": f"{plan.mode}, {plan.strength:g}",
        "machine": ", ".join(f"{k} {v}" for k, v in machine_facts(place).items()),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
        "scans and crops": ", ".join(f"{scan} x {n}" for scan, n in counts.items()),
        "crop": "whole" if plan.crop is None else "x".join(str(n) for n in plan.crop),
        "noise draws": plan.draws,
        "seeds": "CRC-32 of scan, crop, level and draw",
    }


def _versions() -> list[str]:
    """Versions of the libraries that are there."""
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
