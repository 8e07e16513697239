"""How strong the noise of a volume is, how it is coloured and how it varies from place to place.

Nothing is known but the scan itself, so estimators that fail in different ways are asked:

``dct_bands``      sub-band median of a 3D block cosine transform, 4 x 8 x 8 voxels, 255 bands
``haar_bands``     sub-band median of a 2D Haar pyramid, three levels of three orientations
``local_sd_mode``  the most frequent local standard deviation, the global noise index of CT (CT only:
                   the fine anatomy of MR leaves too few flat windows for a mode)

They look at tissue only, where it is flat. Choosing the calmest of noisy values would bias an estimate low,
so flatness is never judged by the values that are then measured: the even bands of a block choose for the odd
ones and the odd for the even. Under stationary noise of any colour the two are exactly uncorrelated, for
the even and odd basis functions of the transform decouple in a symmetric covariance. A single finest-band
estimate is not used, since a soft CT kernel leaves the finest band empty.

What anatomy adds can only raise an estimate, and it adds most at low frequencies. Scanner noise does not
rise there (the reconstruction of CT takes it away, that of MR leaves it white), so the bands below 0.3 of
the highest in-plane frequency are held to the power of those above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from engine.blocks import BLOCK, BlockTensors, band_indices, interpolate_nodes, node_weights
from engine.filters import box_mean, gaussian_blur, local_rank
from engine.flat_places import FEWEST_PLACES, calmest, haar_sigma, local_sd_mode, quantiles
from engine.transfer import to_device
from engine.volume import IntensityUnit, Volume

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

NO_TISSUE = "no tissue to measure the noise on: nothing is changed"
"""What is said of a volume whose `NoiseEstimate.evidence` is None."""
_NORMAL_MEDIAN = 0.6745
"""Median of |x| of a standard normal x."""
_FLAT_SHARE = 0.05
"""Share of the tissue blocks, the flattest, that the spectrum is measured on."""
_EVIDENCE_SHARES = (0.02, 0.08, 0.3)
_FEWEST_FLAT = (24, 60, 100)
_EVIDENCE_QUANTILES = {0.1: 0.12566, 0.3: 0.38532}
"""Shares of all blocks, and where that share of |x| of a standard normal x lies below."""
EVIDENCE_ROWS = len(_EVIDENCE_SHARES) + len(_EVIDENCE_QUANTILES)
_TISSUE_SHARES = (0.999, 0.7, 0.3)
"""Blocks count as tissue when this share of them is: a lower one only where too few reach the higher."""
_FEW_BLOCKS = 48
_MOST_BLOCKS = 20_000
"""Blocks of tissue that the spectrum and the evidence are taken from at the most, evenly spread."""
_MOST_PLANES = 32
"""The two estimators that work in slices look at no more than these, evenly spread."""
_HIGHEST_TYPICAL = 2.0
"""Tissue counts as at most this much noisier than its flattest places."""
_HIGHEST_LEVEL = 1.5
"""The local level never exceeds this multiple of the global one: texture must not pass for noise."""


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """What is known about the noise of one volume, in the volume's unit.

    sigma       standard deviation in tissue
    per_method  what each estimator said
    spread      largest over smallest of `per_method`: 1 is agreement; infinite when only some said zero
    spectrum    variance of each band of the orthonormal 4 x 8 x 8 block cosine transform; its mean is
                `sigma` squared. This is the colour of the noise.
    level       local standard deviation over `sigma`, one node per block, smooth, in [0, 1.5]
    evidence    what tissue shows of each band, as standard deviations: by the median of the flattest 2, 8
                and 30 % of the blocks, and by two low quantiles of all. None without tissue, zero for a
                constant volume.
    """

    sigma: float
    per_method: Mapping[str, float]
    spread: float
    spectrum: Array  # (256,)
    level: Array  # (slabs, rows, columns) of blocks
    evidence: Array | None = None  # (EVIDENCE_ROWS, 256)

    def local_sigma(self, shape: tuple[int, ...], first: int, last: int) -> Array:
        """Return the local standard deviation of slices `first` to `last` (exclusive) of that grid."""
        at = (np.arange(first, last), np.arange(shape[1]), np.arange(shape[2]))
        return np.float32(self.sigma) * interpolate_nodes(self.level, at)

    def local_deviation(self, shape: tuple[int, ...], first: int, last: int, device: torch.device) -> Tensor:
        """Return the same as a tensor on a device."""
        at = (np.arange(first, last), np.arange(shape[1]), np.arange(shape[2]))
        z, y, x = (torch.from_numpy(w).to(device) for w in node_weights(self.level.shape, at))
        nodes = torch.from_numpy(self.level).to(device)
        slices = (z @ nodes.flatten(1)).reshape(-1, *nodes.shape[1:])  # (slices, block rows, block columns)
        local: Tensor = self.sigma * (y @ slices @ x.T)
        return local

    def low_pass_sd(self, width: float) -> float:
        """Return the sd that noise keeps after a Gaussian low-pass of `width` voxels along each axis.

        From the power of the lowest bands, which exceeds that of white noise when noise is coloured so.
        """
        return float(np.sqrt(max(float(self.spectrum[0]), 0.0) / (2.0 * np.sqrt(np.pi) * width) ** 3))


def estimate_noise(volume: Volume, device: torch.device | str = "cpu") -> NoiseEstimate:
    """Measure the noise of a volume on a device; deterministic.

    Padding is never looked at. A volume without tissue counts as free of noise (sigma 0).
    """
    return measure_noise(*on_device(volume, device), volume.unit, volume.spacing_mm)


def measure_noise(
    scan: Tensor,
    valid: Tensor | None,
    unit: IntensityUnit,
    spacing_mm: tuple[float, float, float],
    *,
    evidence: bool = True,
) -> NoiseEstimate:
    """Do the same for tensors as `on_device` returns them; the evidence only where somebody will read it."""
    tissue = _tissue(scan, valid, unit)
    spectrum, level, seen = _measure_bands(scan, valid, tissue, spacing_mm, evidence=evidence)
    if not spectrum.any() and not bool(tissue.any()):
        return NoiseEstimate(0.0, {}, 1.0, spectrum, level, seen)
    planes = slice(None, None, -(-tissue.shape[0] // _MOST_PLANES))
    scan, tissue = scan[planes], tissue[planes]
    methods = {"dct_bands": float(np.sqrt(spectrum.mean()))}
    if bool(tissue.any()):
        methods["haar_bands"] = haar_sigma(scan, tissue)
        if unit is IntensityUnit.HU:
            methods["local_sd_mode"] = local_sd_mode(scan, tissue)
    return _fuse(methods, spectrum, level, seen)


def find_tissue(volume: Volume, device: torch.device | str = "cpu") -> Mask:
    """Mark the voxels that noise is measured on: soft tissue in CT, signal in MR, no padding."""
    found: Mask = _tissue(*on_device(volume, device), volume.unit).cpu().numpy()
    return found


def on_device(volume: Volume, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """The voxels and the mask of those that are no padding.

    Zero stands where padding was, so that its value has no influence, not even on the rounding of a sum.
    """
    scan = to_device(volume.array, device)
    if volume.valid is None:
        return scan, None
    valid = torch.from_numpy(volume.valid).to(device)
    return torch.where(valid, scan, torch.zeros((), device=scan.device)), valid


def _tissue(scan: Tensor, valid: Tensor | None, unit: IntensityUnit) -> Tensor:
    """Mark the tissue of (Z, Y, X)."""
    smooth = box_mean(scan, 5)
    if unit is IntensityUnit.HU:
        tissue = (smooth > -200.0) & (smooth < 300.0)
    else:
        measured = smooth.flatten() if valid is None else smooth[valid]
        tissue = smooth > _signal_threshold(measured[:: max(1, measured.numel() // 500_000)].cpu().numpy())
    return tissue if valid is None else tissue & valid


def _measure_bands(
    scan: Tensor,
    valid: Tensor | None,
    tissue: Tensor,
    spacing_mm: tuple[float, float, float],
    *,
    evidence: bool,
) -> tuple[Array, Array, Array | None]:
    """Return the noise spectrum in tissue, the local level relative to it, and the evidence."""
    bands = BlockTensors(scan.device).coefficients(scan)  # (slabs, rows, columns, 256)
    places = _tissue_blocks(tissue)
    if not bool(places.any()):
        nothing = np.zeros((EVIDENCE_ROWS, bands.shape[-1]), np.float32)
        constant = bool(scan.amin() == scan.amax())
        return nothing[0], np.zeros(bands.shape[:3], np.float32), nothing if constant else None
    where = places.flatten().nonzero()[:, 0]
    where = where[:: -(-len(where) // _MOST_BLOCKS)]
    blocks = bands.flatten(0, 2)[where]
    spectrum = _hold_low_bands(_flat_power(blocks, _FLAT_SHARE), spacing_mm)
    measured = None if valid is None else BlockTensors.whole(valid)
    level = _local_level(bands, spectrum, measured)
    typical = min(float(level[places].median()), _HIGHEST_TYPICAL)
    level = (level / max(typical, 1e-6)).clamp(max=_HIGHEST_LEVEL)
    return spectrum * np.float32(typical) ** 2, level.cpu().numpy(), _evidence(blocks) if evidence else None


def _tissue_blocks(tissue: Tensor) -> Tensor:
    """Mark the blocks that lie in tissue; where anatomy is fine, those that lie in it for the most part."""
    share = BlockTensors.share(tissue)
    for needed in _TISSUE_SHARES:
        places = share >= needed
        if int(places.sum()) >= _FEW_BLOCKS:
            break
    return places


def _evidence(blocks: Tensor) -> Array:
    """Standard deviation of each band as seen in `NoiseEstimate.evidence`; `blocks`: (N, 256)."""
    shares = zip(_EVIDENCE_SHARES, _FEWEST_FLAT, strict=True)
    rows = [np.sqrt(_flat_power(blocks, share, fewest)) for share, fewest in shares]
    low = quantiles(blocks.abs(), list(_EVIDENCE_QUANTILES))
    rows += [row / np.float32(normal) for row, normal in zip(low, _EVIDENCE_QUANTILES.values(), strict=True)]
    return np.stack(rows).astype(np.float32)


def _signal_threshold(intensities: Array) -> float:
    """Split signal from noisy background: a little below Otsu's threshold (1979), never in the dark."""
    if intensities.size == 0:
        return 0.0
    bright = float(np.percentile(intensities, 99))
    counts, edges = np.histogram(np.minimum(intensities, bright), 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts), np.cumsum(counts * centres)
    separation = (moment[-1] * below / below[-1] - moment) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return max(0.15 * bright, 0.8 * float(centres[np.argmax(separation)]), 1e-6)


