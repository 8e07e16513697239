"""Train the noise reader on simulated scans, and measure it: `python -m engine.training.reader`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.blocks import block_coefficients, whole_blocks
from engine.diffusion.intensity import HU_PER_UNIT
from engine.diffusion.noise_reader import (
    EVIDENCE_PARTS,
    FLOOR,
    SPECTRUM_PARTS,
    NoiseReader,
    reader_input,
)
from engine.noise import estimate_noise, find_tissue
from engine.simulation.randomness import Draw
from engine.training.batches import simulate_scan
from engine.training.config import TrainingConfig, load_config
from engine.training.patches import CleanPatch, PatchSource
from engine.training.volumes import TrainingVolume, load_volumes
from engine.volume import IntensityUnit, Volume

_SIZES = ((32, 128, 128), (16, 160, 160), (32, 96, 96), (12, 192, 192), (48, 128, 128))
_FEWEST_BLOCKS = 60
_MR_SCALE = 100.0
_JITTER = 0.05


@dataclass(frozen=True)
class Examples:
    """Simulated scans, one a row: what the reader sees, and the truth.

    evidence, facts   input of the reader
    ratio             (N,) log of the true over the measured level
    shape             (N, 256) log of the true deviation of each band over the level
    """

    evidence: Tensor
    facts: Tensor
    ratio: Tensor
    shape: Tensor

    def rows(self, first: int, last: int | None) -> Examples:
        """Return some of the rows."""
        cut = slice(first, last)
        return Examples(self.evidence[cut], self.facts[cut], self.ratio[cut], self.shape[cut])


def draw_examples(volumes: list[TrainingVolume], config: TrainingConfig, count: int, seed: int) -> Examples:
    """Simulate `count` scans; those without enough tissue are passed over."""
    draw = Draw(seed)
    source = PatchSource(volumes, config, draw)
    rows: list[tuple[Tensor, ...]] = []
    while len(rows) < count:
        patch = source.clean(_SIZES[draw.integer(0, len(_SIZES) - 1)])
        row = _example(patch, draw)
        if row is not None:
            rows.append(row)
    return Examples(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _example(patch: CleanPatch, draw: Draw) -> tuple[Tensor, ...] | None:
    """One simulated scan, measured as in deployment."""
    clean, scan, _level = simulate_scan(patch, draw)
    scale = HU_PER_UNIT if patch.is_ct else _MR_SCALE
    unit = IntensityUnit.HU if patch.is_ct else IntensityUnit.ARBITRARY
    volume = _volume(scan.numpy() * np.float32(scale), unit, patch.spacing_mm)
    places = whole_blocks(find_tissue(_volume(clean.numpy() * np.float32(scale), unit, patch.spacing_mm)))
    measured = estimate_noise(volume)
    if places.sum() < _FEWEST_BLOCKS or measured.evidence is None or measured.sigma <= 0:
        return None
    bands = np.square(block_coefficients((scan - clean).numpy())[places]).mean(axis=0)
    bands[0] = min(bands[1], bands[8])
    added = float(bands.mean())
    sigma = math.sqrt(added + patch.noise**2)
    shape = 0.5 * np.log(np.maximum(bands / added, math.exp(2 * FLOOR)))
    spacing = _spacing(patch)
    evidence, facts = reader_input(measured, scale, is_ct=patch.is_ct, spacing=spacing)
    ratio = math.log(sigma * scale / measured.sigma)
    return evidence, facts, torch.tensor([ratio]), torch.from_numpy(shape)[None].float()


def _volume(array: np.ndarray, unit: IntensityUnit, spacing_mm: tuple[float, float, float]) -> Volume:
    """A volume on an upright grid."""
    return Volume(array.astype(np.float32), np.diag([*spacing_mm[::-1], 1.0]), unit)


def _spacing(patch: CleanPatch) -> Tensor:
    """The spacing entries of the condition, (1, 2)."""
    slice_mm, row_mm, column_mm = patch.spacing_mm
    return torch.tensor([[math.log(slice_mm / row_mm), math.log((slice_mm * row_mm * column_mm) ** (1 / 3))]])


def fit(examples: Examples, *, steps: int = 1000, seed: int = 1) -> NoiseReader:
    """Fit a reader: principal components first, then every member by itself."""
    torch.manual_seed(seed)
    reader = NoiseReader()
    mean, parts = _components(examples.evidence, EVIDENCE_PARTS)
    reader.evidence_mean.copy_(mean)
    reader.evidence_parts.copy_(parts)
    mean, parts = _components(examples.shape, SPECTRUM_PARTS)
    spread = ((examples.shape - mean) @ parts.T).std(0).clamp_min(1e-3)
    reader.spectrum_mean.copy_(mean)
    reader.spectrum_parts.copy_(parts * spread[:, None])
    inputs = reader.inputs(examples.evidence, examples.facts)
    reader.mean.copy_(inputs.mean(0))
    reader.deviation.copy_(inputs.std(0).clamp_min(1e-3))
    weight = 0.3 + torch.exp(2.0 * examples.shape).clamp(max=3.0)
    for member in reader.members:
        _fit_member(reader, member, examples, weight, steps)
    return reader


def _fit_member(
    reader: NoiseReader, member: nn.Module, examples: Examples, weight: Tensor, steps: int
) -> None:
    """Fit one member of the ensemble by a robust loss in band space; `weight`: (N, 256)."""
    seen = (reader.inputs(examples.evidence, examples.facts) - reader.mean) / reader.deviation
    optimiser = torch.optim.AdamW(member.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pick = torch.randint(0, len(seen), (256,))
        out = member(seen[pick] + _JITTER * torch.randn_like(seen[pick]))
        ratio, shape = reader.parts(out)
        loss = 10 * F.huber_loss(ratio, examples.ratio[pick], delta=0.1)
        errors = F.huber_loss(shape, examples.shape[pick], delta=0.3, reduction="none")
        loss = loss + (errors * weight[pick]).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and the first principal components (count, length) of rows."""
    mean = rows.mean(0)
    return mean, torch.linalg.svd(rows - mean, full_matrices=False).Vh[:count]


