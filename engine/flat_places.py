"""Two estimates of noise from the calm places of slices: Haar sub-bands, and the most frequent local deviation.

Choosing the calmest of noisy values would bias an estimate low, so calm is judged by the ring around a place, never by
the values that are then measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.filters import box_mean, box_minimum

_NORMAL_MEDIAN = 0.6745
_CALM_SHARE = 0.2
"""Share of the places, the calmest, that are measured."""
FEWEST_PLACES = 100


def calmest(scores: Tensor, *, share: float, fewest: int = FEWEST_PLACES) -> Tensor:
    """Mark the `share` of places (N,) with the lowest score, but not fewer than a minimum."""
    wanted = min(scores.numel(), max(fewest, int(share * scores.numel())))
    return scores <= scores.kthvalue(wanted).values


def quantiles(values: Tensor, shares: Sequence[float]) -> list[NDArray[np.float32]]:
    """Return the quantiles of every column of (N, B), interpolated linearly between two ranks as numpy does."""
    places = [share * (len(values) - 1) for share in shares]
    ranks = sorted({min(int(at) + more, len(values) - 1) for at in places for more in (0, 1)})
    if values.is_cuda:
        found = values.sort(dim=0).values[ranks].cpu().numpy()
    else:  # where a whole sort takes longer
        found = np.partition(np.ascontiguousarray(values.numpy().T), ranks, axis=1)[:, ranks].T
    row = {rank: found[number] for number, rank in enumerate(ranks)}
    pairs = [(row[int(at)], row[min(int(at) + 1, len(values) - 1)], np.float32(at % 1)) for at in places]
    return [low + (high - low) * part for low, high, part in pairs]


def haar_sigma(scan: Tensor, tissue: Tensor) -> float:
    """Total sd from the sub-band medians of a 2D Haar pyramid; level 3 stands for what lies below it.

    scan, tissue: (Z, Y, X).
    """
    total, previous, share = 0.0, math.inf, 1.0
    for step in range(3):
        details, scan, tissue = _haar_step(scan, tissue)
        if not bool(tissue.any()):
            break
        variance = _band_variance(details, tissue)
        if step == 2:
            variance = min(variance, previous)
        share /= 4
        total += 3 * share * variance
        previous = variance
    return math.sqrt(total + share * previous) if math.isfinite(previous) else 0.0


def local_sd_mode(scan: Tensor, tissue: Tensor) -> float:
    """Most frequent sd of 9 x 9 windows that lie in tissue, from a smoothed histogram of its logarithm.

    scan, tissue: (Z, Y, X). The global noise index of CT.
    """
    centred = scan - scan[tissue].double().mean().float()
    inside = box_minimum(tissue, 17)
    chosen = _calmest_within(inside if bool(inside.any()) else tissue, _window_variance(centred, 17))
    variance = _window_variance(centred, 9)[chosen]
    variance = variance[variance > 1e-6]
    if variance.numel() == 0:
        return 0.0
    edges, step = -7.0, 0.02
    counts = torch.histc(0.5 * variance.log(), bins=800, min=edges, max=edges + 800 * step)
    width = torch.arange(-16, 17, device=scan.device) / 4.0
    kernel = torch.exp(-0.5 * width.square())
    smooth = torch.nn.functional.conv1d(counts[None, None], kernel[None, None], padding=16)[0, 0]
    return math.exp(edges + (int(smooth.argmax()) + 0.5) * step)


def _calmest_within(places: Tensor, score: Tensor) -> Tensor:
    """Mark the places with the lowest score."""
    values = score[places]
    wanted = min(values.numel(), max(FEWEST_PLACES, int(_CALM_SHARE * values.numel())))
    return places & (score <= values.kthvalue(wanted).values)


def _haar_step(scan: Tensor, tissue: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Split slices into three orthonormal detail bands and an approximation of half the size."""
    rows, columns = scan.shape[1] // 2 * 2, scan.shape[2] // 2 * 2
    a, b, c, d = (scan[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1))
    inside = [tissue[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    details = [(a - b + c - d) * 0.5, (a + b - c - d) * 0.5, (a - b - c + d) * 0.5]
    return details, (a + b + c + d) * 0.5, inside[0] & inside[1] & inside[2] & inside[3]


def _band_variance(details: list[Tensor], tissue: Tensor) -> float:
    """Mean variance of three detail bands, from medians where the ring around a place is calm."""
    energy = (details[0].square() + details[1].square() + details[2].square()) * tissue
    ring = box_mean(energy, 5) * 25 - box_mean(energy, 3) * 9
    whole = box_minimum(tissue, 5)
    chosen = _calmest_within(whole if bool(whole.any()) else tissue, ring)
    medians = [float(detail[chosen].abs().median()) / _NORMAL_MEDIAN for detail in details]
    return sum(m * m for m in medians) / 3


def _window_variance(scan: Tensor, side: int) -> Tensor:
    """Unbiased variance of the square window around each voxel of a slice."""
    mean, square = box_mean(scan, side), box_mean(scan.square(), side)
    return (square - mean.square()) * (side**2 / (side**2 - 1))
