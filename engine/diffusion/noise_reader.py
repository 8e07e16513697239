"""The noise of a scan as the diffusion model is told it: level and spectrum, read by a small learned network.

`engine.noise` measures what flat tissue shows of every band of a block cosine transform. On real scans that is
coloured by anatomy (in the low bands of MR by several times) and scatters by a third from band to band. A
network trained on simulated scans of known noise reads the same evidence: noise spectra vary along few
principal components, which it places, and it knows how anatomy leaks. The measured level bounds what it
says, since anatomy can only raise a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.blocks import BLOCK, BLOCK_SIZE, BlockTransform
from engine.diffusion.conditioning import COLOUR_RANGE, haar_power
from engine.diffusion.network import COLOUR_SIZE
from engine.errors import OutOfRangeError
from engine.noise import EVIDENCE_ROWS, NO_TISSUE, NoiseEstimate

EVIDENCE = EVIDENCE_ROWS * BLOCK_SIZE
SPECTRUM_PARTS, EVIDENCE_PARTS = 16, 32
MEMBERS = 3
"""Networks whose answers are averaged: fewer large errors on anatomy that was not trained on."""
METHODS = ("dct_bands", "haar_bands", "local_sd_mode")
FLOOR = -4.0
"""Natural log of a band's deviation over the total is not read below this: 2 %."""
_FACTS = len(METHODS) + 1 + 2 + 1
_NEGLIGIBLE = 0.008
"""Model units (2 HU): noise too weak to argue about."""
_DISAGREEMENT = 3.0
_TRUST = 0.85
"""How far, in logarithms, from the measured level to the one read: anatomy unlike all that was trained on is read
too low. Between 0.75 and 1, unseen scans of CT and MR are read best."""
_CAUTION_CT = 0.95
"""Share of the level read that the model is told of in CT: too high a level erases anatomy, too low a one only leaves
noise. Against none, chests with noise of their own gain 0.1 dB at 15 HU and lose nothing elsewhere, a smooth head
loses 0.1 dB at all levels. MR gains nothing from it."""


@dataclass(frozen=True)
class NoiseReading:
    """What the model is told, in model units.

    sigma     standard deviation in tissue
    spectrum  (256,) variance of each band of the 4 x 8 x 8 block transform; its mean is `sigma` squared
    colour    (1, COLOUR_SIZE) log band noise over `sigma` (`engine.diffusion.conditioning`)
    spread    by how much the reading and the measurement differ, 1 when they agree
    """

    sigma: float
    spectrum: Tensor
    colour: Tensor
    spread: float


