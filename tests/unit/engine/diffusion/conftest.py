"""A small bundle with untrained weights, written and read back like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import ModelBundle, load_bundle, write_bundle
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.noise_reader import NoiseReader
from engine.volume import IntensityUnit, Volume


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A bundle whose network is not the identity: its last layer is random and small."""
    torch.manual_seed(0)
    network, reader = UNet(SHAPES["small"]), NoiseReader()
    torch.nn.init.normal_(network.head.weight, std=0.02)
    for parameter in reader.members.parameters():
        torch.nn.init.zeros_(parameter)
    folder = tmp_path / "small-test"
    write_bundle(folder, network, reader, {"model_id": "small-test", "version": "0.0.1"})
    return folder


@pytest.fixture
def bundle(bundle_folder: Path) -> ModelBundle:
    return load_bundle(bundle_folder)


@pytest.fixture
def ct_volume() -> Volume:
    """A body of water in air with 20 HU of white noise."""
    rng = np.random.default_rng(1)
    array = np.full((20, 70, 66), -1000.0)
    array[:, 10:60, 8:58] = 40.0
    array += rng.normal(0, 20, array.shape)
    return Volume(array.astype(np.float32), np.diag([2.5, 0.7, 0.7, 1.0]), IntensityUnit.HU)
