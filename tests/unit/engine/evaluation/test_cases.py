"""Crops, levels and noise are what they are said to be, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import EngineInputError
from engine.evaluation.cases import (
    NoiseLevel,
    cases_of,
    noisy_cases,
    parse_levels,
    truths,
)
from engine.volume import IntensityUnit, Volume

RAMP = (np.linspace(-100, 100, 80)[None, None, :] + np.zeros((16, 80, 80))).astype(np.float32)
SCAN = Volume(RAMP, np.eye(4), IntensityUnit.HU)


def test_levels_are_read() -> None:
    assert parse_levels("ct30c, mr7") == [NoiseLevel(True, 30.0, True), NoiseLevel(False, 7.0, False)]
    with pytest.raises(EngineInputError, match="pet5"):
        parse_levels("pet5")


def test_a_case_has_the_noise_it_claims() -> None:
    (case,) = noisy_cases("a", SCAN, parse_levels("ct25w,mr7"))
    assert float((case.noisy.array - case.truth).std()) == pytest.approx(25.0, rel=0.03)


def test_crops_lie_in_the_body_and_apart() -> None:
    array = np.full((16, 96, 96), -1000, np.float32)
    array[:, 30:, :] = 40
    crops = truths("a", Volume(array, np.eye(4), IntensityUnit.HU), (16, 32, 32), 4)
    assert len(crops) == 4
    assert all(crop.body.mean() > 0.5 for crop in crops)
    assert [c.crop for c in crops] == [0, 1, 2, 3]


def test_a_small_scan_gives_fewer_crops_and_smaller_ones() -> None:
    (crop,) = truths("a", SCAN, (32, 80, 80), 5)
    assert crop.volume.array.shape == (16, 80, 80)


def test_draws_differ_and_do_not_depend_on_what_else_is_run() -> None:
    crops = truths("a", SCAN, (16, 40, 40), 2)
    many = {c.name: c.noisy.array for c in cases_of(crops, parse_levels("ct30c,ct30w"), 2)}
    alone = {c.name: c.noisy.array for c in cases_of(crops[1:], parse_levels("ct30w"), 2)}
    assert len(many) == 8
    assert all(np.array_equal(many[name], array) for name, array in alone.items())
    first, second = alone.values()
    assert not np.array_equal(first, second)
