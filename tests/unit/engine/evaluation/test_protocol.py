"""The whole evaluation of a bundle that nobody trained, on scans that nobody owns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import load_bundle, write_bundle
from engine.device import choose_device
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.noise_reader import NoiseReader
from engine.evaluation import report
from engine.evaluation.__main__ import main
from engine.evaluation.cases import noisy_cases, parse_levels
from engine.evaluation.compare import Picture, score
from engine.evaluation.descents import steps_table
from engine.evaluation.drawing import curves
from engine.evaluation.peers import gaussian
from engine.evaluation.probes import soft_tissue_phantom


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    array = soft_tissue_phantom((12, 64, 144)).array.astype(np.int16)
    np.savez(folder / "body.npz", array=array)
    facts = {"unit": "HU", "spacing_mm": [2.5, 0.7, 0.7]}
    (folder / "body.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network, reader = UNet(SHAPES["small"]), NoiseReader()
    for parameter in reader.members.parameters():
        torch.nn.init.zeros_(parameter)
    write_bundle(tmp_path / "bundle", network, reader, {"model_id": "untrained", "version": "0.0.1"})
    return tmp_path / "bundle"


def test_an_unreleased_bundle_is_evaluated_and_peers_are_kept(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    given = f"--data {data} --bundle {bundle} --quick --noise ct30c --peers gaussian --crops 2 --draws 2"
    arguments = [
        *given.split(),
        "--crop",
        "12,64,64",
        "--cache",
        str(cache),
        "-o",
        str(out),
        "--device",
        "cpu",
    ]

    assert main(arguments) == 0

    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    methods = {"input", "model", "gaussian"}
    assert {s["method"] for s in found["scores"]} == methods
    assert {(s["crop"], s["draw"]) for s in found["scores"]} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert set(found["means"]["psnr_body"]["CT 30 HU coloured"]) == methods
    assert found["comparisons"][0]["difference"]["units"] == 2
    assert found["facts"]["model"] == "untrained 0.0.1"
    assert len(list(cache.iterdir())) == 4
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert "model - gaussian" in capsys.readouterr().out


def test_descents_are_tabled_with_their_evaluations(bundle: Path) -> None:
    enhancer = DiffusionEnhancer(load_bundle(bundle), choose_device("cpu"))
    (case,) = noisy_cases("body", soft_tissue_phantom((8, 32, 32)), parse_levels("ct30c"))
    sampled = {"mode": "sample", "steps": 2, "repeats": 2}
    rows = steps_table(case, enhancer, ({"mode": "mean"}, {"mode": "refine", "steps": 2}, sampled))
    assert [(r["mode"], r["K"], r["evaluations"]) for r in rows] == [
        ("mean", 1, 1),
        ("refine", 1, 2),
        ("sample", 2, 4),
    ]
    assert all(r["psnr"] > 20 for r in rows[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--noise", "pet5"], "pet5"),
        (["--peers", "magic"], "unknown peer"),
        (["--crop", "4,4"], "slices,rows,columns"),
        (["--match", "absent-*"], "no scan"),
        (["--bundle", "nowhere"], "manifest"),
        (["--draws", "0"], "at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    data: Path,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    # A peer that every installation has: BM4D is installed by hand.
    given = f"--data {data} --bundle {bundle} --quick --peers gaussian -o {tmp_path / 'out'}"
    assert main([*given.split(), *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_report_holds_tables_and_a_plot_of_the_steps(tmp_path: Path) -> None:
    (case,) = noisy_cases("body", soft_tissue_phantom((12, 64, 64)), parse_levels("ct30c"))
    scores = [score(case, "input", case.noisy.array, 0.0), score(case, "model", gaussian(case), 0.1)]
    slices = {"truth": case.truth[6], "input": case.noisy.array[6], "model": case.truth[6]}
    steps = [{"level": "x", "mode": "refine", "evaluations": n, "psnr": 40.0 - n} for n in (2, 4)]
    found = report.Findings(
        "a < b", {"k": "v"}, scores, [Picture("p", True, 2000.0, slices, {})], {"PSNR against steps": steps}
    )
    report.write_report(tmp_path, found)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a &lt; b" in page
    assert "PSNR against steps" in page
    assert page.count("<img") == 4
    assert (
        json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["scores"][0]["noise_estimated"]
        is None
    )


def test_curves_without_points_draw_nothing() -> None:
    assert curves({"a": ([], [])}, x_label="x", y_label="y") == ""
