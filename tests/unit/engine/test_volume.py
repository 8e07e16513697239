from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.errors import EngineInputError
from engine.safety import saturate, tolerance
from engine.volume import IntensityUnit, Volume

GOOD = np.zeros((2, 3, 4), np.float32)


def _volume(
    array: np.ndarray = GOOD, affine: np.ndarray | None = None, valid: np.ndarray | None = None
) -> Volume:
    return Volume(array, np.eye(4) if affine is None else affine, IntensityUnit.HU, valid)


@pytest.mark.parametrize(
    "arguments",
    [
        {"array": GOOD.astype(np.float64)},
        {"array": GOOD[0]},
        {"array": GOOD[:0]},
        {"array": np.full((2, 3, 4), np.nan, np.float32)},
        {"affine": np.eye(3)},
        {"affine": np.full((4, 4), np.inf)},
        {"affine": np.diag([1.0, 1.0, 0.0, 1.0])},
        {"valid": np.ones((2, 3, 3), bool)},
        {"valid": np.ones((2, 3, 4), np.uint8)},
    ],
)
def test_volume_refuses_what_breaks_its_contract(arguments: dict[str, np.ndarray]) -> None:
    with pytest.raises(EngineInputError):
        _volume(**arguments)


def test_spacing_is_the_length_of_the_index_steps() -> None:
    tilted = np.array([[0, 0, 2.0, 5], [0, 3.0, 0, 6], [4.0, 0, 0, 7], [0, 0, 0, 1]])

    assert _volume(affine=tilted).spacing_mm == (4.0, 3.0, 2.0)


def test_other_intensities_must_have_the_same_shape() -> None:
    with pytest.raises(EngineInputError):
        _volume().with_array(GOOD[1:])


def test_small_changes_pass_unaltered_and_large_ones_never_reach_three_sigma() -> None:
    sigma = np.float32(2.0)
    change = np.linspace(-50, 50, 2001, dtype=np.float32)

    bounded = saturate(torch.from_numpy(change), torch.full((len(change),), float(sigma))).numpy()

    small = np.abs(change) <= 4
    assert np.array_equal(bounded[small], change[small])
    assert np.abs(bounded).max() <= 6.0
    assert np.all(np.diff(bounded) >= 0)
    assert np.allclose(bounded, -bounded[::-1])


def test_nothing_changes_where_there_is_no_noise() -> None:
    change = torch.tensor([-3.0, 0.0, 3.0])

    assert torch.all(saturate(change, torch.zeros(3)) == 0)


def test_tolerance_is_one_unit_in_ct_and_a_share_of_the_bright_signal_in_mr() -> None:
    bright = np.full((4, 8, 8), 200.0, np.float32)

    assert tolerance(_volume(bright)) == 1.0
    assert tolerance(Volume(bright, np.eye(4), IntensityUnit.ARBITRARY)) == pytest.approx(1.0)
    nothing = Volume(bright, np.eye(4), IntensityUnit.ARBITRARY, np.zeros(bright.shape, bool))
    assert tolerance(nothing) == 0.0