@torch.no_grad()
def report(reader: NoiseReader, examples: Examples) -> str:
    """Return the errors on examples that were kept, in words."""
    ratio, shape = reader(examples.evidence, examples.facts)
    quantiles = torch.tensor([0.5, 0.95])
    lines = []
    is_ct = examples.facts[:, -3] > 0.5
    loud = examples.shape > -1.5
    for name, rows in (("CT", is_ct), ("MR", ~is_ct)):
        read, raw = torch.exp(ratio - examples.ratio)[rows] - 1, torch.exp(-examples.ratio)[rows] - 1
        bands = (shape - examples.shape)[rows][loud[rows]].abs()
        by_reader, by_measure, by_band = (
            torch.quantile(e.abs(), quantiles) for e in (read, raw, bands[:1_000_000])
        )
        lines.append(
            f"{name}, {int(rows.sum())} kept examples: level error {_two(by_reader)} (as measured "
            f"{_two(by_measure)}); bands {_two(by_band)}"
        )
    return "\n".join(lines) + "\n"


def _two(quantiles: Tensor) -> str:
    """Median and 95th percentile in words."""
    return f"median {quantiles[0]:.1%}, p95 {quantiles[1]:.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train on the sources of a training configuration and write the weights and the report."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.reader", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", help="folder of exported scans, in place of the configuration's")
    parser.add_argument("--examples", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=77)
    chosen = parser.parse_args(arguments)
    config = replace(load_config(chosen.config), phantom_share=0.15)
    folder = Path(chosen.data or config.data)
    volumes = load_volumes(folder, config.sources, torch.device("cpu"))
    examples = draw_examples(volumes, config, chosen.examples, chosen.seed)
    split = chosen.examples * 9 // 10
    reader = fit(examples.rows(0, split))
    save_file(reader.state_dict(), chosen.output)
    chosen.output.with_suffix(".txt").write_text(report(reader, examples.rows(split, None)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
