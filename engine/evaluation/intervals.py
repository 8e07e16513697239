"""Intervals and tests over crops and volumes: what a difference between two methods is worth.

The unit is a crop of a scan, its noise draws averaged first, for draws of one crop are no new anatomy.
Intervals come from a two-stage percentile bootstrap: scans are drawn, then crops within each. With one scan
they speak of its crops alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Unit = tuple[str, int]
"""A scan and the number of a crop."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over units with its 95 % interval (equal ends for a single unit)."""

    mean: float
    low: float
    high: float
    units: int


@dataclass(frozen=True)
class Comparison:
    """Model minus peer at one level: mean with interval, the worst unit, Wilcoxon's p after Holm."""

    level: str
    peer: str
    metric: str
    difference: Estimate
    worst: float
    worst_unit: str
    p_holm: float


def bootstrap(values: Mapping[Unit, float], seed: int = 0) -> Estimate:
    """Return the mean over units and its 95 % interval (2000 resamples); not finite values are left out."""
    finite = {unit: v for unit, v in values.items() if math.isfinite(v)}
    if not finite:
        return Estimate(math.nan, math.nan, math.nan, 0)
    scans: dict[str, list[float]] = {}
    for (scan, _), value in finite.items():
        scans.setdefault(scan, []).append(value)
    mean = float(np.mean(list(finite.values())))
    if len(finite) == 1:
        return Estimate(mean, mean, mean, 1)
    groups = [np.asarray(v, dtype=np.float64) for v in scans.values()]
    rng = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        picked = rng.integers(0, len(groups), len(groups))
        drawn = [groups[g][rng.integers(0, groups[g].size, groups[g].size)] for g in picked]
        means[i] = np.concatenate(drawn).mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(mean, float(low), float(high), len(finite))


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 when all differences are zero."""
    data = np.asarray(differences, dtype=np.float64)
    data = data[np.isfinite(data) & (data != 0)]
    return float(stats.wilcoxon(data).pvalue) if data.size else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the given order."""
    count, running = len(p_values), 0.0
    corrected = [1.0] * count
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        running = max(running, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def compare_paired(
    metric: str,
    model: Mapping[str, Mapping[Unit, float]],
    peers: Mapping[str, Mapping[str, Mapping[Unit, float]]],
    *,
    higher_is_better: bool = True,
) -> list[Comparison]:
    """Compare the model with every peer at every level (level -> unit -> value); Holm over all rows."""
    rows, p_values = [], []
    for peer, levels in peers.items():
        for level, theirs in levels.items():
            ours = model.get(level, {})
            pairs = {u: ours[u] - theirs[u] for u in theirs if u in ours}
            pairs = {u: d for u, d in pairs.items() if math.isfinite(d)}
            if not pairs:
                continue
            unit = (
                min(pairs, key=pairs.__getitem__) if higher_is_better else max(pairs, key=pairs.__getitem__)
            )
            rows.append((level, peer, bootstrap(pairs), pairs[unit], f"{unit[0]} crop {unit[1]}"))
            p_values.append(wilcoxon_p(list(pairs.values())))
    return [
        Comparison(level, peer, metric, estimate, worst, name, p)
        for (level, peer, estimate, worst, name), p in zip(rows, holm(p_values), strict=True)
    ]
