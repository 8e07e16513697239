"""A bundle is read only when it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.bundle import BUNDLES, DEFAULT_MODEL, MANIFEST, WEIGHTS, load_bundle, write_bundle
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.noise_reader import NoiseReader
from engine.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "model"
    write_bundle(target, UNet(SHAPES["small"]), NoiseReader(), {"model_id": "model", "version": "1.2.3"})
    return target


def change_manifest(folder: Path, **values: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_written_bundle_is_read_back(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert (bundle.model_id, bundle.version) == ("model", "1.2.3")
    assert bundle.network.shape == SHAPES["small"]
    assert not any(p.requires_grad for p in bundle.network.parameters())


def test_one_changed_byte_is_noticed(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(BundleError, match="no readable weights"):
        load_bundle(folder)


def test_an_unknown_layout_is_refused(folder: Path) -> None:
    change_manifest(folder, layout=99)
    with pytest.raises(BundleError, match="layout 99"):
        load_bundle(folder)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    change_manifest(folder, architecture=SHAPES["base"].to_json())
    with pytest.raises(BundleError, match="do not fit"):
        load_bundle(folder)


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    change_manifest(folder, architecture={"layers": 3})
    with pytest.raises(BundleError, match="unknown architecture"):
        load_bundle(folder)


def test_the_shipped_bundle_is_whole_and_small() -> None:
    bundle = load_bundle(BUNDLES / DEFAULT_MODEL)
    assert bundle.model_id == DEFAULT_MODEL
    assert (BUNDLES / DEFAULT_MODEL / WEIGHTS).stat().st_size <= 16 * 2**20
    assert (BUNDLES / DEFAULT_MODEL / "MODEL_CARD.md").exists()
    assert all(bool(torch.isfinite(p).all()) for p in bundle.network.parameters())
