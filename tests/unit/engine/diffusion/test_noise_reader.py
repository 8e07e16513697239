"""The learned reading of the noise: bounded by what was measured, and refused where it contradicts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.blocks import BLOCK_SIZE
from engine.diffusion.conditioning import noise_colour
from engine.diffusion.noise_reader import (
    _CAUTION_CT,
    _TRUST,
    NoiseReader,
    read_noise,
    refined,
    spectrum_colour,
)
from engine.errors import OutOfRangeError
from engine.noise import NoiseEstimate, estimate_noise
from engine.simulation.ct_noise import CtNoiseShape, coloured_noise
from engine.simulation.randomness import Draw
from engine.training.batches import measured_bands
from engine.volume import IntensityUnit, Volume

SPACING = torch.zeros(1, 2)


def reader_that_says(ratio: float) -> NoiseReader:
    """A reader that finds white noise of `ratio` times the measured level in everything."""
    reader = NoiseReader()
    with torch.no_grad():
        for member in reader.members:
            for parameter in member.parameters():
                parameter.zero_()
            member[-1].bias[0] = np.log(ratio / _CAUTION_CT) / _TRUST  # type: ignore[index, union-attr]
    return reader


@pytest.fixture
def measured(ct_volume: Volume) -> NoiseEstimate:
    return estimate_noise(ct_volume)


@pytest.mark.parametrize(("said", "taken"), [(0.8, 0.8), (0.4, 0.5), (1.1, 1.1), (1.4, 1.15)])
def test_the_measured_level_bounds_the_reading(measured: NoiseEstimate, said: float, taken: float) -> None:
    reading = read_noise(reader_that_says(said), measured, 250.0, is_ct=True, spacing=SPACING)

    assert reading.sigma == pytest.approx(taken * measured.sigma / 250.0, rel=1e-4)
    assert float(reading.spectrum.mean()) == pytest.approx(reading.sigma**2, rel=1e-4)


@pytest.mark.parametrize("said", [0.2, 4.0])
def test_a_reading_that_contradicts_the_measurement_is_refused(measured: NoiseEstimate, said: float) -> None:
    with pytest.raises(OutOfRangeError, match="disagree by a factor"):
        read_noise(reader_that_says(said), measured, 250.0, is_ct=True, spacing=SPACING)


def test_a_volume_without_tissue_is_refused_with_a_reason() -> None:
    rng = np.random.default_rng(0)
    air = Volume(
        (rng.normal(0, 20, (8, 32, 32)) - 1000).astype(np.float32), np.diag([1.0, 1, 1, 1]), IntensityUnit.HU
    )

    with pytest.raises(OutOfRangeError, match="no tissue"):
        read_noise(reader_that_says(1.0), estimate_noise(air), 250.0, is_ct=True, spacing=SPACING)


def test_the_refined_measurement_carries_the_reading_in_scanner_units(measured: NoiseEstimate) -> None:
    reading = read_noise(reader_that_says(0.9), measured, 250.0, is_ct=True, spacing=SPACING)
    noise = refined(measured, reading, 250.0)

    assert noise.sigma == pytest.approx(0.9 * measured.sigma, rel=1e-4)
    assert noise.spectrum == pytest.approx(np.full(BLOCK_SIZE, noise.sigma**2), rel=1e-3)
    assert np.array_equal(noise.level, measured.level)


def test_the_reading_scales_with_the_scan(ct_volume: Volume) -> None:
    torch.manual_seed(3)
    reader = NoiseReader()
    torch.nn.init.normal_(reader.evidence_parts, std=0.01)
    doubled = replace(
        estimate_noise(ct_volume), sigma=2 * estimate_noise(ct_volume).sigma
    )  # evidence and methods double with it
    assert doubled.evidence is not None
    doubled = replace(
        doubled,
        evidence=2 * doubled.evidence,
        per_method={name: 2 * value for name, value in doubled.per_method.items()},
    )

    one = read_noise(reader, estimate_noise(ct_volume), 250.0, is_ct=True, spacing=SPACING)
    two = read_noise(reader, doubled, 500.0, is_ct=True, spacing=SPACING)

    assert two.sigma == pytest.approx(one.sigma, rel=1e-4)


@pytest.mark.parametrize(
    "shape", [CtNoiseShape(), CtNoiseShape(rise=0.8, cut=0.5, fall=3.0, white=0.08, along=0.4)]
)
def test_the_colour_of_a_spectrum_is_that_of_its_noise(shape: CtNoiseShape) -> None:
    noise = coloured_noise((32, 128, 128), shape, Draw(1))[None, None]
    bands, _ = measured_bands(noise, torch.ones(1))

    assert spectrum_colour(bands).tolist()[0] == pytest.approx(noise_colour(noise).tolist()[0], abs=0.12)