def _fuse(methods: dict[str, float], spectrum: Array, level: Array, evidence: Array | None) -> NoiseEstimate:
    """Take the median of the estimators (the lower of two) and scale the spectrum to it."""
    ordered = sorted(methods.values())
    sigma = ordered[(len(ordered) - 1) // 2]
    spread = ordered[-1] / ordered[0] if ordered[0] > 0 else (1.0 if ordered[-1] == 0 else float("inf"))
    power = float(spectrum.mean())
    scaled = spectrum * np.float32(sigma**2 / power) if power > 0 else spectrum
    return NoiseEstimate(float(sigma), methods, float(spread), scaled, level, evidence)


def _flat_power(blocks: Tensor, share: float, fewest: int = FEWEST_PLACES) -> Array:
    """Variance of each band over the flattest of blocks (N, 256); bands of one parity choose for the other."""
    kz, ky, kx = band_indices()
    odd = (kz + ky + kx) % 2 == 1
    anatomy = (kz < 3) & (ky < 4) & (kx < 4)
    anatomy[0] = False
    power = np.zeros(odd.size, np.float32)
    for judged in (odd, ~odd):
        judges, bands = (
            torch.from_numpy(np.flatnonzero(m)).to(blocks.device) for m in (anatomy & ~judged, judged)
        )
        structure = blocks[:, judges].square().sum(dim=1)
        flat = blocks[calmest(structure, share=share, fewest=fewest)][:, bands]
        power[judged] = np.square(quantiles(flat.abs(), [0.5])[0] / np.float32(_NORMAL_MEDIAN))
    power[0] = min(power[1], power[BLOCK[2]])  # the mean of a block says nothing about noise
    return power


def _hold_low_bands(power: Array, spacing_mm: tuple[float, float, float]) -> Array:
    """Hold the bands below 0.3 of the highest in-plane frequency to the upper quartile of those above."""
    cycles = [k / (2 * n * step) for k, n, step in zip(band_indices(), BLOCK, spacing_mm, strict=True)]
    frequency = np.sqrt(sum(np.square(c) for c in cycles)) / (0.5 / max(spacing_mm[1:]))
    ceiling = np.percentile(power[(frequency >= 0.3) & (frequency < 0.6)], 75)
    return np.where(frequency < 0.3, np.minimum(power, ceiling), power).astype(np.float32)


def _local_level(bands: Tensor, spectrum: Array, measured: Tensor | None) -> Tensor:
    """Local sd relative to the spectrum, from the bands where noise outweighs anatomy."""
    kz, ky, kx = band_indices()
    frequency = np.hypot(np.hypot(kz / BLOCK[0], ky / BLOCK[1]), kx / BLOCK[2])
    loud = spectrum > 0.05 * spectrum[1:].mean()
    if not loud.any():
        return torch.zeros(bands.shape[:3], device=bands.device)
    chosen = np.flatnonzero(loud & (frequency >= np.median(frequency[loud])))
    scale = torch.from_numpy(1.0 / (np.sqrt(spectrum[chosen]) * np.float32(_NORMAL_MEDIAN))).to(bands)
    index = torch.from_numpy(chosen).to(bands.device)
    slabs = [(slab[..., index].abs() * scale).median(dim=-1).values for slab in bands]
    level = torch.stack(slabs)
    if measured is not None and not bool(measured.all()):
        level = _from_nearest(level, measured)
    level = gaussian_blur(local_rank(level, (3, 5, 5), 0.15), 1.0)
    # Each block's median of n bands scatters by 1.17 / sqrt(n); its 15th percentile lies 1.04 of that below 1.
    unbiased: Tensor = level / max(0.5, 1 - 1.04 * 1.17 / len(chosen) ** 0.5)
    return unbiased


def _from_nearest(level: Tensor, measured: Tensor) -> Tensor:
    """Give blocks with padding the level of the nearest block without."""
    if not bool(measured.any()):
        return level
    nearest = ndimage.distance_transform_edt(
        ~measured.cpu().numpy(), return_distances=False, return_indices=True
    )
    z, y, x = (torch.from_numpy(axis).long().to(level.device) for axis in nearest)
    return level[z, y, x]
