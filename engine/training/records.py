"""What a run leaves to read: a CSV of every loss term, one of validation, and a picture of both."""

from __future__ import annotations

import csv
import importlib.util
import resource
from pathlib import Path

import torch

from engine.training.checkpoint import Progress

_COLUMNS = (
    "step", "seconds", "mse", "nll", "ssim", "pyramid", "bias", "rate", "gradient", "step_s", "memory_gib"
)  # fmt: skip
_SMOOTH = 50


class RunRecords:
    """The CSV files of one run folder; rows are held back until `flush`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._losses, self._validation = folder / "losses.csv", folder / "validation.csv"
        self._picture = folder / "curves.png"
        self._rows: list[list[str]] = []

    def add(self, progress: Progress, terms: dict[str, float], step_s: float) -> None:
        """Keep the terms of one step."""
        values = terms | {"step_s": step_s, "seconds": progress.seconds, "memory_gib": peak_memory_gib()}
        row = [str(progress.step)]
        row += [f"{values[name]:.6g}" if name in values else "" for name in _COLUMNS[1:]]
        self._rows.append(row)

    def add_validation(self, progress: Progress, gains: dict[str, float]) -> None:
        """Append one validation row."""
        new = not self._validation.exists()
        with self._validation.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", "seconds", *gains])
            writer.writerow([progress.step, f"{progress.seconds:.0f}", *(f"{v:.4f}" for v in gains.values())])

    def flush(self) -> None:
        """Append the kept rows to the CSV."""
        new = not self._losses.exists()
        with self._losses.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(_COLUMNS)
            writer.writerows(self._rows)
        self._rows.clear()

    def draw_curves(self) -> None:
        """Draw losses and validation gains into curves.png; without matplotlib, draw nothing."""
        if importlib.util.find_spec("matplotlib") is None or not self._losses.exists():
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 8), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        losses = _read(self._losses)
        for name in ("mse", "nll", "ssim", "pyramid", "bias"):
            steps, values = losses.get(name, ([], []))
            if values:
                top.plot(steps, _smooth(values), label=name, linewidth=1)
        top.set(yscale="symlog", ylabel="loss term, smoothed")
        for name, (steps, values) in (_read(self._validation) if self._validation.exists() else {}).items():
            if name != "seconds":
                bottom.plot(steps, values, marker=".", label=name, linewidth=2 if name == "mean" else 1)
        bottom.set(xlabel="step", ylabel="validation PSNR gain, dB")
        for axes in (top, bottom):
            if axes.has_data():
                axes.legend(fontsize="small")
        figure.savefig(self._picture, dpi=100)


def _read(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Columns of a CSV by name, with their steps; empty cells are left out."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for name, value in row.items():
                if value and name != "step":
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
    return columns


def _smooth(values: list[float]) -> list[float]:
    """Running exponential mean."""
    out, mean = [], values[0]
    for value in values:
        mean += (value - mean) / _SMOOTH
        out.append(mean)
    return out


def peak_memory_gib() -> float:
    """Return the peak memory of the process, or of the GPU when one is used."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
