"""The report: one self-contained HTML file and its numbers as JSON."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation.compare import INPUT, MODEL, Picture, Score, by_unit, to_json
from engine.evaluation.drawing import cell, curves, image, page, rows_table, table
from engine.evaluation.intervals import Comparison, Estimate, bootstrap, compare_paired
from engine.evaluation.metrics import BINS

_CT_WINDOW = (-160.0, 240.0)


@dataclass(frozen=True)
class Metric:
    """A column of scores: its title, digits, and whether more is better (None: neither)."""

    title: str
    digits: int
    higher: bool | None = True


METRICS = {
    "psnr_body": Metric("PSNR in the body, dB", 2),
    "psnr": Metric("PSNR of the whole crop, dB", 2),
    "psnr_soft": Metric("PSNR in the soft-tissue window (40/400 HU), dB", 2),
    "psnr_lung": Metric("PSNR in the lung window (-600/1500 HU), dB", 2),
    "ssim_body": Metric("3D SSIM in the body", 4),
    "ssim": Metric("3D SSIM of the whole crop", 4),
    "rmse_body": Metric("RMSE in the body, HU or scanner units", 2, False),
    "rmse": Metric("RMSE of the whole crop, HU or scanner units", 2, False),
    "hfen": Metric("HFEN in the body", 3, False),
    "snr_gain": Metric("SNR gain in homogeneous regions (1 is +100 %)", 2),
    "slope": Metric("slope against the truth in the body", 4, None),
    "nps_peak": Metric("peak frequency of the remaining noise over the input's", 2, None),
    "nps_mean": Metric("mean frequency of the remaining noise over the input's", 2, None),
    "residual_max": Metric("largest power of the removed over the noise's (at most 1.05)", 2, None),
    "residual_edges": Metric("correlation of |removed| with edges (at most 0.1)", 3, None),
    "cover68": Metric("errors within 1 stated deviation (0.68)", 3, None),
    "cover95": Metric("errors within 1.96 stated deviations (0.95)", 3, None),
}
COMPARED = ("psnr_body", "psnr", "ssim_body", "ssim", "hfen")


@dataclass(frozen=True)
class Findings:
    """Everything one evaluation found. `extras`: named tables; `plots`: name -> line -> (x, y)."""

    heading: str
    facts: Mapping[str, Any]
    scores: Sequence[Score]
    pictures: Sequence[Picture] = ()
    extras: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def write_report(folder: Path, found: Findings) -> None:
    """Write report.html and report.json; the JSON holds every score, mean, interval and table."""
    folder.mkdir(parents=True, exist_ok=True)
    compared = comparisons(found.scores)
    values = {
        "heading": found.heading,
        "facts": dict(found.facts),
        "means": {m: summary(found.scores, m) for m in METRICS},
        "comparisons": [asdict(c) for c in compared],
        "tables": {name: list(rows) for name, rows in found.extras.items()},
        "scores": to_json(found.scores),
    }
    text = json.dumps(_plain(values), indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(found.heading, _parts(found, compared)), encoding="utf-8")


def summary(scores: Sequence[Score], metric: str) -> dict[str, dict[str, Estimate]]:
    """Return level -> method -> mean over crops with its interval; without those that have no number."""
    out: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(s.method for s in scores):
        for level, units in by_unit(scores, metric, method).items():
            out.setdefault(level, {})[method] = bootstrap(units)
    return out


def comparisons(scores: Sequence[Score]) -> list[Comparison]:
    """Compare the model with every peer, level by level."""
    peers = [m for m in dict.fromkeys(s.method for s in scores) if m not in (INPUT, MODEL)]
    rows = []
    for metric in COMPARED:
        ours = by_unit(scores, metric, MODEL)
        theirs = {p: by_unit(scores, metric, p) for p in peers}
        rows += compare_paired(metric, ours, theirs, higher_is_better=METRICS[metric].higher is not False)
    return rows


def as_text(scores: Sequence[Score], metric: str = "psnr_body") -> str:
    """Return the means of one metric and the model's lead over every peer as plain text."""
    methods = list(dict.fromkeys(s.method for s in scores))
    digits = METRICS[metric].digits
    lines = [METRICS[metric].title, "  ".join(["level".ljust(18)] + [m.rjust(11) for m in methods])]
    for level, cells in summary(scores, metric).items():
        shown = [cell(cells[m].mean if m in cells else None, digits).rjust(11) for m in methods]
        lines.append("  ".join([level.ljust(18), *shown]))
    for c in comparisons(scores):
        if c.metric == metric:
            d = c.difference
            lines.append(
                f"{c.level.ljust(18)}  model - {c.peer}: {d.mean:+.{digits}f} "
                f"[{d.low:+.{digits}f}, {d.high:+.{digits}f}], worst {c.worst:+.{digits}f} "
                f"({c.worst_unit}), p {c.p_holm:.3g}, n {d.units}"
            )
    return "\n".join(lines)


