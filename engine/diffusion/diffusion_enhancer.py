"""The enhancer around a model bundle: normalise, estimate the noise, descend, guard, restore units."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.bundle import ModelBundle
from engine.device import ComputeDevice, choose_device, trusted_precision
from engine.diffusion.conditioning import Condition
from engine.diffusion.guards import bound_residual, keep_low_frequencies, near_clean_share, rician_bias
from engine.diffusion.intensity import ModelUnits, model_units
from engine.diffusion.network import as_channels_last
from engine.diffusion.noise_estimate import NoiseEstimate, bounded_by, estimate_noise
from engine.diffusion.noise_schedule import descending_sigmas, nearest_timestep, time_of_sigma
from engine.diffusion.options import DiffusionOptions, read_options
from engine.diffusion.pilot import pilot_of_volume
from engine.diffusion.preconditioning import Denoiser
from engine.diffusion.samplers import blend_strength, refine, sample_average
from engine.diffusion.volume_denoiser import VolumeDenoiser, pad_to_stride, peak_bytes
from engine.enhancer import (
    CancelToken,
    EnhancementReport,
    EnhancementResult,
    EnhanceOptions,
    EnhancerIdentity,
    Progress,
    no_progress,
)
from engine.errors import OutOfRangeError
from engine.noise import NoiseEstimate as MeasuredNoise
from engine.noise import estimate_noise as measure_noise
from engine.safety import settle
from engine.volume import IntensityUnit, Volume

_NOISELESS = 0.002
"""Model units (0.5 HU): below this there is nothing to remove."""
_TOO_NOISY = 1.2
"""Model units (300 HU): beyond the training range."""
_CT_PADDING_FILL = -4.0
_PROBE_SHAPE = (1, 1, 16, 32, 32)


@dataclass(frozen=True)
class DenoisedVolume:
    """One run in model units, (Z, Y, X): the result and its predicted error (standard deviation)."""

    array: Tensor
    deviation: Tensor
    estimate: NoiseEstimate
    facts: dict[str, str | int | float | bool]


class DiffusionEnhancer:
    """Removes noise with a diffusion model; satisfies `engine.enhancer.Enhancer`.

    Options beyond strength and seed (`EnhanceOptions.extra`): ``mode`` (mean, refine, sample), ``steps``,
    ``repeats``. `mean` and `refine` draw no random numbers; `sample` draws from the seed, so every mode
    gives the same bits for the same input, options, device and library versions.
    """

    def __init__(self, bundle: ModelBundle, compute: ComputeDevice | None = None) -> None:
        chosen = compute or choose_device()
        self._bundle = bundle
        network = as_channels_last(bundle.network.to(chosen.device))
        self._network, self._regressor = network, bundle.regressor
        self._compute, self._self_test = trusted_precision(chosen, self._probe(chosen.device))
        self._denoiser = Denoiser(network, self._compute.precision)

    @property
    def identity(self) -> EnhancerIdentity:
        """Who this is, for provenance."""
        bundle = self._bundle
        return EnhancerIdentity(
            bundle.model_id, bundle.version, bundle.digest, "3D diffusion noise reduction"
        )

    def memory_bytes(self, shape: tuple[int, int, int]) -> int:
        """Return the estimated peak memory of one run on a volume of `shape`."""
        return peak_bytes(self._network.shape, shape, self._compute)

    def enhance(
        self,
        volume: Volume,
        *,
        options: EnhanceOptions,
        progress: Progress = no_progress,
        cancel: CancelToken | None = None,
    ) -> EnhancementResult:
        """Return the enhanced volume and the report of the run.

        Raises `OutOfRangeError` (NOISE_UNCERTAIN, NOISE_TOO_HIGH) when nothing should be changed,
        `EngineInputError` for unknown options, `EnhancementCancelledError` when asked to stop.
        """
        start = time.perf_counter()
        units = model_units(volume.array, volume.unit, volume.valid)
        progress(0.0, "measuring noise")
        measured = measure_noise(volume)
        run = self.run(volume, units, measured, options, progress=progress, cancel=cancel or CancelToken())
        # The limits use the noise as measured from place to place: where the scan is quiet, little may change.
        array = settle(volume, units.to_array(run.array.numpy()), measured)
        result = volume.with_array(array)
        left = measure_noise(result).sigma / measured.sigma if measured.sigma > 0 else 1.0
        report = EnhancementReport(
            noise_before=run.estimate.sigma * units.scale,
            noise_after=run.estimate.sigma * units.scale * min(left, 1.0),
            parameters=run.facts,
            seconds=time.perf_counter() - start,
        )
        uncertainty = run.deviation.numpy().astype(np.float32) * np.float32(units.scale)
        if volume.valid is not None:
            uncertainty = np.where(volume.valid, uncertainty, np.float32(0.0))
        return EnhancementResult(result, report, uncertainty)

    @torch.no_grad()
    def run(
        self,
        volume: Volume,
        units: ModelUnits,
        measured: MeasuredNoise,
        options: EnhanceOptions,
        *,
        progress: Progress,
        cancel: CancelToken,
    ) -> DenoisedVolume:
        """Do everything in model units."""
        chosen = read_options(options)
        cancel.raise_if_cancelled()
        y, spacing = self._model_array(volume, units), _spacing(volume)
        valid = None if volume.valid is None else torch.from_numpy(volume.valid)
        is_ct = volume.unit is IntensityUnit.HU
        estimate = estimate_noise(self._regressor, y, is_ct=is_ct, spacing=spacing, valid=valid)
        estimate = bounded_by(estimate, measured.sigma / units.scale)
        facts = self._facts(chosen, estimate)
        if estimate.sigma < _NOISELESS or options.strength == 0:
            return DenoisedVolume(y, torch.zeros_like(y), estimate, facts | {"untouched": True})
        if estimate.sigma > _TOO_NOISY:
            raise OutOfRangeError("NOISE_TOO_HIGH", "the noise is beyond what the model was trained on")
        condition = Condition(
            noise=torch.tensor([estimate.sigma]),
            colour=estimate.colour,
            is_ct=torch.tensor([float(is_ct)]),
            spacing=spacing,
        )
        denoise = VolumeDenoiser(
            self._denoiser,
            self._compute,
            self._pilot(y, measured, estimate.sigma, progress, cancel),
            condition,
            progress=progress,
            cancel=cancel,
            expected=chosen.steps_total,
        )
        mean, deviation = _descend(denoise, y, estimate.sigma, chosen, options.seed)
        residual, saturated = bound_residual(y - mean, estimate.sigma)
        bias = None if is_ct else rician_bias(mean, estimate.sigma)
        residual, taken_back = keep_low_frequencies(residual, estimate.sigma, estimate.colour, bias)
        strength = options.strength * near_clean_share(estimate.sigma)
        result = blend_strength(y - residual, y, strength)
        facts |= {
            "evaluations": denoise.evaluations,
            "tile": "x".join(str(n) for n in denoise.tile),
            "residual_saturated": round(saturated, 6),
            "low_frequency_kept": round(taken_back, 6),
            "strength": round(strength, 4),
        }
        progress(1.0, "done")
        return DenoisedVolume(result, deviation, estimate, facts)

    def _model_array(self, volume: Volume, units: ModelUnits) -> Tensor:
        """The volume in model units, padding replaced by air."""
        model = units.to_model(volume.array)
        if volume.valid is not None:
            fill = _CT_PADDING_FILL if volume.unit is IntensityUnit.HU else 0.0
            model = np.where(volume.valid, model, np.float32(fill))
        return torch.from_numpy(np.ascontiguousarray(model))

    def _pilot(
        self, y: Tensor, measured: MeasuredNoise, sigma: float, progress: Progress, cancel: CancelToken
    ) -> Tensor:
        """The pilot (Z, Y, X) in model units: the measured colour and local level, at the noise `sigma`."""
        power = float(measured.spectrum.mean())
        if power <= 0:
            return y
        spectrum = torch.from_numpy(measured.spectrum)[None] * (sigma**2 / power)
        padded = pad_to_stride(y)

        def level(first: int, last: int) -> Tensor:
            local = measured.local_sigma(tuple(padded.shape), first, last) / np.float32(measured.sigma)
            return torch.from_numpy(local)

        def before_slab(fraction: float) -> None:
            cancel.raise_if_cancelled()
            progress(0.02 + 0.13 * fraction, "first estimate")

        whole = pilot_of_volume(padded, spectrum, level, self._compute.device, before_slab=before_slab)
        return whole[: y.shape[0], : y.shape[1], : y.shape[2]]

    def _facts(
        self, chosen: DiffusionOptions, estimate: NoiseEstimate
    ) -> dict[str, str | int | float | bool]:
        """What the report says of every run."""
        return {
            "model": self._bundle.model_id,
            "digest": self._bundle.digest,
            "mode": chosen.mode,
            "steps": chosen.steps,
            "repeats": chosen.repeats,
            "timestep": nearest_timestep(estimate.sigma),
            "time": round(time_of_sigma(estimate.sigma), 3),
            "device": self._compute.label,
            "self_test_rms": round(self._self_test, 5),
            "noise_spread": round(estimate.spread, 3),
        }

    def _probe(self, device: torch.device):  # type: ignore[no-untyped-def]
        """Return the function of the start-up self-test: F of one fixed tile, which is in noise units."""
        generator = torch.Generator().manual_seed(0)
        ramp = torch.linspace(-2.0, 2.0, _PROBE_SHAPE[-1]).expand(_PROBE_SHAPE)
        tile = (ramp + 0.1 * torch.randn(_PROBE_SHAPE, generator=generator)).to(device)
        condition = Condition(
            noise=torch.tensor([0.1], device=device),
            colour=torch.zeros(1, 8, device=device),
            is_ct=torch.ones(1, device=device),
            spacing=torch.zeros(1, 2, device=device),
        )

        @torch.no_grad()
        def evaluate(dtype: torch.dtype) -> Tensor:
            return Denoiser(self._network, dtype).raw(tile, tile, condition.noise, condition)[0]

        return evaluate


def _spacing(volume: Volume) -> Tensor:
    """The spacing entries of the condition, (1, 2)."""
    slice_mm, row_mm, column_mm = volume.spacing_mm
    return torch.tensor([[math.log(slice_mm / row_mm), math.log((slice_mm * row_mm * column_mm) ** (1 / 3))]])


def _descend(
    denoise: VolumeDenoiser, y: Tensor, sigma: float, chosen: DiffusionOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """Run the chosen mode; return the result and its deviation."""
    if chosen.mode == "mean":
        mean = denoise(y, sigma)
        return mean, denoise.deviation
    sigmas = descending_sigmas(sigma, chosen.steps)
    if chosen.mode == "refine":
        mean = refine(denoise, y, sigmas)
        return mean, denoise.first_deviation
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    mean, spread = sample_average(denoise, y, sigmas, normal, chosen.repeats)
    return mean, spread if chosen.repeats > 1 else denoise.first_deviation
