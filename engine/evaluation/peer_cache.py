"""Results of slow peers on disk, named by a digest of the input and of everything the peer was told."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from engine.evaluation.cases import NoisyCase
from engine.evaluation.metrics import Array
from engine.evaluation.peers import UNCACHED, Peer


@dataclass(frozen=True, eq=False)
class PeerResult:
    """What a peer returned and the seconds it took when it ran. `cached`: it did not run now."""

    array: Array
    seconds: float
    cached: bool


def run_peer(name: str, peer: Peer, case: NoisyCase, folder: Path | None) -> PeerResult:
    """Run a peer, or read what it returned earlier from `folder` (None: always run).

    A damaged or foreign file is run again. Files appear whole or not at all.
    """
    path = None if folder is None or name in UNCACHED else folder / f"{name}-{_digest(name, peer, case)}.npz"
    if path is not None and (kept := _read(path, case)) is not None:
        return kept
    start = time.perf_counter()
    array = peer.run(case)
    seconds = time.perf_counter() - start
    if path is not None:
        _write(path, array, seconds)
    return PeerResult(array, seconds, cached=False)


def _digest(name: str, peer: Peer, case: NoisyCase) -> str:
    """SHA-256 over name, parameters, shape and voxels."""
    told = {"peer": name, "shape": case.noisy.array.shape, **peer.told(case)}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(case.noisy.array).tobytes())
    return digest.hexdigest()[:32]


def _read(path: Path, case: NoisyCase) -> PeerResult | None:
    """Read a kept result; None when there is none that fits."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            array, seconds = stored["array"], float(stored["seconds"])
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return None
    if array.shape != case.truth.shape or array.dtype != np.float32:
        return None
    return PeerResult(array, seconds, cached=True)


def _write(path: Path, array: Array, seconds: float) -> None:
    """Write beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(beside, array=array, seconds=np.float64(seconds))
    beside.replace(path)
