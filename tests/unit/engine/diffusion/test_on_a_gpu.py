"""The engine and its training on a GPU that is not there (`pretend_gpu`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import BUNDLES, DEFAULT_MODEL, load_bundle
from engine.device import ComputeDevice
from engine.diffusion import fused
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.evaluation.cases import noisy_case, parse_levels
from engine.evaluation.probes import uniform_truth
from engine.simulation.randomness import Draw
from engine.training.config import SourceConfig, TrainingConfig
from engine.training.loop import build_trainer
from engine.volume import Volume
from tests.unit.engine.pretend_gpu import GPU, PretendGpu


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendGpu]:
    """A GPU for the time of a test, with neither kernels nor generators of its own."""

    def draw_on_cpu(self: Draw, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._scalars, self._arrays = (torch.Generator().manual_seed(seed + k) for k in (0, 1))

    monkeypatch.setattr(Draw, "__init__", draw_on_cpu)
    monkeypatch.setattr(fused, "has_triton", lambda: False)
    with PretendGpu() as mode:
        yield mode


def test_two_devices_do_not_meet(pretend: PretendGpu) -> None:
    here, there = torch.ones(3), torch.ones(3).to("cuda")
    assert (here.device.type, there.device.type) == ("cpu", "cuda")
    assert (there * 2 + torch.tensor(1.0)).device == GPU
    assert (there.cpu() + here).device.type == "cpu"
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        here[there > 0]
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


WHOLE, TILES = 10**12, 10**6
"""Memory for the volume on the GPU, and for tiles alone."""


@pytest.mark.parametrize(
    ("modality", "memory", "extra"),
    [
        ("ct30c", WHOLE, {"mode": "mean"}),
        ("ct30c", TILES, {"mode": "refine", "steps": 2}),
        ("mr5", WHOLE, {"mode": "sample", "steps": 2}),
        ("mr5", TILES, {"mode": "mean"}),
    ],
)
def test_a_volume_is_enhanced_without_mixing_devices(
    pretend: PretendGpu, memory: int, extra: dict[str, str | int], modality: str
) -> None:
    (level,) = parse_levels(modality)
    noisy = noisy_case(uniform_truth(level, (8, 64, 64)), level).noisy
    options = EnhanceOptions(strength=1.0, extra=extra)
    with_gpu = DiffusionEnhancer(
        load_bundle(BUNDLES / DEFAULT_MODEL), ComputeDevice(GPU, torch.float32, memory)
    )
    before = pretend.operations

    found = with_gpu.enhance(noisy, options=options)

    assert pretend.operations - before > 200
    assert found.report.parameters["device"] == "cuda:0 float32"
    assert isinstance(found.volume.array, np.ndarray)
    assert found.report.noise_after < 0.5 * found.report.noise_before


def test_what_the_volume_takes_of_the_gpu_is_not_given_to_tiles(pretend: PretendGpu) -> None:
    (level,) = parse_levels("ct30c")
    noisy = noisy_case(uniform_truth(level, (16, 64, 256)), level).noisy
    roomy = DiffusionEnhancer(load_bundle(BUNDLES / DEFAULT_MODEL), ComputeDevice(GPU, torch.float32, WHOLE))
    one_tile = roomy.memory_bytes((16, 64, 256)) - noisy.array.size * 4 * 8
    tight = DiffusionEnhancer(
        load_bundle(BUNDLES / DEFAULT_MODEL), ComputeDevice(GPU, torch.float32, one_tile)
    )

    tiles = [e.enhance(noisy, options=EnhanceOptions()).report.parameters["tile"] for e in (roomy, tight)]

    assert tiles[0] == "16x64x256"
    assert tiles[1] != "16x64x256"


def test_the_gpu_that_is_not_there_gives_what_the_cpu_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "has_triton", lambda: False)
    (level,) = parse_levels("ct30c")
    noisy = noisy_case(uniform_truth(level, (8, 64, 64)), level).noisy
    padded = Volume(noisy.array, noisy.affine, noisy.unit, valid=noisy.array > -2000)
    options = EnhanceOptions(strength=1.0)
    bundle = BUNDLES / DEFAULT_MODEL
    cpu = DiffusionEnhancer(load_bundle(bundle), ComputeDevice(torch.device("cpu"), torch.float32, 10**9))
    expected = cpu.enhance(padded, options=options).volume.array
    with PretendGpu():
        gpu = DiffusionEnhancer(load_bundle(bundle), ComputeDevice(GPU, torch.float32, 10**12))
        np.testing.assert_allclose(gpu.enhance(padded, options=options).volume.array, expected, atol=0.01)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """One CT and one MR scan to learn from."""
    ramp = np.linspace(-200, 200, 48)[None, None, :] + np.zeros((24, 48, 48))
    for name, unit, array in (("ct", "HU", ramp), ("mr", "arbitrary", np.abs(ramp) * 4 + 50)):
        noise = np.random.default_rng(0).normal(0, 2, ramp.shape)
        np.savez(tmp_path / f"{name}.npz", array=(array + noise).astype(np.int16))
        (tmp_path / f"{name}.json").write_text(json.dumps({"unit": unit, "spacing_mm": (1.5, 0.8, 0.8)}))
    return tmp_path


def test_training_steps_mix_no_devices(pretend: PretendGpu, scans: Path, tmp_path: Path) -> None:
    config = TrainingConfig(
        name="tiny",
        data=str(scans),
        sources=(SourceConfig("*.npz", average=2, halve=0.5),),
        validation=("*.npz",),
        network="small",
        shapes=((16, 32, 32),),
        batch=2,
        steps=4,
        compile=False,
        precision="float32",
        auxiliary_after=0.5,
        lesion_share=1.0,
        device="cuda",
    )
    trainer = build_trainer(config, tmp_path / "run")
    before = pretend.operations

    for _ in range(config.steps):
        trainer.step()
    trainer.validate()

    assert pretend.operations - before > 2000
    assert all(parameter.device == GPU for parameter in trainer.network.parameters())
