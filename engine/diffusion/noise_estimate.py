"""Noise level and colour of a scan, estimated once per volume before diffusion.

Haar sub-band energies of quiet blocks and local in-plane deviations are the evidence. Two closed-form
readings (sub-band sum, local deviation) and a small network trained on simulated scans judge it; the
network supplies the answer, the other two must not contradict it by more than a factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.diffusion.conditioning import COLOUR_RANGE, colour_groups
from engine.diffusion.haar import haar_split
from engine.diffusion.network import COLOUR_SIZE
from engine.errors import EngineInputError, OutOfRangeError

_QUANTILES = (0.05, 0.15, 0.3, 0.5)
_MAX_BLOCKS = 60_000
_FEW_BLOCKS = 24
_NEGLIGIBLE = 0.008
"""Model units (2 HU): noise too weak to argue about."""
_DISAGREEMENT = 3.0
_FLOOR = 1e-8
"""Power below which a volume counts as noiseless (model units squared)."""
FEATURES = (COLOUR_SIZE + 1) * len(_QUANTILES)
_INPUTS = FEATURES + 1 + 1 + 2
SPREAD_LIMIT = 4.0
"""The estimators must agree within this factor, or the scan is refused."""


@dataclass(frozen=True)
class NoiseEstimate:
    """What is known of a scan's noise, in model units.

    sigma       the fused estimate
    colour      (1, COLOUR_SIZE) log band noise over `sigma`
    subband     root mean power of the quietest blocks' detail bands: near `sigma` for white noise
    local       in-plane deviation of ordinary windows: not below `sigma`
    spread      by how much the fused estimate contradicts the other two, 1 when it does not
    """

    sigma: float
    colour: Tensor
    subband: float
    local: float
    spread: float


class NoiseRegressor(nn.Module):
    """Scale-equivariant network from log energies to log sigma and log colour."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(_INPUTS), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(_INPUTS), requires_grad=False)
        self.layers = nn.Sequential(
            nn.Linear(_INPUTS, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 1 + COLOUR_SIZE),
        )

    def forward(self, features: Tensor, is_ct: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
        """Return log sigma (N,) and the colour (N, COLOUR_SIZE).

        features: (N, FEATURES) log RMS, model units; is_ct: (N,); spacing: (N, 2).
        """
        level = features.mean(dim=1, keepdim=True)
        inputs = torch.cat((features - level, level, is_ct[:, None], spacing), dim=1)
        out = self.layers((inputs - self.mean) / self.deviation)
        return out[:, 0] + level[:, 0], out[:, 1:].clamp(*COLOUR_RANGE)


def noise_features(u: Tensor, *, is_ct: bool, valid: Tensor | None = None) -> Tensor:
    """Return (1, FEATURES): low quantiles of the log block RMS of every colour group and of local SD.

    `u`: (Z, Y, X) model units, at least 4 voxels along every axis. Only blocks wholly inside soft tissue
    (CT) or signal (MR) and `valid` count; when they are too few, any valid block does.
    Raises `EngineInputError` for a volume too small to measure.
    """
    if min(u.shape) < 4 or u.numel() < 4096:
        raise EngineInputError(f"a volume of {tuple(u.shape)} voxels is too small for a noise estimate")
    u = u[: u.shape[0] // 4 * 4, : u.shape[1] // 4 * 4, : u.shape[2] // 4 * 4]
    inside = torch.ones_like(u, dtype=torch.bool)
    if valid is not None:
        inside = valid[: u.shape[0], : u.shape[1], : u.shape[2]]
    x = u[None, None].float()
    first = haar_split(x)
    second = haar_split(first[:, :1])
    tissue = _tissue(first[:, :1] / 8**0.5, inside[None, None].float(), is_ct=is_ct)
    fine = _block_power(first, tissue, (1, 4, 4))
    coarse = _block_power(second, F.avg_pool3d(tissue, 2), (1, 3, 3))
    windows = _local_power(x, F.interpolate(tissue, scale_factor=2.0))
    rows = [*_grouped(fine, 0), *_grouped(coarse, 1), windows]
    quantiles = torch.tensor(_QUANTILES, device=u.device)
    columns = [0.5 * torch.log(torch.quantile(row, quantiles).clamp_min(_FLOOR)) for row in rows]
    return torch.cat(columns)[None]


def _tissue(low: Tensor, inside: Tensor, *, is_ct: bool) -> Tensor:
    """1 where a coarse voxel is valid soft tissue or signal, at half resolution."""
    tissue = (low > -0.8) & (low < 1.2) if is_ct else low > 0.8
    whole = F.avg_pool3d(inside, 2) > 0.999
    chosen = (tissue & whole).float()
    if float(chosen.sum()) < 0.004 * chosen.numel():
        chosen = whole.float()
    return chosen


def _block_power(bands: Tensor, tissue: Tensor, block: tuple[int, int, int]) -> Tensor:
    """Mean power of each band in each quiet-enough block: (8, blocks)."""
    size = [min(b, s) for b, s in zip(block, bands.shape[2:], strict=True)]
    share = F.avg_pool3d(tissue, size).flatten()
    power = F.avg_pool3d(bands.square(), size).flatten(2)[0]
    for needed in (0.99, 0.7, 0.3, -1.0):
        keep = share >= needed
        if int(keep.sum()) >= _FEW_BLOCKS:
            break
    chosen = power[:, keep]
    step = max(1, chosen.shape[1] // _MAX_BLOCKS)
    return chosen[:, ::step]


def _grouped(power: Tensor, level: int) -> Tensor:
    """Pool bands of one level into its colour groups, block by block: (groups, blocks)."""
    blank = torch.ones_like(power.T)
    pair = (power.T, blank) if level == 0 else (blank, power.T)
    columns = colour_groups(*pair)
    return columns[:, :5].T if level == 0 else columns[:, 5:].T


def _local_power(x: Tensor, tissue: Tensor) -> Tensor:
    """Unbiased in-plane variance of 8x8 windows inside tissue, after removing a plane's worth of trend."""
    size = (1, min(8, x.shape[3]), min(8, x.shape[4]))
    mean, square = F.avg_pool3d(x, size), F.avg_pool3d(x * x, size)
    count = size[1] * size[2]
    variance = ((square - mean * mean).clamp_min(0.0) * count / max(count - 1, 1)).flatten()
    share = F.avg_pool3d(tissue, size).flatten()
    for needed in (0.99, 0.7, 0.3, -1.0):
        keep = share >= needed
        if int(keep.sum()) >= _FEW_BLOCKS:
            break
    chosen = variance[keep]
    return chosen[:: max(1, chosen.shape[0] // _MAX_BLOCKS)]


def bounded_by(estimate: NoiseEstimate, measured: float) -> NoiseEstimate:
    """Return the estimate held within what block transforms measured (`engine.noise`), model units.

    Anatomy can only raise that measure, so it bounds the noise from above; on a crop full of edges it was up to
    1.9 times too high, so it bounds from below by half. Raises `OutOfRangeError` NOISE_UNCERTAIN when
    the two differ by more than a factor of three.
    """
    ratio = max(measured, estimate.sigma) / max(min(measured, estimate.sigma), 1e-6)
    if max(measured, estimate.sigma) > _NEGLIGIBLE and ratio > _DISAGREEMENT:
        raise OutOfRangeError(
            "NOISE_UNCERTAIN", f"the noise estimates disagree by a factor of {ratio:.1f}: nothing is changed"
        )
    sigma = min(max(estimate.sigma, 0.5 * measured), 1.15 * measured)
    return replace(estimate, sigma=sigma, spread=max(estimate.spread, ratio))


def estimate_noise(
    regressor: NoiseRegressor, u: Tensor, *, is_ct: bool, spacing: Tensor, valid: Tensor | None = None
) -> NoiseEstimate:
    """Return the fused estimate. `u`: (Z, Y, X) model units; `spacing`: (1, 2) of the condition.

    Raises `OutOfRangeError` NOISE_UNCERTAIN when the estimators contradict each other.
    """
    features = noise_features(u, is_ct=is_ct, valid=valid)
    with torch.no_grad():
        log_sigma, colour = regressor(features, torch.tensor([float(is_ct)], device=u.device), spacing)
    sigma = float(torch.exp(log_sigma))
    quantiles = features[0].reshape(-1, len(_QUANTILES)).exp()
    # The quietest blocks bound the noise from above only where anatomy fills the rest; the middle of the
    # windows bounds it from below. Soft kernels empty the fine bands, so a low reading contradicts nothing.
    subband, local = float(quantiles[:5, 0].square().mean().sqrt()), float(quantiles[-1, 2])
    spread = max(subband / sigma, sigma / max(local, 1e-6), 1.0)
    if sigma > 2e-3 and spread > SPREAD_LIMIT:
        raise OutOfRangeError(
            "NOISE_UNCERTAIN", f"the noise estimates disagree by a factor of {spread:.1f}: nothing is changed"
        )
    return NoiseEstimate(sigma, colour, subband, local, spread)
