"""Levels whose bf16 gradients cannot be trusted are found, and computed in fp32."""

from __future__ import annotations

import pytest
import torch

from engine.diffusion.network import CONDITION_SIZE, IN_CHANNELS, SHAPES, UNet
from engine.training import gradients
from engine.training.config import TrainingConfig
from engine.training.gradients import gradient_error, untrusted_levels

CONFIG = TrainingConfig(name="g", data="d", sources=(), network="small", shapes=((16, 16, 32),), batch=1)


def test_an_honest_gradient_is_close_to_the_exact_one() -> None:
    assert gradient_error((1, 8, 8, 8, 8), torch.device("cpu")) < 0.02


def test_levels_beyond_the_limit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_ERROR", -1.0)

    assert untrusted_levels(SHAPES["small"], CONFIG) == {0, 1, 2, 3}


def test_exact_runs_have_nothing_to_distrust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_ERROR", -1.0)
    exact = TrainingConfig(**{**CONFIG.__dict__, "precision": "float32"})

    assert untrusted_levels(SHAPES["small"], exact) == frozenset()


def test_an_exact_level_ignores_autocast() -> None:
    torch.manual_seed(0)
    network = UNet(SHAPES["small"])
    for block in network.modules():
        if isinstance(block, torch.nn.Conv3d):
            torch.nn.init.normal_(block.weight, std=0.05)
    kinds: dict[int, set[torch.dtype]] = {}
    for level, blocks in enumerate(network.encoder):
        kinds[level] = set()
        blocks[0].conv1.register_forward_hook(  # type: ignore[union-attr, index]
            lambda _m, _i, out, level=level: kinds[level].add(out.dtype)
        )
    network.exact_levels = frozenset({2})

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.randn(1, IN_CHANNELS, 8, 8, 8), torch.zeros(1, CONDITION_SIZE))

    assert kinds[1] == {torch.bfloat16}
    assert kinds[2] == {torch.float32}
