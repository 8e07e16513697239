from __future__ import annotations

import numpy as np
import pytest

from engine.phantom import head_phantom, noisy_ct, noisy_mr
from engine.volume import IntensityUnit, Volume

SMALL = ((12, 64, 64), (8.0, 3.4, 3.4))


def test_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    first, again, other = head_phantom(*SMALL, 1), head_phantom(*SMALL, 1), head_phantom(*SMALL, 2)

    assert first.array.tobytes() == again.array.tobytes()
    assert not np.array_equal(first.array, other.array)


def test_head_holds_air_soft_tissue_fluid_and_bone(clean_head: Volume) -> None:
    middle = clean_head.array[10]

    assert clean_head.unit is IntensityUnit.HU
    assert middle[0, 0] == -1000.0
    assert 0.3 < np.mean((middle > 0) & (middle < 80)) < 0.7
    assert np.mean((middle > 4) & (middle < 14)) > 0.01
    assert np.mean(middle > 900) > 0.02


def test_affine_centres_the_grid_and_keeps_the_spacing() -> None:
    volume = head_phantom((6, 32, 40), (5.0, 6.0, 7.0))

    centre = volume.affine @ [2.5, 15.5, 19.5, 1.0]

    assert np.allclose(centre, [0, 0, 0, 1])
    assert volume.spacing_mm == (5.0, 6.0, 7.0)


def test_edges_of_the_skull_are_partial_volume_and_not_steps(clean_head: Volume) -> None:
    middle = clean_head.array[10]

    assert np.count_nonzero((middle > -900) & (middle < -200)) > 100


def test_ct_noise_has_the_asked_standard_deviation_over_the_body(clean_head: Volume) -> None:
    noise = noisy_ct(clean_head, 25.0, seed=1).array - clean_head.array

    assert noise[clean_head.array > -500].std() == pytest.approx(25.0, rel=0.03)


def test_ct_noise_is_coloured_in_the_slice_and_correlated_between_slices(clean_head: Volume) -> None:
    noise = noisy_ct(clean_head, 25.0, seed=1).array - clean_head.array
    brain = noise[:, 48:80, 48:80]

    between_slices = np.corrcoef(brain[:-1].ravel(), brain[1:].ravel())[0, 1]
    spectrum = np.mean(np.abs(np.fft.fft2(brain)) ** 2, axis=0)

    assert 0.3 < between_slices < 0.5
    assert spectrum[1, 1] < 0.6 * spectrum[6, 6]


def test_ct_noise_follows_the_attenuation_and_stays_in_the_stored_range(clean_head: Volume) -> None:
    noisy = noisy_ct(clean_head, 40.0, seed=1)
    noise = noisy.array - clean_head.array

    assert noise[:, 56:72, 56:72].std() > 1.5 * noise[:, :6, :6].std()
    assert noisy.array.min() >= -1024.0


def test_noise_of_a_volume_without_a_body_is_uniform(make_volume) -> None:
    air = make_volume(np.full((8, 32, 32), -800.0))

    assert (noisy_ct(air, 10.0, seed=0).array - air.array).std() == pytest.approx(10.0, rel=0.05)


def test_noise_leaves_padding_untouched(make_volume) -> None:
    valid = np.ones((8, 32, 32), bool)
    valid[:, :4] = False
    volume = make_volume(np.where(valid, 40.0, -2000.0), valid=valid)

    assert np.all(noisy_ct(volume, 10.0, seed=0).array[~valid] == -2000.0)


def test_mr_noise_is_rician(clean_mr: Volume) -> None:
    noisy = noisy_mr(clean_mr, 20.0, seed=0)

    background = noisy.array[:, :10, :10]
    tissue = (noisy.array - clean_mr.array)[clean_mr.array > 390]
    assert background.mean() == pytest.approx(20.0 * np.sqrt(np.pi / 2), rel=0.03)
    assert tissue.std() == pytest.approx(20.0, rel=0.05)


def test_grid_with_a_single_slice_still_holds_a_head() -> None:
    volume = head_phantom((1, 64, 64), (5.0, 3.4, 3.4))

    assert volume.array.max() > 500
