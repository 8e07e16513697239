"""Model bundles: a manifest and its weights, verified by SHA-256, never a pickle.

A bundle is a folder with manifest.json, weights.safetensors (half precision) and MODEL_CARD.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.diffusion.network import NetworkShape, UNet
from engine.diffusion.noise_reader import NoiseReader
from engine.errors import BundleError

MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
LAYOUT = 2
"""Version of the bundle layout this code reads and writes."""
MAX_BYTES = 16 * 2**20
BUNDLES = Path(__file__).with_name("bundles")
DEFAULT_MODEL = "ddpm3d-ctmr-1"


@dataclass(frozen=True)
class ModelBundle:
    """A verified model, weights in fp32 on the CPU. `digest` is the SHA-256 of the weights file."""

    model_id: str
    version: str
    digest: str
    manifest: dict[str, Any]
    network: UNet
    reader: NoiseReader


def load_bundle(folder: Path) -> ModelBundle:
    """Read and verify a bundle.

    Raises `BundleError` when a file is missing, the layout is unknown, the digest differs from the
    manifest's, or the weights do not fit the architecture.
    """
    manifest = _read_manifest(folder)
    path = folder / WEIGHTS
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise BundleError(f"the bundle {folder.name} has no readable weights") from exc
    if digest != manifest["sha256"]:
        raise BundleError(
            f"the weights of {folder.name} are damaged: digest {digest[:12]}... is not the manifest's"
        )
    network, reader = UNet(shape_from(manifest["architecture"])), NoiseReader()
    try:
        stored = load_file(path)
        network.load_state_dict(_under("network.", stored))
        reader.load_state_dict(_under("reader.", stored))
    except (SafetensorError, RuntimeError) as exc:
        raise BundleError(f"the weights of {folder.name} do not fit its architecture") from exc
    network = network.eval().requires_grad_(requires_grad=False)
    reader.eval().requires_grad_(requires_grad=False)
    return ModelBundle(manifest["model_id"], manifest["version"], digest, manifest, network, reader)


def write_bundle(folder: Path, network: UNet, reader: NoiseReader, facts: dict[str, Any]) -> dict[str, Any]:
    """Write weights and manifest; return the manifest.

    `facts` needs ``model_id`` and ``version``; everything else (data, split, metrics, licences) is kept
    as given. Raises `BundleError` when the weights exceed 16 MiB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{k}": _half(v) for k, v in network.state_dict().items()}
    tensors |= {f"reader.{k}": v.contiguous().float() for k, v in reader.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    content = (folder / WEIGHTS).read_bytes()
    if len(content) > MAX_BYTES:
        raise BundleError(f"the weights take {len(content)} bytes; a bundle holds at most {MAX_BYTES}")
    manifest = {
        "layout": LAYOUT,
        **facts,
        "architecture": network.shape.to_json(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def shape_from(values: dict[str, Any]) -> NetworkShape:
    """Rebuild the network's shape from its JSON. Raises `BundleError` for unknown or missing keys."""
    try:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return NetworkShape(**plain)
    except TypeError as exc:
        raise BundleError("the manifest describes an unknown architecture") from exc


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise BundleError(f"the bundle {folder.name} has no readable manifest") from exc
    if manifest.get("layout") != LAYOUT:
        raise BundleError(f"the bundle {folder.name} has layout {manifest.get('layout')}, not {LAYOUT}")
    missing = [key for key in ("model_id", "version", "architecture", "sha256") if key not in manifest]
    if missing:
        raise BundleError(f"the manifest of {folder.name} lacks {', '.join(missing)}")
    return manifest


def _under(prefix: str, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names start with `prefix`, in fp32."""
    return {k.removeprefix(prefix): v.float() for k, v in stored.items() if k.startswith(prefix)}


def _half(tensor: Tensor) -> Tensor:
    """Half precision, plain layout."""
    return tensor.detach().to(torch.float16).contiguous()
