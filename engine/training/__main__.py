"""`python -m engine.training --config FILE [--resume RUN] [--runs DIR] [--promote BUNDLE]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import EngineError
from engine.training.checkpoint import write_json
from engine.training.config import TrainingConfig, config_from, load_config
from engine.training.loop import build_trainer

_BAR = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; return 0, or 2 with one clear line when the input is invalid."""
    parser = argparse.ArgumentParser(prog="python -m engine.training", description=__doc__)
    parser.add_argument("--config", type=Path, help="TOML file of a new run, or of changes to a resumed one")
    parser.add_argument("--resume", type=Path, help="run folder to continue from its checkpoint")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where new run folders are made")
    parser.add_argument("--data", help="folder of exported scans, in place of the configuration's")
    chosen = parser.parse_args(arguments)
    try:
        _train(chosen.config, chosen.resume, chosen.runs, chosen.data)
    except (EngineError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _train(config_path: Path | None, resume: Path | None, runs: Path, data: str | None) -> None:
    """Build or reopen a run and train it to its end."""
    if config_path is not None:
        config = load_config(config_path)
    elif resume is not None:
        config = config_from(json.loads((resume / "config.json").read_text(encoding="utf-8")))
    else:
        raise ValueError("give --config FILE for a new run or --resume RUN to continue one")
    if data:
        config = replace(config, data=data)
    folder = resume or _new_folder(runs, config)
    trainer = build_trainer(config, folder)
    if resume is not None:
        trainer.resume()
    write_json(folder / "config.json", config.to_json())
    trainer.run(_tell)
    sys.stdout.write("\n")


def _new_folder(runs: Path, config: TrainingConfig) -> Path:
    """Return an unused folder for the run."""
    folder, number = runs / config.name, 2
    while (folder / "config.json").exists():
        folder, number = runs / f"{config.name}-{number}", number + 1
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tell(fraction: float, line: str) -> None:
    """Draw the progress bar; on a terminal it stays in place."""
    filled = round(_BAR * fraction)
    end = "\r" if sys.stdout.isatty() and not line.startswith("gain") else "\n"
    if end == "\r" or line.startswith("gain") or _worth_a_line(line):
        sys.stdout.write(f"[{'#' * filled}{'.' * (_BAR - filled)}] {fraction:6.1%} {line}{end}")
        sys.stdout.flush()


def _worth_a_line(line: str) -> bool:
    """In a log file, only every hundredth step is written."""
    return line.startswith("step ") and int(line.split()[1]) % 100 == 0


if __name__ == "__main__":
    raise SystemExit(main())
