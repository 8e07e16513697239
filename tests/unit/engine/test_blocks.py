from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft

from engine.blocks import (
    BLOCK,
    BlockTensors,
    BlockTransform,
    band_indices,
    block_coefficients,
    interpolate_nodes,
    whole_blocks,
)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("count", [1, 7, 8, 61])
def test_transform_is_the_orthonormal_cosine_transform(count: int) -> None:
    blocks = _random(count, 256)

    bands = BlockTransform().forward(blocks)

    expected = fft.dctn(blocks.reshape(-1, *BLOCK), axes=(1, 2, 3), norm="ortho").reshape(count, 256)
    assert np.allclose(bands, expected, atol=1e-5)


def test_inverse_undoes_forward_and_applies_the_window() -> None:
    blocks = _random(9, 256)
    window = [np.linspace(1, 2, n) for n in BLOCK]

    plain, windowed = BlockTransform(), BlockTransform(window)

    assert np.allclose(plain.inverse(plain.forward(blocks)), blocks, atol=1e-5)
    scale = np.einsum("i,j,k->ijk", *window).ravel()
    assert np.allclose(windowed.inverse(windowed.forward(blocks)), blocks * scale, atol=1e-4)


def test_bits_do_not_depend_on_how_many_blocks_are_transformed_at_once() -> None:
    blocks = _random(64, 256)

    together = BlockTransform().forward(blocks)
    apart = np.concatenate([BlockTransform().forward(blocks[:24]), BlockTransform().forward(blocks[24:])])

    assert together.tobytes() == apart.tobytes()


def test_coefficients_of_a_constant_are_its_mean_alone() -> None:
    bands = block_coefficients(np.full((9, 17, 16), 5.0, np.float32))

    assert bands.shape == (2, 2, 2, 256)
    assert np.allclose(bands[..., 0], 80.0)
    assert np.allclose(bands[..., 1:], 0.0, atol=1e-4)


def test_volume_thinner_than_a_block_is_reflected() -> None:
    assert block_coefficients(_random(2, 8, 8)).shape == (1, 1, 1, 256)


def test_block_is_whole_only_when_every_voxel_is_in_the_mask() -> None:
    mask = np.ones((4, 8, 16), bool)
    mask[3, 7, 15] = False

    assert whole_blocks(mask).tolist() == [[[True, False]]]


def test_nodes_are_interpolated_linearly_between_block_centres_and_held_outside() -> None:
    nodes = np.array([[[0.0, 8.0]]], np.float32)

    values = interpolate_nodes(nodes, (np.array([0]), np.array([0]), np.array([0, 3.5, 7.5, 11.5, 15])))

    assert values.ravel().tolist() == [0.0, 0.0, 4.0, 8.0, 8.0]


def test_first_band_is_the_mean() -> None:
    assert [int(axis[0]) for axis in band_indices()] == [0, 0, 0]


def test_tensors_are_cut_and_transformed_as_arrays_are() -> None:
    volume, mask = _random(9, 17, 30), _random(9, 17, 30) > -2.5

    bands = BlockTensors(torch.device("cpu")).coefficients(torch.from_numpy(volume)).numpy()
    whole = BlockTensors.whole(torch.from_numpy(mask)).numpy()

    assert np.allclose(bands, block_coefficients(volume), atol=1e-5)
    assert np.array_equal(whole, whole_blocks(mask))
    assert np.array_equal(BlockTensors.share(torch.from_numpy(mask)).numpy() == 1, whole)


def test_short_tensors_are_mirrored_as_short_arrays_are() -> None:
    volume = _random(2, 8, 5)

    bands = BlockTensors(torch.device("cpu")).coefficients(torch.from_numpy(volume)).numpy()

    assert np.allclose(bands, block_coefficients(volume), atol=1e-5)
