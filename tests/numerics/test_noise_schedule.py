"""The cosine schedule against its closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.diffusion.noise_schedule import (
    STEPS,
    alpha_bar,
    descending_sigmas,
    nearest_timestep,
    sigma_of_time,
    time_of_sigma,
)


def test_the_chain_starts_clean_and_ends_in_noise() -> None:
    assert alpha_bar(0) == 1.0
    assert sigma_of_time(0) == 0.0
    assert sigma_of_time(STEPS) > 50


@given(st.floats(min_value=1e-4, max_value=40))
def test_time_of_sigma_inverts_sigma_of_time(sigma: float) -> None:
    assert sigma_of_time(time_of_sigma(sigma)) == pytest.approx(sigma, rel=1e-6)


@pytest.mark.parametrize(
    ("hu", "step"), [(5, 7), (10, 19), (20, 44), (30, 69), (50, 119), (80, 191), (120, 279)]
)
def test_ct_noise_matches_the_published_steps(hu: int, step: int) -> None:
    assert nearest_timestep(hu / 250) == pytest.approx(step, abs=1)


def test_signal_and_noise_power_of_a_state_sum_to_one() -> None:
    abar = alpha_bar(300)
    assert abar * (1 + sigma_of_time(300) ** 2) == pytest.approx(1.0)


def test_descending_sigmas_are_even_in_time_and_end_at_zero() -> None:
    sigmas = descending_sigmas(0.4, 5)
    times = [time_of_sigma(s) for s in sigmas]
    gaps = [a - b for a, b in itertools.pairwise(times)]
    assert sigmas[0] == 0.4
    assert sigmas[-1] == 0.0
    assert max(gaps) - min(gaps) < 1e-6 * max(gaps) + 1e-6


def test_a_negative_sigma_has_no_time() -> None:
    with pytest.raises(ValueError, match="negative"):
        time_of_sigma(-math.ulp(1.0))
