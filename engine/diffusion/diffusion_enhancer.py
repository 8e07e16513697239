"""The enhancer around a model bundle: normalise, estimate the noise, descend, guard, restore units."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.bundle import ModelBundle
from engine.device import ComputeDevice, choose_device, trusted_precision
from engine.diffusion import fused
from engine.diffusion.conditioning import Condition
from engine.diffusion.guards import (
    bound_residual,
    grain_share,
    keep_low_frequencies,
    near_clean_share,
    rician_bias,
)
from engine.diffusion.intensity import ModelUnits, model_units
from engine.diffusion.network import as_channels_last
from engine.diffusion.noise_reader import NoiseReading, read_noise, refined
from engine.diffusion.noise_schedule import descending_sigmas, nearest_timestep, time_of_sigma
from engine.diffusion.options import DiffusionOptions, read_options
from engine.diffusion.pilot import pilot_of_volume
from engine.diffusion.preconditioning import Denoiser, preconditioning
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
from engine.noise import measure_noise, on_device
from engine.safety import settle_tensor
from engine.simulation.randomness import Draw
from engine.transfer import to_array
from engine.volume import IntensityUnit, Volume

_NOISELESS = 0.002
"""Model units (0.5 HU): below this there is nothing to remove."""
_TOO_NOISY = 1.2
"""Model units (300 HU): beyond the training range."""
_CT_PADDING_FILL = -4.0
_VOLUMES_KEPT = 8
"""fp32 volumes that one run holds at most beside the tiles."""
_PROBE_SHAPE = (1, 1, 16, 32, 32)


@dataclass(frozen=True)
class DenoisedVolume:
    """One run in model units, (Z, Y, X): the result and its predicted error (standard deviation)."""

    array: Tensor
    deviation: Tensor
    reading: NoiseReading
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
        self._network, self._reader = network, bundle.reader
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
        home = self._home(volume.array.size)
        scan, valid = on_device(volume, home)
        measured = measure_noise(scan, valid, volume.unit, volume.spacing_mm)
        reading = self._read(volume, units, measured)
        read = refined(measured, reading, units.scale)
        y = self._model_state(scan, valid, units, volume.unit)
        run = self.run(volume, y, read, reading, options, progress=progress, cancel=cancel or CancelToken())
        # The limits use the local noise, at the lower of the two levels: the guards go by the measured one alone.
        limits = min(measured, read, key=lambda noise: noise.sigma)
        settled = settle_tensor(scan, valid, run.array * units.scale, limits)
        left = measure_noise(settled, valid, volume.unit, volume.spacing_mm, evidence=False).sigma
        share = min(left / measured.sigma, 1.0) if measured.sigma > 0 else 1.0
        array = to_array(settled)
        if volume.valid is not None:
            np.copyto(array, volume.array, where=~volume.valid)
        report = EnhancementReport(
            noise_before=reading.sigma * units.scale,
            noise_after=reading.sigma * units.scale * share,
            parameters=run.facts,
            seconds=time.perf_counter() - start,
        )
        deviation = run.deviation * units.scale
        if valid is not None:
            deviation = torch.where(valid, deviation, torch.zeros((), device=home))
        return EnhancementResult(volume.with_array(array), report, to_array(deviation))

    def _home(self, voxels: int) -> torch.device:
        """Where the volume's own tensors live: on the GPU when a third of its free memory holds them."""
        needed = voxels * 4 * _VOLUMES_KEPT
        on_gpu = self._compute.device.type == "cuda" and 3 * needed < self._compute.memory_bytes
        return self._compute.device if on_gpu else torch.device("cpu")

    def _beside(self, y: Tensor) -> ComputeDevice:
        """The device with the memory that the volume's own tensors leave for tiles."""
        if y.device.type == "cpu":
            return self._compute
        left = self._compute.memory_bytes - y.numel() * 4 * _VOLUMES_KEPT
        return replace(self._compute, memory_bytes=left)

    @torch.no_grad()
    def run(
        self,
        volume: Volume,
        y: Tensor,
        measured: MeasuredNoise,
        reading: NoiseReading,
        options: EnhanceOptions,
        *,
        progress: Progress,
        cancel: CancelToken,
    ) -> DenoisedVolume:
        """Do everything in model units; `y`: the scan (Z, Y, X), wherever it lives."""
        chosen = read_options(options)
        cancel.raise_if_cancelled()
        is_ct = volume.unit is IntensityUnit.HU
        facts = self._facts(chosen, reading)
        if reading.sigma < _NOISELESS or options.strength == 0:
            return DenoisedVolume(y, torch.zeros_like(y), reading, facts | {"untouched": True})
        if reading.sigma > _TOO_NOISY:
            raise OutOfRangeError("NOISE_TOO_HIGH", "the noise is beyond what the model was trained on")
        condition = Condition(
            noise=torch.tensor([reading.sigma]),
            colour=reading.colour,
            is_ct=torch.tensor([float(is_ct)]),
            spacing=_spacing(volume),
        )
        denoise = VolumeDenoiser(
            self._denoiser,
            self._beside(y),
            self._pilot(y, measured, reading, progress, cancel),
            condition,
            progress=progress,
            cancel=cancel,
            expected=chosen.steps_total,
        )
        mean, deviation = _descend(denoise, y, reading.sigma, chosen, options.seed)
        residual, saturated = bound_residual(y - mean, reading.sigma)
        bias = None if is_ct else rician_bias(mean, reading.sigma)
        residual, taken_back = keep_low_frequencies(residual, reading.sigma, reading.colour, bias)
        strength = options.strength * near_clean_share(reading.sigma)
        if is_ct:
            strength *= grain_share(reading.sigma)
        result = blend_strength(y - residual, y, strength)
        facts |= {
            "evaluations": denoise.evaluations,
            "tile": "x".join(str(n) for n in denoise.tile),
            "residual_saturated": round(saturated, 6),
            "low_frequency_kept": round(taken_back, 6),
            "strength": round(strength, 4),
        }
        progress(1.0, "done")
        return DenoisedVolume(result, deviation, reading, facts)

    def _read(self, volume: Volume, units: ModelUnits, measured: MeasuredNoise) -> NoiseReading:
        """What the model is told of the noise."""
        is_ct = volume.unit is IntensityUnit.HU
        return read_noise(self._reader, measured, units.scale, is_ct=is_ct, spacing=_spacing(volume))

    @staticmethod
    def _model_state(scan: Tensor, valid: Tensor | None, units: ModelUnits, unit: IntensityUnit) -> Tensor:
        """The scan in model units, padding replaced by air."""
        y = scan / units.scale
        if valid is None or unit is not IntensityUnit.HU:
            return y
        return torch.where(valid, y, torch.full((), _CT_PADDING_FILL, device=y.device))

    def _pilot(
        self,
        y: Tensor,
        measured: MeasuredNoise,
        reading: NoiseReading,
        progress: Progress,
        cancel: CancelToken,
    ) -> Tensor:
        """The pilot (Z, Y, X) in model units, from the spectrum as read and the level as measured."""
        padded = pad_to_stride(y)

        def level(first: int, last: int) -> Tensor:
            return measured.local_deviation(tuple(padded.shape), first, last, y.device) / measured.sigma

        def before_slab(fraction: float) -> None:
            cancel.raise_if_cancelled()
            progress(0.02 + 0.13 * fraction, "first estimate")

        whole = pilot_of_volume(
            padded, reading.spectrum[None], level, self._compute.device, before_slab=before_slab
        )
        return whole[: y.shape[0], : y.shape[1], : y.shape[2]]

    def _facts(self, chosen: DiffusionOptions, reading: NoiseReading) -> dict[str, str | int | float | bool]:
        """What the report says of every run."""
        facts: dict[str, str | int | float | bool] = {
            "model": self._bundle.model_id,
            "digest": self._bundle.digest,
            "mode": chosen.mode,
            "steps": chosen.steps,
            "repeats": chosen.repeats,
            "timestep": nearest_timestep(reading.sigma),
            "time": round(time_of_sigma(reading.sigma), 3),
            "device": self._compute.label,
            "self_test_rms": round(self._self_test, 5),
            "noise_spread": round(reading.spread, 3),
        }
        weight = self._network.stem.weight
        if weight.is_cuda:
            facts["kernels"] = "fused" if fused.usable(weight) else "separate"
        return facts

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
            mean = Denoiser(self._network, dtype)(tile, tile, condition.noise, condition).mean
            c_skip, c_out, _ = preconditioning(condition.noise)
            return (mean - c_skip * tile) / c_out

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
    draw = Draw(seed, y.device)

    def normal(like: Tensor) -> Tensor:
        return draw.normal(tuple(like.shape))

    mean, spread = sample_average(denoise, y, sigmas, normal, chosen.repeats)
    return mean, spread if chosen.repeats > 1 else denoise.first_deviation
