"""The source of the kernels, run voxel for voxel by Triton's interpreter, beside the separate operations.

Slow and exact to fp32, so the images are tiny. What a GPU makes of the kernels is asked in `test_kernels`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from engine.diffusion import fused
from engine.diffusion.conditioning import Condition
from engine.diffusion.network import GATE_LIMIT, SHAPES, build_network
from engine.diffusion.pilot import pilot
from engine.diffusion.preconditioning import SIGMA_DATA, Denoiser, network_input

pytestmark = pytest.mark.skipif(
    not fused.has_triton() or torch.cuda.is_available(),
    reason="needs Triton (pip install triton) and no GPU, where the real kernels are tested",
)
_KERNELS = "engine.diffusion.kernels"


def _forget() -> None:
    for name in [n for n in sys.modules if n.startswith(_KERNELS)]:
        del sys.modules[name]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that the interpreter runs; it decides when they are imported."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(fused, "usable", lambda _tensor: True)
    _forget()
    yield
    _forget()


def normal(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def test_the_norm(interpreted: None) -> None:
    x = normal(2, 48, 2, 3, 5).contiguous(memory_format=torch.channels_last_3d)
    scale, shift = normal(2, 48), normal(2, 48)
    normed = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6)
    expected = F.silu(normed * scale[..., None, None, None] + shift[..., None, None, None])

    torch.testing.assert_close(fused.norm_silu(x, scale, shift), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_pilot(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = normal(2, 1, 4, 8, 12) * 0.3 + torch.linspace(0, 8, 12)
    spectrum, level = normal(2, 256).square() + 0.5, normal(2, 1, 4, 8, 12).abs() + 0.3
    found = pilot(scan, spectrum, level)
    monkeypatch.setattr(fused, "usable", lambda _tensor: False)

    torch.testing.assert_close(found, pilot(scan, spectrum, level), atol=1e-4, rtol=1e-4)


def test_what_comes_before_and_after_the_network(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    z = normal(2, 1, 16, 16, 16) * 0.3 + torch.linspace(0, 3, 16)
    first, sigma = z + 0.1 * normal(2, 1, 16, 16, 16), torch.tensor([0.12, 0.3])
    around = F.avg_pool3d(F.pad(F.avg_pool3d(z, 2) * 8**0.5, (1,) * 6, mode="replicate"), 3, stride=1)
    seen = fused.Seen(z, first, around, sigma, SIGMA_DATA**2)
    bands = seen.bands()
    expected = network_input(z, first, sigma[:, None, None, None, None])
    torch.testing.assert_close(bands[:, :24].float(), expected, atol=0.02, rtol=0.01)
    assert not bands[:, 24:].any()

    network = build_network(SHAPES["small"], torch.device("cpu"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * normal(*parameter.shape))
    condition = Condition(sigma, torch.zeros(2, 8), torch.ones(2), torch.zeros(2, 2))
    monkeypatch.setattr(fused, "usable", lambda _tensor: False)
    with torch.no_grad():
        whole = Denoiser(network)(z, first, sigma, condition)
        said = network.head_and_gate(
            expected.contiguous(memory_format=torch.channels_last_3d), condition.vector(sigma)
        )
    mean, spread = seen.denoised(said.contiguous(memory_format=torch.channels_last_3d), GATE_LIMIT)

    torch.testing.assert_close(mean, whole.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(spread, whole.log_variance)
