"""Simulated noise has the level, the colour and the statistics it claims."""

from __future__ import annotations

import math

import pytest
import torch

from engine.diffusion.conditioning import noise_colour
from engine.simulation.ct_noise import CtNoiseShape, coloured_noise, draw_ct_shape, noise_map, noise_power
from engine.simulation.mr_noise import MrNoiseShape, add_mr_noise, filter_kspace
from engine.simulation.phantoms import draw_phantom, insert_lesions
from engine.simulation.randomness import Draw

SIZE = (32, 64, 64)


@pytest.mark.parametrize(
    "shape",
    [
        CtNoiseShape(),
        CtNoiseShape(rise=0.8, cut=0.5, fall=3, white=0.1, along=0.8),
        CtNoiseShape(blur=1.0),
    ],
)
def test_ct_noise_has_unit_variance(shape: CtNoiseShape) -> None:
    assert float(coloured_noise(SIZE, shape, Draw(0)).std()) == pytest.approx(1.0, abs=0.05)


def test_ct_noise_has_the_power_spectrum_it_claims() -> None:
    shape = CtNoiseShape(rise=0.8, cut=0.5, fall=3, white=0.1, along=0.5)
    draw = Draw(1)
    spectra = [torch.fft.fftn(coloured_noise(SIZE, shape, draw)).abs() ** 2 for _ in range(40)]
    measured = torch.stack(spectra).mean(0) / math.prod(SIZE)
    claimed = noise_power(SIZE, shape)
    assert float(claimed.mean()) == pytest.approx(1.0, abs=1e-3)
    assert float((measured / claimed.clamp_min(1e-3)).median()) == pytest.approx(1.0, abs=0.05)


def test_white_noise_has_no_colour() -> None:
    colour = noise_colour(coloured_noise((64, 64, 64), CtNoiseShape(), Draw(2))[None, None])
    assert float(colour.abs().max()) < 0.05


def test_soft_noise_is_low_in_the_fine_bands() -> None:
    colour = noise_colour(coloured_noise(SIZE, CtNoiseShape(blur=1.2), Draw(3))[None, None])[0]
    assert float(colour[4]) < -1.0
    assert float(colour[5:].max()) > 0.3


def test_the_noise_map_is_moderate() -> None:
    local = noise_map(torch.ones(SIZE), Draw(4))
    assert 0.4 < float(local.min()) < float(local.max()) < 3.0


@pytest.mark.parametrize("seed", range(20))
def test_drawn_shapes_are_finite(seed: int) -> None:
    draw = Draw(seed)
    noise = coloured_noise((16, 32, 32), draw_ct_shape(draw), draw)
    assert bool(torch.isfinite(noise).all())


def test_rician_noise_in_air_has_the_rayleigh_mean() -> None:
    _, scan = add_mr_noise(torch.zeros(SIZE), 2.0, MrNoiseShape(), Draw(6))
    ratio = float(scan.square().mean()) / (2 * 2.0**2)
    assert 0.7 < ratio < 1.5


def test_zero_filling_keeps_a_constant() -> None:
    kept = filter_kspace(torch.full(SIZE, 3.0), MrNoiseShape(sampled=(1.0, 0.6, 0.6), apodise=True))
    assert torch.allclose(kept.real, torch.full(SIZE, 3.0), atol=1e-4)


def test_zero_filling_axis_by_axis_equals_the_3d_transform() -> None:
    shape, draw = MrNoiseShape(sampled=(0.7, 0.6, 0.8)), Draw(10)
    x = torch.complex(draw.normal((12, 20, 18)), draw.normal((12, 20, 18)))
    spectrum = torch.fft.fftn(x)
    for axis, share in enumerate(shape.sampled):
        kept = torch.fft.fftfreq(x.shape[axis]).abs() * 2 <= share
        spectrum = spectrum * kept.reshape([-1 if a == axis else 1 for a in range(3)])
    assert torch.allclose(filter_kspace(x, shape), torch.fft.ifftn(spectrum), atol=1e-5)


def test_one_seed_gives_one_phantom() -> None:
    first, second = (draw_phantom(SIZE, (2.0, 0.7, 0.7), (-1.0, 1.0), Draw(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_lesions_change_little_and_only_in_places() -> None:
    clean = torch.zeros(SIZE)
    change = insert_lesions(clean, (2.0, 0.7, 0.7), (0.1, 0.2), Draw(8)).abs()
    assert 0 < float(change.max()) <= 0.61
    assert float((change > 0.01).float().mean()) < 0.5


def test_a_restored_source_continues_its_numbers() -> None:
    draw = Draw(9)
    draw.uniform(0, 1)
    state = draw.state()
    expected = (draw.uniform(0, 1), draw.normal((3,)))
    draw.restore(state)
    assert draw.uniform(0, 1) == expected[0]
    assert torch.equal(draw.normal((3,)), expected[1])
