"""Two ways of one filter, and quantiles beside numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.filters import _blur_by_matrices, gaussian_blur
from engine.flat_places import quantiles


@pytest.mark.parametrize("size", [(20, 33, 9), (1, 5, 40), (64, 48, 32)])
@pytest.mark.parametrize("deviation", [1.0, 4.0])
def test_the_way_for_gpus_blurs_as_the_other_does(size: tuple[int, int, int], deviation: float) -> None:
    image = torch.randn(size, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(
        _blur_by_matrices(image, deviation), gaussian_blur(image, deviation), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1001])
def test_quantiles_are_those_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)
    shares = [0.1, 0.3, 0.5, 1.0]

    found = quantiles(torch.from_numpy(values), shares)

    np.testing.assert_allclose(found, np.quantile(values, shares, axis=0), rtol=1e-5, atol=1e-6)
