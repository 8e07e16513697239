"""The benchmark counts what was done and compares per voxel."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import write_bundle
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.noise_reader import NoiseReader
from engine.errors import EngineInputError
from engine.evaluation import speed
from engine.evaluation.machine import machine_facts, peak_memory

TINY = (16, 16, 16)
PEER = speed.PeerSpeed("bm4d", (16, 100, 100), 8.0)


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network, reader = UNet(SHAPES["small"]), NoiseReader()
    for parameter in reader.members.parameters():
        torch.nn.init.zeros_(parameter)
    write_bundle(tmp_path, network, reader, {"model_id": "small-test", "version": "0.0.1"})
    return tmp_path


def test_every_plan_takes_its_evaluations_and_is_compared_per_voxel(bundle_folder: Path) -> None:
    enhancer, place = speed.load_enhancer(str(bundle_folder), "cpu")
    short = speed.Plan("sample2", 2, {"mode": "sample", "steps": 2})
    plans, told = [speed.PLANS["mean"], speed.PLANS["refine4"], short], []

    rows = speed.measure(enhancer, [TINY], plans, on_cuda=False, repeats=1, peer=PEER, tell=told.append)

    assert place.startswith("cpu")
    assert [row.evaluations for row in rows] == [1, 4, 2]
    assert len(told) == len(rows)
    for row in rows:
        assert (row.asked, row.ran_on, len(row.seconds)) == (TINY, TINY, 1)
        assert row.mvoxels_per_s == pytest.approx(math.prod(TINY) / 1e6 / row.median_s)
        assert row.against_peer == pytest.approx(PEER.seconds_per_mvoxel / row.seconds_per_mvoxel)


def test_the_figures_are_plain_json(bundle_folder: Path) -> None:
    enhancer, place = speed.load_enhancer(str(bundle_folder), "cpu")
    rows = speed.measure(
        enhancer, [TINY], [speed.PLANS["mean"]], on_cuda=False, repeats=3, peer=PEER, tell=lambda _: None
    )

    values = json.loads(json.dumps(speed.as_json(rows, PEER, machine_facts(place))))

    assert values["peer"]["seconds_per_mvoxel"] == pytest.approx(50.0)
    assert values["rows"][0]["median_s"] == sorted(rows[0].seconds)[1]
    assert values["machine"]["torch"] == torch.__version__


def test_an_enhancer_without_modes_is_timed_as_a_whole() -> None:
    enhancer, _ = speed.load_enhancer("classical", "auto")
    (row,) = speed.measure(
        enhancer, [(16, 64, 64)], [speed.ONLY], on_cuda=False, repeats=1, peer=None, tell=lambda _: None
    )

    assert not speed.has_modes(enhancer)
    assert (row.plan, row.evaluations, row.against_peer) == ("whole", 0, None)


def test_long_plans_get_a_crop_on_a_cpu() -> None:
    assert speed.affordable((32, 128, 128), 1) == (32, 128, 128)
    assert math.prod(speed.affordable((32, 128, 128), 4)) * 4 <= 1_100_000
    assert speed.affordable((512, 512, 512), 50) == (16, 64, 64)


def test_a_large_volume_is_made_of_mirrored_copies() -> None:
    volume = speed.benchmark_volume((70, 260, 256))

    assert volume.array.shape == (70, 260, 256)
    assert np.array_equal(volume.array[64:], volume.array[63:57:-1])


def test_memory_taken_and_given_back_is_noticed() -> None:
    with peak_memory(on_cuda=False) as peak:
        held = np.ones(40 * 2**20, np.uint8)
        time.sleep(0.5)  # many samples, on a busy machine too
        del held

    assert not peak or peak[0] > 30 * 2**20


@pytest.mark.parametrize("text", ["64,256", "0,64,64", "a,b,c", "8,64,64"])
def test_a_bad_shape_is_refused(text: str) -> None:
    with pytest.raises(EngineInputError, match="slices,rows,columns"):
        speed.parse_shape(text)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(EngineInputError, match="fast"):
        speed.choose_plans("mean,fast")
