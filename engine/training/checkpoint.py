"""Everything a run needs to continue exactly: weights, EMA, optimiser and progress.

Batches are a function of seed and step (`engine.training.stream`), so no random state is kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import BundleError

CHECKPOINT = "checkpoint.pt"


@dataclass
class Progress:
    """How far a run is: optimiser steps, seconds of training, best validation gain in dB."""

    step: int = 0
    seconds: float = 0.0
    best_gain_db: float = float("-inf")


class Ema:
    """Exponential moving average of a network's parameters with a warm-up of the decay."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the current weights; the decay grows as 1 - (1 + step)^-3/4 up to its limit."""
        decay = min(self.decay, 1.0 - (1.0 + step) ** -0.75)
        names, values = zip(*network.named_parameters(), strict=True)
        torch._foreach_lerp_([self.weights[n] for n in names], [v.detach() for v in values], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Write the averaged weights into `network`."""
        for name, parameter in network.named_parameters():
            parameter.copy_(self.weights[name])


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    *,
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    progress: Progress,
) -> None:
    """Write the run's state atomically: a run killed while writing keeps the previous checkpoint."""
    state: dict[str, Any] = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "ema": ema.weights,
        "step": progress.step,
        "seconds": progress.seconds,
        "best_gain_db": progress.best_gain_db,
    }
    partial = folder / (CHECKPOINT + ".part")
    with partial.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / CHECKPOINT)


def load_checkpoint(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, device: torch.device
) -> Progress:
    """Restore the run's state in place. Weights-only reading: no code is ever loaded.

    Raises `BundleError` when the folder holds no readable checkpoint.
    """
    path = folder / CHECKPOINT
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError) as exc:
        raise BundleError(f"no readable checkpoint in {folder.name}") from exc
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    ema.weights = {name: value.to(device) for name, value in state["ema"].items()}
    return Progress(state["step"], state["seconds"], state["best_gain_db"])


def read_ema(folder: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a run. Raises `BundleError` when there are none."""
    try:
        state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as exc:
        raise BundleError(f"no readable checkpoint in {folder.name}") from exc
    weights: dict[str, Tensor] = state["ema"]
    return weights


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a small JSON file, indented."""
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
