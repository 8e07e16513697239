"""The kernels against the separate operations, where there is a GPU that they run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.bundle import BUNDLES, DEFAULT_MODEL, load_bundle
from engine.device import ComputeDevice, choose_device
from engine.diffusion import fused
from engine.diffusion.conditioning import Condition
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.diffusion.pilot import pilot
from engine.diffusion.preconditioning import Denoiser
from engine.enhancer import EnhanceOptions
from engine.evaluation.speed import benchmark_volume
from engine.transfer import to_array, to_device

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and fused.has_triton()),
    reason="needs a GPU that PyTorch and Triton can use",
)


@contextmanager
def separately() -> Iterator[None]:
    """No kernels of our own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "has_triton", lambda: False)
        yield


def normal(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).cuda()


@pytest.mark.parametrize("channels", [32, 96])
def test_norm_and_its_gradients(channels: int) -> None:
    x = normal(2, channels, 5, 6, 7).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    scale, shift = normal(2, channels).requires_grad_(), (normal(2, channels) + 1).requires_grad_()
    slope = normal(2, channels, 5, 6, 7)

    def by_operations() -> torch.Tensor:
        normed = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6)
        return F.silu(normed * scale[..., None, None, None] + shift[..., None, None, None])

    found, expected = fused.norm_silu(x, scale, shift), by_operations()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = (torch.autograd.grad(y, (x, scale, shift), slope) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_the_pilot() -> None:
    """Bands that lie at the threshold may fall to either side, so single voxels differ and the whole does not."""
    scan = normal(2, 1, 16, 40, 72) * 0.2 + torch.linspace(0, 3, 72).cuda()
    spectrum, level = normal(2, 256).square() * 0.04 + 0.01, normal(2, 1, 16, 40, 72).abs().clamp(0.3, 1.5)
    found = pilot(scan, spectrum, level)
    with separately():
        expected = pilot(scan, spectrum, level)

    assert float((found - expected).square().mean().sqrt()) < 1e-3 * float((scan - expected).std())


def test_one_evaluation_of_the_network() -> None:
    network = load_bundle(BUNDLES / DEFAULT_MODEL).network.cuda()
    z = normal(2, 1, 32, 48, 64) * 0.3 + 1.0
    first = z + 0.1 * normal(2, 1, 32, 48, 64)
    sigma = torch.tensor([0.1, 0.3]).cuda()
    condition = Condition(sigma, torch.zeros(2, 8).cuda(), torch.ones(2).cuda(), torch.zeros(2, 2).cuda())
    with torch.no_grad():
        found = Denoiser(network, torch.bfloat16)(z, first, sigma, condition)
        with separately():
            expected = Denoiser(network, torch.float32)(z, first, sigma, condition)

    error = (found.mean - expected.mean) / sigma[:, None, None, None, None]
    assert float(error.square().mean().sqrt()) < 0.02


@pytest.mark.parametrize("shape", [(32, 128, 128), (20, 100, 90)])
def test_a_gpu_gives_what_the_cpu_gives_and_twice_the_same(shape: tuple[int, int, int]) -> None:
    volume, options = benchmark_volume(shape), EnhanceOptions()
    gpu = DiffusionEnhancer(load_bundle(BUNDLES / DEFAULT_MODEL), choose_device("cuda"))
    cpu = DiffusionEnhancer(
        load_bundle(BUNDLES / DEFAULT_MODEL), ComputeDevice(torch.device("cpu"), torch.float32, 10**10)
    )
    found, again = (gpu.enhance(volume, options=options).volume.array for _ in range(2))

    assert np.array_equal(found, again)
    np.testing.assert_allclose(found, cpu.enhance(volume, options=options).volume.array, atol=0.1 * 30.0)


def test_a_volume_comes_back_from_the_gpu_as_it_went() -> None:
    array = np.random.default_rng(0).normal(size=(101, 512, 700)).astype(np.float32)

    assert np.array_equal(to_array(to_device(array, "cuda")), array)
