"""Turn a run into a bundle.

`python -m engine.training.promote --run RUN [--reader FILE] --card FILE -o DIR`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from engine.bundle import load_bundle, write_bundle
from engine.diffusion.intensity import HU_PER_UNIT, MR_TOP
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.noise_reader import NoiseReader
from engine.diffusion.noise_schedule import STEPS
from engine.diffusion.preconditioning import SIGMA_DATA
from engine.errors import EngineError
from engine.training.checkpoint import read_ema
from engine.training.config import config_from


def promote(run: Path, reader_file: Path | None, card: Path, target: Path, version: str) -> None:
    """Write the averaged weights of `run` and the noise reader as the bundle `target`.

    Without `reader_file` the bundle that stands at `target` keeps its own.

    `card` is JSON: training data with licences, split, metrics, limits. Raises `BundleError` when
    something cannot be read or the weights are too large.
    """
    config = config_from(json.loads((run / "config.json").read_text(encoding="utf-8")))
    network, reader = UNet(SHAPES[config.network]), NoiseReader()
    network.load_state_dict(read_ema(run))
    if reader_file is None:
        reader = load_bundle(target).reader
    else:
        reader.load_state_dict(load_file(reader_file))
    facts = {
        "model_id": target.name,
        "version": version,
        "title": "3D diffusion noise reduction for CT and MR",
        "intended_use": "Research use only; not a medical device.",
        "scale": {"ct_hu_per_unit": HU_PER_UNIT, "mr_p995": MR_TOP, "sigma_data": SIGMA_DATA},
        "schedule": {"kind": "cosine", "steps": STEPS},
        "defaults": {"mode": "mean", "strength": 1.0},
        "training": config.to_json(),
        **json.loads(card.read_text(encoding="utf-8")),
    }
    write_bundle(target, network, reader, facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Promote; return 0, or 2 with one clear line when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.promote", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--reader", type=Path, help="default: that of the bundle being replaced")
    parser.add_argument("--card", type=Path, required=True, help="JSON of data, licences, split and metrics")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    try:
        promote(chosen.run, chosen.reader, chosen.card, chosen.output, chosen.version)
    except (EngineError, OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
