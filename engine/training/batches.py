"""Batches of diffusion states: clean patch, simulated scan, state of the chain, and what to tell F.

Two arrows: `draw_states` simulates on whatever device holds the scans, `with_pilot` adds the pilot on the device that
trains. On a CPU the pilot costs twenty times what the simulation does, on a GPU next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.blocks import BLOCK, BLOCK_SIZE, BlockTensors
from engine.diffusion.conditioning import Condition, noise_colour
from engine.diffusion.network import COLOUR_SIZE
from engine.diffusion.noise_schedule import sigma_of_time
from engine.diffusion.pilot import pilot
from engine.simulation.ct_noise import coloured_noise, draw_ct_shape, noise_map
from engine.simulation.mr_noise import MrNoiseShape, add_mr_noise, draw_mr_shape, filter_kspace
from engine.simulation.randomness import Draw
from engine.training.patches import CleanPatch, PatchSource, Size

_LEVELS_CT = (4.0 / 250, 120.0 / 250)
_LEVELS_MR = (0.005 * 4, 0.16 * 4)
_INTERPOLATED = 0.45
_NOISE_ERROR = 0.12
"""Spread of log s_hat: the network must bear the estimator's error."""
_COLOUR_ERROR = 0.12


@dataclass(frozen=True)
class States:
    """States of N patches. Images are (N, 1, Z, Y, X) fp32 model units; `sigma` (N,) is the noise of z.

    `matched` (N,) is True where z is the scan itself, the state met in deployment.
    """

    clean: Tensor
    scan: Tensor
    state: Tensor
    sigma: Tensor
    condition: Condition
    matched: Tensor


@dataclass(frozen=True)
class Batch(States):
    """The same states with the pilot (N, 1, Z, Y, X) of their scans: all that a step needs."""

    pilot: Tensor


@dataclass(frozen=True)
class _Sample:
    """One simulated scan and its state."""

    clean: Tensor
    scan: Tensor
    state: Tensor
    sigma: float
    noise: float
    colour: Tensor
    is_ct: bool
    spacing: tuple[float, float]
    matched: bool


def draw_batch(source: PatchSource, size: Size, count: int, draw: Draw) -> Batch:
    """Draw `count` states of patches of one size, with their pilots."""
    return with_pilot(draw_states(source, size, count, draw))


def with_pilot(states: States) -> Batch:
    """Add the pilots, from the noise as the estimator would have read it."""
    seen = measured_bands(states.scan - states.clean, states.condition.noise)
    return Batch(**vars(states), pilot=pilot(states.scan, *seen))


def draw_states(source: PatchSource, size: Size, count: int, draw: Draw) -> States:
    """Draw `count` states of patches of one size."""
    samples = [_draw_sample(source.clean(size), draw) for _ in range(count)]
    device = samples[0].clean.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    condition = Condition(
        noise=column([s.noise for s in samples]),
        colour=torch.cat([s.colour for s in samples]),
        is_ct=column([float(s.is_ct) for s in samples]),
        spacing=torch.tensor([s.spacing for s in samples], device=device),
    )
    return States(
        clean=torch.stack([s.clean for s in samples])[:, None],
        scan=torch.stack([s.scan for s in samples])[:, None],
        state=torch.stack([s.state for s in samples])[:, None],
        sigma=column([s.sigma for s in samples]),
        condition=condition,
        matched=torch.tensor([s.matched for s in samples], device=device),
    )