def _parts(found: Findings, compared: Sequence[Comparison]) -> list[str]:
    """Every section of the page."""
    facts = "".join(
        f"<dt>{html.escape(k)}<dd><code>{html.escape(str(v))}</code>" for k, v in found.facts.items()
    )
    parts = [
        f"<h1>{html.escape(found.heading)}</h1>",
        "<p>Research use only. Means over crops, the noise draws of a crop averaged; in brackets the 95 % "
        "interval of a two-stage bootstrap over scans and crops. Peers are told the true noise, the model and "
        "the classical enhancer are not.</p>",
        f"<details open><summary>How it was made</summary><dl>{facts}</dl></details>",
        "<h2>The model less each peer</h2>",
        *(_compared_table(metric, compared) for metric in COMPARED),
        *(_metric_table(found.scores, metric) for metric in METRICS),
        _bias_table(found.scores),
        _cost_table(found.scores),
    ]
    for name, rows in found.extras.items():
        if rows:
            parts.append(f"<h2>{html.escape(name)}</h2>{rows_table(rows)}")
    parts.append(_steps_plot(found.extras.get("PSNR against steps", ())))
    return parts + [_figure(p) for p in found.pictures]


def _compared_table(metric: str, compared: Sequence[Comparison]) -> str:
    """Differences, intervals, the worst crop and p; losses marked."""
    kind = METRICS[metric]
    rows = []
    for c in (c for c in compared if c.metric == metric):
        d, n = c.difference, kind.digits
        lost = d.mean > 0 if kind.higher is False else d.mean < 0
        mean = f"<span{' class=loss' if lost else ''}>{d.mean:+.{n}f}</span>"
        interval = f"[{d.low:+.{n}f}, {d.high:+.{n}f}]"
        worst = f"{c.worst:+.{n}f} <small>{html.escape(c.worst_unit)}</small>"
        rows.append(
            [
                html.escape(c.level),
                html.escape(c.peer),
                mean,
                interval,
                worst,
                f"{c.p_holm:.3g}",
                str(d.units),
            ]
        )
    if not rows:
        return ""
    columns = ("noise", "peer", "model - peer", "95 %", "worst crop", "p (Wilcoxon, Holm)", "crops")
    return f"<h3>{html.escape(kind.title)}</h3>{table(columns, rows)}"


def _metric_table(scores: Sequence[Score], metric: str) -> str:
    """Levels by methods; the best bold, where more or less is better."""
    kind, means = METRICS[metric], summary(scores, metric)
    methods = [m for m in dict.fromkeys(s.method for s in scores) if any(m in c for c in means.values())]
    rows = []
    for level, cells in means.items():
        values = {m: e.mean for m, e in cells.items()}
        best = None
        if kind.higher is not None:
            best = (max if kind.higher else min)(values, key=values.__getitem__)
        row = [html.escape(level)]
        for m in methods:
            shown = _with_interval(cells.get(m), kind.digits)
            row.append(f'<span class="best">{shown}</span>' if m == best else shown)
        rows.append(row)
    if not rows:
        return ""
    note = _ranges(scores) if metric in ("psnr", "psnr_body", "ssim", "ssim_body") else ""
    return f"<h2>{html.escape(kind.title)}</h2>{note}{table(['noise', *methods], rows)}"