class NoiseReader(nn.Module):
    """Evidence to log level and log spectrum, both relative to the measured level: scale-equivariant."""

    def __init__(self, hidden: int = 96) -> None:
        super().__init__()
        inputs = EVIDENCE_PARTS + _FACTS
        self.evidence_mean = _constant(EVIDENCE)
        self.evidence_parts = _constant(EVIDENCE_PARTS, EVIDENCE)
        self.spectrum_mean = _constant(BLOCK_SIZE)
        self.spectrum_parts = _constant(SPECTRUM_PARTS, BLOCK_SIZE)
        self.mean = _constant(inputs)
        self.deviation = nn.Parameter(torch.ones(inputs), requires_grad=False)
        self.members = nn.ModuleList(_layers(inputs, hidden) for _ in range(MEMBERS))

    def forward(self, evidence: Tensor, facts: Tensor) -> tuple[Tensor, Tensor]:
        """Return log(sigma / measured) (N,) and log(band deviation / sigma) (N, 256).

        `evidence` (N, EVIDENCE) and `facts` (N, F) come from `reader_input`.
        """
        seen = (self.inputs(evidence, facts) - self.mean) / self.deviation
        out = torch.stack([member(seen) for member in self.members]).mean(dim=0)
        return self.parts(out)

    def parts(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` returns from what a member says, (N, 1 + SPECTRUM_PARTS)."""
        shape = self.spectrum_mean + out[:, 1:] @ self.spectrum_parts
        shape = shape - 0.5 * torch.log(torch.exp(2.0 * shape).mean(dim=1, keepdim=True))
        return out[:, 0], shape

    def inputs(self, evidence: Tensor, facts: Tensor) -> Tensor:
        """Return what the layers see, before scaling."""
        return torch.cat(((evidence - self.evidence_mean) @ self.evidence_parts.T, facts), dim=1)


def _layers(inputs: int, hidden: int) -> nn.Sequential:
    """One member of the ensemble."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, 1 + SPECTRUM_PARTS),
    )


def _constant(*size: int) -> nn.Parameter:
    """A part of the state that is set once from the training examples."""
    return nn.Parameter(torch.zeros(size), requires_grad=False)


def reader_input(
    measured: NoiseEstimate, scale: float, *, is_ct: bool, spacing: Tensor
) -> tuple[Tensor, Tensor]:
    """Return evidence (1, EVIDENCE) and facts (1, F) of a measurement.

    `scale`: scanner units per model unit. `spacing`: (1, 2) of the condition.
    """
    seen = measured.evidence
    if seen is None or measured.sigma <= 0:
        raise OutOfRangeError("NOISE_UNCERTAIN", NO_TISSUE)
    evidence = torch.from_numpy(np.maximum(seen / np.float32(measured.sigma), np.float32(1e-3))).log()
    said = [max(measured.per_method.get(name, measured.sigma), 1e-6) / measured.sigma for name in METHODS]
    facts = torch.tensor([*said, measured.sigma / scale]).log()
    return (
        evidence.reshape(1, -1).clamp(FLOOR - 1, 3.0),
        torch.cat((facts[None], torch.tensor([[float(is_ct)]]), spacing), dim=1),
    )


@torch.no_grad()
def read_noise(
    reader: NoiseReader, measured: NoiseEstimate, scale: float, *, is_ct: bool, spacing: Tensor
) -> NoiseReading:
    """Return the reading, its level held between 0.5 and 1.15 of what was measured.

    Anatomy can only raise a measurement, so it bounds the noise from above; on crops full of edges it was up
    to 1.9 times too high. Raises `OutOfRangeError` NOISE_UNCERTAIN when there was no tissue to measure,
    or when the two differ by more than a factor of three.
    """
    if measured.sigma <= 0 and measured.evidence is not None:
        return NoiseReading(0.0, torch.zeros(BLOCK_SIZE), torch.zeros(1, COLOUR_SIZE), 1.0)
    evidence, facts = reader_input(measured, scale, is_ct=is_ct, spacing=spacing)
    ratio, shape = reader(evidence, facts)
    level, said = measured.sigma / scale, float(torch.exp(_TRUST * ratio))
    spread = max(said, 1.0 / max(said, 1e-6))
    if level * max(said, 1.0) > _NEGLIGIBLE and spread > _DISAGREEMENT:
        raise OutOfRangeError(
            "NOISE_UNCERTAIN", f"the noise estimates disagree by a factor of {spread:.1f}: nothing is changed"
        )
    sigma = level * min(max(said * (_CAUTION_CT if is_ct else 1.0), 0.5), 1.15)
    relative = torch.exp(2.0 * shape)
    return NoiseReading(sigma, relative[0] * sigma**2, spectrum_colour(relative), spread)


def refined(measured: NoiseEstimate, reading: NoiseReading, scale: float) -> NoiseEstimate:
    """Return the measurement with the level and spectrum as read, in the volume's unit."""
    spectrum = (reading.spectrum * scale**2).numpy().astype(np.float32)
    return replace(measured, sigma=reading.sigma * scale, spectrum=spectrum)


def spectrum_colour(relative: Tensor) -> Tensor:
    """Return the colour descriptor (N, COLOUR_SIZE) of noise with band variances `relative` (N, 256), mean 1.

    Exact for noise whose bands are uncorrelated within a block: the power of a Haar band is then a
    weighted sum of the variances of the cosine bands.
    """
    power = relative @ _haar_shares().T
    return 0.5 * torch.log(power.clamp_min(1e-8)).clamp(*COLOUR_RANGE)


def _haar_shares() -> Tensor:
    """How much each cosine band gives to each group of the colour descriptor: (COLOUR_SIZE, 256)."""
    basis = BlockTransform().inverse(np.eye(BLOCK_SIZE, dtype=np.float32))  # (band, voxel)
    images = torch.from_numpy(basis).reshape(BLOCK_SIZE, 1, *BLOCK)
    shares = haar_power(images)
    if shares.shape[1] != COLOUR_SIZE:
        raise ValueError("the colour descriptor and the network disagree on its length")
    return shares.T
