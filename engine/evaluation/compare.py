"""Run the model and its peers on noisy cases and collect every number in one plain record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.errors import OutOfRangeError
from engine.evaluation import metrics
from engine.evaluation.cases import NoisyCase
from engine.evaluation.metrics import Array
from engine.evaluation.peers import Peer
from engine.volume import Volume

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """One method on one case. PSNR and SSIM over the whole volume with the printed range R."""

    scan: str
    level: str
    method: str
    value_range: float
    rmse: float
    psnr: float
    ssim: float
    psnr_body: float
    hfen: float
    snr_gain: float
    bias: dict[str, float]
    seconds: float
    noise_true: float
    noise_estimated: float | None = None
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
    r = case.value_range
    bias = metrics.tissue_bias(result, case.truth) if case.level.is_ct else {}
    return Score(
        scan=case.scan,
        level=case.level.label,
        method=method,
        value_range=r,
        rmse=metrics.rmse(result, case.truth),
        psnr=metrics.psnr(result, case.truth, r),
        ssim=metrics.ssim(result, case.truth, r),
        psnr_body=metrics.psnr(result, case.truth, r, case.body),
        hfen=metrics.hfen(result, case.truth, case.body),
        snr_gain=metrics.snr_gain(case.noisy.array, result, case.truth, case.body),
        bias=bias,
        seconds=seconds,
        noise_true=case.sigma,
    )


def compare(
    cases: Iterable[NoisyCase],
    enhancer: DiffusionEnhancer,
    options: EnhanceOptions,
    peers: dict[str, Peer],
    tell: Tell,
) -> tuple[list[Score], list[Picture]]:
    """Score input, model and peers on every case; a refused scan scores as returned unchanged."""
    scores, pictures = [], []
    for case in cases:
        results = {"input": case.noisy.array}
        scores.append(score(case, "input", case.noisy.array, 0.0))
        result, row = _run_model(case, enhancer, options)
        results["model"] = result
        scores.append(row)
        for name, peer in peers.items():
            start = time.perf_counter()
            results[name] = peer(case)
            scores.append(score(case, name, results[name], time.perf_counter() - start))
        pictures.append(_picture(case, results))
        tell(_line(scores, case))
    return scores, pictures


def _run_model(case: NoisyCase, enhancer: DiffusionEnhancer, options: EnhanceOptions) -> tuple[Array, Score]:
    """Run the model blind: it is not told the noise."""
    start = time.perf_counter()
    try:
        out = enhancer.enhance(case.noisy, options=options)
    except OutOfRangeError as refusal:
        row = score(case, "model", case.noisy.array, time.perf_counter() - start)
        return case.noisy.array, replace(row, facts={"refused": refusal.reason})
    row = score(case, "model", out.volume.array, out.report.seconds)
    facts = dict(out.report.parameters)
    return out.volume.array, replace(row, noise_estimated=out.report.noise_before, facts=facts)


def _picture(case: NoisyCase, results: dict[str, Array]) -> Picture:
    """Middle slices and spectra of what each method left or removed."""
    middle = case.truth.shape[0] // 2
    slices = {"truth": case.truth[middle]} | {name: array[middle] for name, array in results.items()}
    spectra = {}
    if min(case.truth.shape[1:]) >= 64:
        spectra = {name: metrics.noise_spectrum(a - case.truth).tolist() for name, a in results.items()}
    return Picture(f"{case.scan}, {case.level.label}", case.level.is_ct, case.value_range, slices, spectra)


def _line(scores: list[Score], case: NoisyCase) -> str:
    """One line of progress: PSNR of every method on the case."""
    rows = [s for s in scores if s.scan == case.scan and s.level == case.level.label]
    return f"{case.scan} {case.level.label}: " + ", ".join(f"{s.method} {s.psnr:.2f}" for s in rows)


def bootstrap_interval(values: list[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean over volumes (percentile bootstrap, 2000 draws)."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return float(data[0]), float(data[0])
    rng = np.random.default_rng(seed)
    means = data[rng.integers(0, len(data), (2000, len(data)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def steps_table(
    case: NoisyCase, enhancer: DiffusionEnhancer, plans: tuple[dict[str, str | int], ...]
) -> list[dict[str, str | int | float]]:
    """Return PSNR and seconds of every sampling plan on one case."""
    rows: list[dict[str, str | int | float]] = []
    for plan in plans:
        out = enhancer.enhance(case.noisy, options=EnhanceOptions(strength=1.0, extra=plan))
        value = metrics.psnr(out.volume.array, case.truth, case.value_range)
        rows.append({**plan, "psnr": value, "seconds": out.report.seconds})
    return rows


def as_denoiser(enhancer: DiffusionEnhancer, options: EnhanceOptions) -> Callable[[Volume], Array]:
    """Return the model as a plain function; a refused scan comes back unchanged."""

    def denoise(volume: Volume) -> Array:
        try:
            return enhancer.enhance(volume, options=options).volume.array
        except OutOfRangeError:
            return volume.array

    return denoise


def to_json(scores: list[Score]) -> list[dict[str, object]]:
    """Return the scores as plain values."""
    return [asdict(s) for s in scores]
