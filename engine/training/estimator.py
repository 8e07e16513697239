"""Train the noise regressor on simulated scans, and measure it: `python -m engine.training.estimator`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.diffusion.conditioning import noise_colour
from engine.diffusion.noise_estimate import NoiseRegressor, noise_features
from engine.simulation.randomness import Draw
from engine.training.batches import simulate_scan
from engine.training.config import load_config
from engine.training.patches import CleanPatch, PatchSource
from engine.training.volumes import load_volumes

_SIZES = ((32, 128, 128), (16, 160, 160), (32, 96, 96), (12, 192, 192))


def draw_examples(source: PatchSource, count: int, draw: Draw) -> list[Tensor]:
    """Return features (N, F), modality (N,), spacing (N, 2), log sigma (N,) and colour (N, C)."""
    rows: list[list[Tensor]] = []
    for _ in range(count):
        patch = source.clean(_SIZES[draw.integer(0, len(_SIZES) - 1)])
        clean, scan, _level = simulate_scan(patch, draw)
        tissue = (clean > -0.8) & (clean < 1.2) if patch.is_ct else clean > 0.8
        added = scan - clean
        inside = added[tissue] if int(tissue.sum()) > 2000 else added
        level = float(inside.square().mean().sqrt())
        total = torch.tensor([math.hypot(level, patch.noise)])
        colour = noise_colour((added * tissue)[None, None]) + math.log(level / float(total))
        rows.append([
            noise_features(scan, is_ct=patch.is_ct),
            torch.tensor([float(patch.is_ct)]),
            _spacing(patch),
            total.log(),
            colour,
        ])  # fmt: skip
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def _spacing(patch: CleanPatch) -> Tensor:
    """The spacing entries of the condition, (1, 2)."""
    slice_mm, row_mm, column_mm = patch.spacing_mm
    return torch.tensor([[math.log(slice_mm / row_mm), math.log((slice_mm * row_mm * column_mm) ** (1 / 3))]])


def fit(examples: list[Tensor], *, steps: int = 3000, seed: int = 1) -> NoiseRegressor:
    """Fit a regressor: Huber loss on log sigma and colour, one in ten examples kept for the report."""
    torch.manual_seed(seed)
    features, is_ct, spacing, sigma, colour = examples
    regressor = NoiseRegressor()
    level = features.mean(dim=1, keepdim=True)
    inputs = torch.cat((features - level, level, is_ct[:, None], spacing), dim=1)
    regressor.mean.copy_(inputs.mean(0))
    regressor.deviation.copy_(inputs.std(0).clamp_min(1e-3))
    optimiser = torch.optim.AdamW(
        [p for p in regressor.parameters() if p.requires_grad], 3e-3, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pick = torch.randint(0, len(sigma), (256,))
        jitter = 0.02 * torch.randn_like(features[pick])
        out_sigma, out_colour = regressor(features[pick] + jitter, is_ct[pick], spacing[pick])
        loss = torch.nn.functional.huber_loss(out_sigma, sigma[pick], delta=0.1) * 10
        loss = loss + torch.nn.functional.huber_loss(out_colour, colour[pick], delta=0.3)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return regressor


@torch.no_grad()
def errors(regressor: NoiseRegressor, examples: list[Tensor]) -> Tensor:
    """Return the relative error of sigma of every example (N,)."""
    features, is_ct, spacing, sigma, _ = examples
    return torch.exp(regressor(features, is_ct, spacing)[0] - sigma) - 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train on the sources of a training configuration and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.estimator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=4000)
    chosen = parser.parse_args(arguments)
    config = replace(load_config(chosen.config), phantom_share=0.15)
    draw = Draw(77)
    source = PatchSource(load_volumes(Path(config.data), config.sources, torch.device("cpu")), config, draw)
    examples = draw_examples(source, chosen.examples, draw)
    split = chosen.examples * 9 // 10
    regressor = fit([column[:split] for column in examples])
    kept = errors(regressor, [column[split:] for column in examples]).abs()
    save_file(regressor.state_dict(), chosen.output)
    quantiles = torch.quantile(kept, torch.tensor([0.5, 0.95])).tolist()
    chosen.output.with_suffix(".txt").write_text(
        f"relative error on {len(kept)} kept examples: median {quantiles[0]:.1%}, p95 {quantiles[1]:.1%}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
