"""Run the model and its peers on noisy cases and collect every number in one plain record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.errors import OutOfRangeError
from engine.evaluation import metrics
from engine.evaluation.cases import NoisyCase
from engine.evaluation.intervals import Unit
from engine.evaluation.machine import peak_memory
from engine.evaluation.metrics import Array
from engine.evaluation.peer_cache import run_peer
from engine.evaluation.peers import Peer
from engine.volume import Volume

Tell = Callable[[str], None]
Denoise = Callable[[Volume], Array]
MODEL, INPUT = "model", "input"


@dataclass(frozen=True)
class Score:
    """One method on one noisy crop. Ranges R as printed in the report; errors in the volume's unit.

    psnr_soft, psnr_lung   CT only, windowed
    snr_gain               over homogeneous regions, 0 is no gain
    nps_peak, nps_mean     frequency of the remaining noise over that of the input's
    residual_max           largest power of the removed over the noise's, any frequency
    residual_edges         correlation of |removed| with the gradient of the result, in the body
    cover68, cover95       share of body errors within 1 and 1.96 stated deviations (the model only)
    memory_bytes           growth of the process or device peak (the model only, None: not measured)
    """

    scan: str
    crop: int
    draw: int
    level: str
    method: str
    value_range: float
    rmse: float
    rmse_body: float
    psnr: float
    psnr_body: float
    psnr_soft: float
    psnr_lung: float
    ssim: float
    ssim_body: float
    hfen: float
    snr_gain: float
    slope: float
    nps_peak: float
    nps_mean: float
    residual_max: float
    residual_edges: float
    bias: dict[str, float]
    seconds: float
    voxels: int
    noise_true: float
    noise_estimated: float = math.nan
    cover68: float = math.nan
    cover95: float = math.nan
    memory_bytes: int | None = None
    cached: bool = False
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """The middle slice of one case by every method, and the noise spectra."""

    title: str
    is_ct: bool
    value_range: float
    slices: dict[str, Array]
    spectra: dict[str, list[float]]


def score(case: NoisyCase, method: str, result: Array, seconds: float) -> Score:
    """Measure one result."""
    r, truth, body = case.value_range, case.truth, case.body
    is_ct = case.level.is_ct
    windows = {
        name: metrics.windowed_psnr(result, truth, w) if is_ct else math.nan
        for name, w in metrics.WINDOWS_HU.items()
    }
    some = body if body.any() else None
    bias = metrics.tissue_bias(result, truth) if is_ct else metrics.signal_bias(result, truth, body)
    quiet = metrics.homogeneous(truth, body)
    nps_peak, nps_mean, residual_max = _spectral(case, result)
    return Score(
        scan=case.scan,
        crop=case.crop,
        draw=case.draw,
        level=case.level.label,
        method=method,
        value_range=r,
        rmse=metrics.rmse(result, truth),
        rmse_body=metrics.rmse(result, truth, some),
        psnr=metrics.psnr(result, truth, r),
        psnr_body=metrics.psnr(result, truth, r, some),
        psnr_soft=windows["soft"],
        psnr_lung=windows["lung"],
        ssim=metrics.ssim(result, truth, r),
        ssim_body=metrics.ssim(result, truth, r, some),
        hfen=metrics.hfen(result, truth, some),
        snr_gain=metrics.snr_gain(case.noisy.array, result, truth, quiet),
        slope=metrics.slope(result, truth, body),
        bias=bias,
        seconds=seconds,
        voxels=truth.size,
        noise_true=case.sigma,
        nps_peak=nps_peak,
        nps_mean=nps_mean,
        residual_max=residual_max,
        residual_edges=metrics.residual_edge_correlation(case.noisy.array - result, result, body),
    )


def _spectral(case: NoisyCase, result: Array) -> tuple[float, float, float]:
    """Return nps_peak, nps_mean and residual_max, which need whole 64x64 tiles; NaN on smaller slices."""
    if min(case.truth.shape[1:]) < metrics.TILE:
        return math.nan, math.nan, math.nan
    noise = case.noisy.array - case.truth
    peak_in, mean_in = metrics.spectrum_frequencies(metrics.noise_spectrum(noise))
    peak, mean = metrics.spectrum_frequencies(metrics.noise_spectrum(result - case.truth))
    # The lowest bins hold too few coefficients for a ratio.
    worst = float(metrics.residual_ratio(case.noisy.array - result, noise)[2:].max())
    return peak / peak_in, mean / mean_in, worst


def compare(
    cases: Iterable[NoisyCase],
    enhancer: DiffusionEnhancer,
    options: EnhanceOptions,
    peers: dict[str, Peer],
    *,
    tell: Tell,
    cache: Path | None = None,
) -> tuple[list[Score], list[Picture]]:
    """Score input, model and peers on every case; a refused scan scores as returned unchanged.

    Pictures are taken of the first crop and draw of every level.
    """
    scores, pictures = [], []
    for case in cases:
        results = {INPUT: case.noisy.array}
        rows = [score(case, INPUT, case.noisy.array, 0.0)]
        results[MODEL], row = _run_model(case, enhancer, options)
        rows.append(row)
        for name, peer in peers.items():
            if peer.takes(case):
                kept = run_peer(name, peer, case, cache)
                results[name] = kept.array
                rows.append(replace(score(case, name, kept.array, kept.seconds), cached=kept.cached))
        if case.crop == 0 and case.draw == 0:
            pictures.append(_picture(case, results))
        tell(f"{case.name}: " + ", ".join(f"{s.method} {s.psnr_body:.2f}" for s in rows))
        scores += rows
    return scores, pictures


def _run_model(case: NoisyCase, enhancer: DiffusionEnhancer, options: EnhanceOptions) -> tuple[Array, Score]:
    """Run the model blind: it is not told the noise."""
    start = time.perf_counter()
    try:
        with peak_memory(on_cuda=torch.cuda.is_available()) as peak:
            out = enhancer.enhance(case.noisy, options=options)
    except OutOfRangeError as refusal:
        row = score(case, MODEL, case.noisy.array, time.perf_counter() - start)
        return case.noisy.array, replace(row, facts={"refused": refusal.reason})
    result = out.volume.array
    row = replace(
        score(case, MODEL, result, out.report.seconds),
        noise_estimated=out.report.noise_before,
        memory_bytes=peak[0] if peak else None,
        facts=dict(out.report.parameters),
    )
    if out.uncertainty is None:
        return result, row
    error = result - case.truth
    covers = [metrics.coverage(error, out.uncertainty, case.body, w) for w in (1.0, 1.96)]
    return result, replace(row, cover68=covers[0], cover95=covers[1])


def _picture(case: NoisyCase, results: dict[str, Array]) -> Picture:
    """Middle slices, and spectra of what each method left."""
    middle = case.truth.shape[0] // 2
    slices = {"truth": case.truth[middle]} | {name: array[middle] for name, array in results.items()}
    spectra = {}
    if min(case.truth.shape[1:]) >= metrics.TILE:
        spectra = {name: metrics.noise_spectrum(a - case.truth).tolist() for name, a in results.items()}
    title = f"{case.scan} crop {case.crop}, {case.level.label}"
    return Picture(title, case.level.is_ct, case.value_range, slices, spectra)


def by_unit(scores: Sequence[Score], metric: str, method: str) -> dict[str, dict[Unit, float]]:
    """Return level -> crop -> the metric's mean over the crop's draws; values that are not finite drop out."""
    gathered: dict[str, dict[Unit, list[float]]] = {}
    for s in scores:
        value = float(getattr(s, metric))
        if s.method == method and math.isfinite(value):
            gathered.setdefault(s.level, {}).setdefault((s.scan, s.crop), []).append(value)
    return {level: {u: float(np.mean(v)) for u, v in units.items()} for level, units in gathered.items()}


def as_denoiser(enhancer: DiffusionEnhancer, options: EnhanceOptions) -> Denoise:
    """Return the model as a plain function; a refused scan comes back unchanged."""

    def denoise(volume: Volume) -> Array:
        try:
            return enhancer.enhance(volume, options=options).volume.array
        except OutOfRangeError:
            return volume.array

    return denoise


def to_json(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Return the scores as plain values; what is not a finite number becomes null."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(s).items()}
        for s in scores
    ]