def measured_bands(noise: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the estimator would say of pure noise (N, 1, Z, Y, X): its spectrum and local level.

    Sizes are at least those of a block; slices a multiple of its four.

    The spectrum (N, 256) is that of the patch, which scatters as estimates do, scaled to the level `told`
    (N,). The level (N, 1, Z, Y, X) is the local deviation over `told`, between 0 and 1.5.
    """
    count, _, depth, rows, columns = noise.shape
    stacked = noise.reshape(count * depth, rows, columns)  # blocks never reach from one sample into the next
    seen = BlockTensors(noise.device).coefficients(stacked).square()
    bands = seen.reshape(count, -1, BLOCK_SIZE).mean(dim=1)
    bands[:, 0] = torch.minimum(bands[:, 1], bands[:, BLOCK[2]])
    bands = bands * (told.square() / bands.mean(1).clamp_min(1e-12))[:, None]
    centred = noise - F.avg_pool3d(noise, 9, stride=1, padding=4, count_include_pad=False)
    power = F.avg_pool3d(centred.square(), 16, stride=8, ceil_mode=True)
    local = F.interpolate(power, size=noise.shape[2:], mode="trilinear", align_corners=False).sqrt()
    return bands, (local / told[:, None, None, None, None]).clamp(0.0, 1.5)


def simulate_scan(patch: CleanPatch, draw: Draw) -> tuple[Tensor, Tensor, float]:
    """Return the clean image as the scanner shows it, the noisy scan, and the added noise level.

    The level is the volume's; the patch's own noise varies around it through the local map.
    """
    floor = 1.2 * patch.noise
    if patch.is_ct:
        low, high = _LEVELS_CT
        level = max(
            draw.log_uniform(low, high) if draw.chance(0.88) else draw.log_uniform(0.002, 0.03), floor
        )
        body = (patch.image > -2.5).float()
        size = (patch.image.shape[0], patch.image.shape[1], patch.image.shape[2])
        noise = coloured_noise(size, draw_ct_shape(draw), draw) * level
        if draw.chance(0.75):
            noise = noise * noise_map(body, draw)
        return patch.image, patch.image + noise, level
    low, high = _LEVELS_MR
    level = max(draw.log_uniform(low, high), floor)
    image = patch.image
    if draw.chance(_INTERPOLATED):
        # Scanners interpolate what they show: an image without its finest detail, under noise of any colour.
        edge = draw.uniform(0.45, 0.9)
        shape = MrNoiseShape(
            sampled=(edge if draw.chance(0.5) else 1.0, edge, edge), apodise=draw.chance(0.5)
        )
        image = filter_kspace(image, shape).abs()
    clean, scan = add_mr_noise(image, level, draw_mr_shape(draw), draw)
    return clean, scan, level


def _draw_sample(patch: CleanPatch, draw: Draw) -> _Sample:
    """Simulate one scan and choose its state: nine in ten the scan itself."""
    clean, scan, level = simulate_scan(patch, draw)
    total = math.hypot(level, patch.noise)
    noise = total * math.exp(_NOISE_ERROR * draw.gauss())
    added = scan - clean
    colour = noise_colour(added[None, None], torch.tensor([total], device=clean.device))
    colour = colour + _COLOUR_ERROR * draw.normal((1, COLOUR_SIZE))
    if draw.chance(0.15):
        colour = torch.zeros_like(colour)
    kind = draw.uniform(0, 1)
    state, sigma = scan, noise
    if kind > 0.95:
        sigma = (
            sigma_of_time(draw.uniform(1, 999)) if draw.chance(0.5) else sigma_of_time(draw.uniform(1, 300))
        )
        sigma = min(sigma, 50.0)
        state = clean + sigma * draw.normal(tuple(clean.shape))
    elif kind > 0.88:
        share = draw.uniform(0.05, 1.0)
        state, sigma = clean + share * added, noise * share
    slice_mm, row_mm, column_mm = patch.spacing_mm
    voxel = (slice_mm * row_mm * column_mm) ** (1 / 3)
    return _Sample(
        clean=clean,
        scan=scan,
        state=state,
        sigma=sigma,
        noise=noise,
        colour=colour,
        is_ct=patch.is_ct,
        spacing=(math.log(slice_mm / row_mm), math.log(voxel)),
        matched=kind <= 0.88,
    )
