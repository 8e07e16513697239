"""A run learns, and one that was interrupted continues exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import BUNDLES, DEFAULT_MODEL, load_bundle
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.preconditioning import Denoiser
from engine.errors import BundleError, EngineInputError
from engine.simulation.randomness import Draw
from engine.training.__main__ import main
from engine.training.batches import draw_batch
from engine.training.config import SourceConfig, TrainingConfig, config_from
from engine.training.loop import Trainer, build_trainer, learning_rate
from engine.training.losses import ssim_3d, training_loss
from engine.training.patches import PatchSource


def tiny_config(data: Path, **changes: object) -> TrainingConfig:
    config = TrainingConfig(
        name="tiny",
        data=str(data),
        sources=(SourceConfig("ct*.npz"), SourceConfig("mr*.npz", average=2, halve=0.5)),
        network="small",
        shapes=((16, 32, 32),),
        batch=2,
        steps=4,
        compile=False,
        precision="float32",
        auxiliary_after=0.5,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(-200, 200, 48)[None, None, :] + np.zeros((24, 48, 48))
    for name, unit, array, spacing in (
        ("ct", "HU", ramp + rng.normal(0, 2, ramp.shape), (3.0, 0.7, 0.7)),
        ("mr", "arbitrary", np.abs(ramp) * 4 + 50, (1.0, 1.0, 1.0)),
    ):
        np.savez(folder / f"{name}.npz", array=array.astype(np.int16))
        facts = {"unit": unit, "spacing_mm": spacing}
        (folder / f"{name}.json").write_text(json.dumps(facts))
    return folder


def run_steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.step()


def test_a_resumed_run_continues_exactly(scans: Path, tmp_path: Path) -> None:
    config = tiny_config(scans)
    whole = build_trainer(config, tmp_path / "whole")
    run_steps(whole, 4)
    first = build_trainer(config, tmp_path / "parts")
    run_steps(first, 2)
    first.save()
    second = build_trainer(config, tmp_path / "parts")
    second.resume()
    run_steps(second, 2)
    assert second.progress.step == 4
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(whole.ema.weights[k], second.ema.weights[k]) for k in whole.ema.weights)


def test_resuming_without_a_checkpoint_is_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no readable checkpoint"):
        build_trainer(tiny_config(scans), tmp_path / "empty").resume()


def test_the_command_trains_and_leaves_curves(scans: Path, tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'name = "r"\ndata = "{scans}"\nnetwork = "small"\nshapes = [[16, 32, 32]]\nbatch = 1\nsteps = 2\n'
        'compile = false\nprecision = "float32"\nvalidation = ["mr*.npz"]\n[[sources]]\nmatch = "*.npz"\n'
    )
    assert main(["--config", str(toml), "--runs", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / "r"
    assert (folder / "checkpoint.pt").exists()
    assert len((folder / "losses.csv").read_text().splitlines()) == 3
    assert "MR 3%" in (folder / "validation.csv").read_text()


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "bad.toml"
    toml.write_text('name = "r"\ndata = "."\nepochs = 3\n')
    assert main(["--config", str(toml)]) == 2
    assert capsys.readouterr().err == "unknown training keys: epochs\n"


def test_a_run_can_start_from_the_shipped_bundle(scans: Path, tmp_path: Path) -> None:
    shipped = BUNDLES / DEFAULT_MODEL
    config = tiny_config(scans, network="base", start_from=str(shipped))
    trainer = build_trainer(config, tmp_path / "run")
    bundled = load_bundle(shipped).network.state_dict()
    assert all(torch.equal(value, bundled[name]) for name, value in trainer.network.state_dict().items())


def test_patch_edges_fit_the_stride() -> None:
    with pytest.raises(EngineInputError, match="multiple of 16"):
        config_from({"name": "a", "data": "b", "shapes": [[8, 32, 32]]})


def test_the_rate_warms_up_and_ends_low() -> None:
    config = TrainingConfig(name="a", data="b", sources=(), warm_up=10, learning_rate=1e-3)
    assert learning_rate(config, 0, 0.0) == pytest.approx(1e-4)
    assert learning_rate(config, 20, 0.0) == pytest.approx(1e-3)
    assert learning_rate(config, 20, 1.0) == pytest.approx(config.final_rate)


def test_ssim_of_an_image_with_itself_is_one() -> None:
    x = torch.rand(1, 1, 16, 16, 16)
    assert float(ssim_3d(x, x)) == pytest.approx(1.0)


@pytest.mark.timeout(120)
def test_one_patch_can_be_learnt_by_heart() -> None:
    torch.manual_seed(0)
    config = TrainingConfig(name="a", data="b", sources=(), phantom_share=1.0, ct_share=1.0)
    draw = Draw(3)
    batch = draw_batch(PatchSource([], config, draw), (32, 32, 32), 1, draw)
    denoiser = Denoiser(UNet(SHAPES["small"]))
    optimiser = torch.optim.AdamW(denoiser.network.parameters(), 3e-3)
    losses = []
    for _ in range(250):
        loss, terms = training_loss(denoiser, batch, {}, auxiliary=False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(terms["mse"]))
        if losses[-1] < losses[0] / 10:
            break
    assert losses[-1] < losses[0] / 10
