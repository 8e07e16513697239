"""`python -m engine.evaluation --data DIR --noise LEVELS --peers NAMES -o DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.bundle import BUNDLES, DEFAULT_MODEL, load_bundle
from engine.device import choose_device
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.errors import EngineError, EngineInputError
from engine.evaluation import probes
from engine.evaluation.cases import DEFAULT_LEVELS, NoisyCase, load_scan, noisy_cases, parse_levels
from engine.evaluation.compare import as_denoiser, compare, steps_table
from engine.evaluation.peers import choose_peers
from engine.evaluation.report import write_report

_PLANS: tuple[dict[str, str | int], ...] = (
    {"mode": "mean", "steps": 1},
    {"mode": "refine", "steps": 2},
    {"mode": "refine", "steps": 4},
    {"mode": "refine", "steps": 10},
    {"mode": "sample", "steps": 50, "repeats": 1},
    {"mode": "sample", "steps": 50, "repeats": 4},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate; return 0, or 2 with one clear line when the input is invalid."""
    parser = argparse.ArgumentParser(prog="python -m engine.evaluation", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of exported .npz or NIfTI scans")
    parser.add_argument("--match", action="append", help="glob below the folder; repeatable")
    parser.add_argument("--noise", default=DEFAULT_LEVELS, help="e.g. ct30c,ct30w,mr7")
    parser.add_argument("--peers", default="gaussian,nlm,tv,bm4d", help="empty for none")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundle id, or a bundle folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--crop", default="", help="slices,rows,columns cut from the centre")
    parser.add_argument("--steps-table", action="store_true", help="add PSNR against sampling steps")
    parser.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    try:
        _evaluate(chosen)
    except (EngineError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _evaluate(chosen: argparse.Namespace) -> None:
    """Run everything that was asked for and write the report."""
    peers, levels = choose_peers(chosen.peers), parse_levels(chosen.noise)
    enhancer = load_enhancer(chosen.model, chosen.device)
    options = EnhanceOptions(strength=chosen.strength)
    cases = _cases(chosen.data, chosen.match or ["*.npz", "*.nii*"], chosen.crop, levels)
    scores, pictures = compare(cases, enhancer, options, peers, _tell)
    denoise = as_denoiser(enhancer, options)
    extras: dict[str, Any] = {}
    ct_levels = [level for level in levels if level.is_ct]
    if ct_levels:
        level = ct_levels[min(1, len(ct_levels) - 1)]
        phantom = probes.soft_tissue_phantom()
        extras["lesion contrast recovery"] = [
            asdict(r) for r in probes.lesion_recovery(denoise, level, phantom)
        ]
        extras["probes"] = [
            {"probe": "f50 ratio at 200 HU", "value": probes.edge_sharpness(denoise, level)},
            {"probe": "false structure share", "value": probes.false_structure(denoise, level)},
            {"probe": "near-clean change, sigma", "value": probes.near_clean_change(denoise)},
        ]
    if chosen.steps_table:
        first = next(iter(_cases(chosen.data, chosen.match or ["*.npz"], chosen.crop, levels)))
        extras["PSNR against steps"] = steps_table(first, enhancer, _PLANS)
    identity = enhancer.identity
    write_report(chosen.output, scores, pictures, extras, f"{identity.name} {identity.version} evaluation")


def load_enhancer(model: str, device: str) -> DiffusionEnhancer:
    """Return the enhancer of a bundle named by id or folder."""
    folder = Path(model) if Path(model).is_dir() else BUNDLES / model
    return DiffusionEnhancer(load_bundle(folder), choose_device(device))


def _cases(folder: Path, patterns: list[str], crop: str, levels: list[Any]) -> list[NoisyCase]:
    """Build all cases. Raises `EngineInputError` when nothing matches."""
    paths = sorted({p for m in patterns for p in folder.glob(m) if p.suffix != ".json"})
    if not paths:
        raise EngineInputError("no scan matches in the data folder")
    size = tuple(int(v) for v in crop.split(",")) if crop else None
    if size is not None and len(size) != 3:
        raise EngineInputError("--crop takes slices,rows,columns")
    window = None if size is None else (size[0], size[1], size[2])
    return [
        case
        for path in paths
        for case in noisy_cases(path.name.split(".")[0], load_scan(path, window), levels)
    ]


def _tell(line: str) -> None:
    """Print one line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