def _ranges(scores: Sequence[Score]) -> str:
    """R of every scan."""
    ranges = sorted({(s.scan, round(s.value_range, 1)) for s in scores})
    return "<p>" + "; ".join(f"{html.escape(n)}: R = {r:g}" for n, r in ranges) + "</p>"


def _with_interval(estimate: Estimate | None, digits: int) -> str:
    """A mean with its interval."""
    if estimate is None or math.isnan(estimate.mean):
        return "–"
    if estimate.units < 2:
        return f"{estimate.mean:.{digits}f}"
    interval = f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{estimate.mean:.{digits}f} <small>{interval}</small>"


def _bias_table(scores: Sequence[Score]) -> str:
    """Mean signed error of the model per tissue: mean over crops and the largest of one crop."""
    gathered: dict[tuple[str, str], list[float]] = {}
    for s in (s for s in scores if s.method == MODEL):
        for tissue, value in s.bias.items():
            percent = value if s.level.startswith("CT") else 100 * value / s.value_range
            gathered.setdefault((s.level, tissue), []).append(percent)
    rows = [
        [html.escape(level), tissue, f"{np.mean(v):+.2f}", f"{max(v, key=abs):+.2f}", str(len(v))]
        for (level, tissue), v in gathered.items()
    ]
    title = "<h2>Bias of the model per tissue, HU (CT) or % of R (MR)</h2>"
    return title + table(("noise", "tissue", "mean", "largest", "crops"), rows) if rows else ""


def _cost_table(scores: Sequence[Score]) -> str:
    """Seconds per million voxels of every method, memory of the model."""
    rows = []
    for method in dict.fromkeys(s.method for s in scores if s.method != INPUT):
        own = [s for s in scores if s.method == method]
        speed = float(np.median([s.seconds * 1e6 / s.voxels for s in own]))
        memory = [s.memory_bytes / 2**20 for s in own if s.memory_bytes is not None]
        kept = sum(s.cached for s in own)
        rows.append(
            [
                html.escape(method),
                f"{speed:.2f}",
                f"{max(memory):.0f}" if memory else "–",
                f"{kept} of {len(own)}",
            ]
        )
    columns = ("method", "s per million voxels, median", "MiB, most", "timed in an earlier run")
    return "<h2>Time and memory</h2>" + table(columns, rows)


def _steps_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """PSNR against evaluations, one line per level and mode."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.get("psnr") is not None:
            x, y = lines.setdefault(f"{row['level']}, {row['mode']}", ([], []))
            x.append(float(row["evaluations"]))
            y.append(float(row["psnr"]))
    return curves(lines, x_label="network evaluations", y_label="PSNR, dB", log_x=True)


def _figure(picture: Picture) -> str:
    """Slices, what was removed, and noise spectra of one case."""
    low, high = _CT_WINDOW if picture.is_ct else (0.0, picture.value_range)
    shown = "".join(image(name, a, low, high) for name, a in picture.slices.items())
    noisy = picture.slices[INPUT]
    half = float(np.std(noisy - picture.slices["truth"])) * 3 or 1.0
    removed = "".join(
        image(f"input - {name}", noisy - a, -half, half)
        for name, a in picture.slices.items()
        if name not in (INPUT, "truth")
    )
    f = [(i + 0.5) / BINS for i in range(BINS)]
    spectra = curves(
        {name: (f, values) for name, values in picture.spectra.items()},
        x_label="frequency, parts of Nyquist",
        y_label="noise power of the error",
        log_y=True,
    )
    return f"<h2>{html.escape(picture.title)}</h2><div>{shown}</div><div>{removed}</div>{spectra}"


def _plain(value: Any) -> Any:
    """The value with records as mappings and numbers that are not finite as null."""
    if isinstance(value, Estimate):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
