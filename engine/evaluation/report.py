"""The report: one self-contained HTML file and its numbers as JSON."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.evaluation.compare import Picture, Score, bootstrap_interval, to_json
from engine.evaluation.metrics import Array

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ccc;"
    "text-align:right}td:first-child,th:first-child{text-align:left}.best{font-weight:700}"
    "img{width:190px;image-rendering:pixelated;margin:2px}figure{display:inline-block;margin:2px}"
    "figcaption{font-size:12px}"
)
_COLOURS = ("#888", "#c0392b", "#2471a3", "#1e8449", "#b7950b", "#6c3483", "#117a65")
_CT_WINDOW = (-160.0, 240.0)


def write_report(
    folder: Path, scores: list[Score], pictures: list[Picture], extras: dict[str, Any], heading: str
) -> None:
    """Write report.html and report.json. `extras` holds further named tables (lists of plain rows)."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"heading": heading, "scores": to_json(scores), **extras}
    (folder / "report.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    parts = [f"<h1>{html.escape(heading)}</h1>", "<p>Research use only.</p>"]
    for metric, digits in (
        ("psnr", 2),
        ("ssim", 4),
        ("psnr_body", 2),
        ("rmse", 2),
        ("hfen", 3),
        ("snr_gain", 2),
    ):
        parts.append(_metric_table(scores, metric, digits))
    parts.append(_time_table(scores))
    for name, rows in extras.items():
        if isinstance(rows, list) and rows:
            parts.append(_rows_table(name, rows))
    parts += [_figure(p) for p in pictures]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(heading)}</title><style>{_STYLE}</style>"
    (folder / "report.html").write_text(page + "\n".join(parts) + "\n", encoding="utf-8")


def summary(scores: list[Score], metric: str) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return level -> method -> (mean over volumes, bootstrap low, high)."""
    table: dict[str, dict[str, list[float]]] = {}
    for s in scores:
        table.setdefault(s.level, {}).setdefault(s.method, []).append(float(getattr(s, metric)))
    return {
        level: {m: (float(np.mean(v)), *bootstrap_interval(v)) for m, v in methods.items()}
        for level, methods in table.items()
    }


def _metric_table(scores: list[Score], metric: str, digits: int) -> str:
    """Levels by methods; the best bold."""
    table = summary(scores, metric)
    methods = list(dict.fromkeys(s.method for s in scores))
    lower = metric in ("rmse", "hfen")
    head = "".join(f"<th>{html.escape(m)}" for m in methods)
    rows = []
    for level, cells in table.items():
        means = {m: c[0] for m, c in cells.items()}
        best = min(means, key=means.__getitem__) if lower else max(means, key=means.__getitem__)
        columns = []
        for m in methods:
            mean, low, high = cells[m]
            interval = f" <small>[{low:.{digits}f}, {high:.{digits}f}]</small>" if low != high else ""
            columns.append(f"<td{' class=best' if m == best else ''}>{mean:.{digits}f}{interval}")
        rows.append(f"<tr><td>{html.escape(level)}{''.join(columns)}")
    ranges = sorted({(s.scan, round(s.value_range, 1)) for s in scores})
    note = "; ".join(f"{html.escape(n)} R = {r:g}" for n, r in ranges) if metric in ("psnr", "ssim") else ""
    return f"<h2>{metric}</h2><p>{note}</p><table><tr><th>noise{head}{''.join(rows)}</table>"


def _time_table(scores: list[Score]) -> str:
    """Seconds per method, mean over cases."""
    times: dict[str, list[float]] = {}
    for s in scores:
        times.setdefault(s.method, []).append(s.seconds)
    rows = "".join(f"<tr><td>{html.escape(m)}<td>{np.mean(v):.2f}" for m, v in times.items() if m != "input")
    return f"<h2>seconds per volume</h2><table>{rows}</table>"


def _rows_table(name: str, rows: list[dict[str, Any]]) -> str:
    """A table of plain rows."""
    columns = list(rows[0])
    head = "".join(f"<th>{html.escape(c)}" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(r.get(c))}" for c in columns) for r in rows)
    return f"<h2>{html.escape(name)}</h2><table><tr>{head}{body}</table>"


def _cell(value: object) -> str:
    """One cell as text."""
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))


def _figure(picture: Picture) -> str:
    """Slices, what was removed, and noise spectra of one case."""
    low, high = _CT_WINDOW if picture.is_ct else (0.0, picture.value_range)
    shown = "".join(_image(name, a, low, high) for name, a in picture.slices.items())
    noisy = picture.slices["input"]
    half = float(np.std(noisy - picture.slices["truth"])) * 3 or 1.0
    removed = "".join(
        _image(f"input - {name}", noisy - a, -half, half)
        for name, a in picture.slices.items()
        if name not in ("input", "truth")
    )
    return f"<h2>{html.escape(picture.title)}</h2><div>{shown}</div><div>{removed}</div>{_spectra(picture)}"


def _image(name: str, array: Array, low: float, high: float) -> str:
    """One slice as an embedded PNG."""
    grey = (np.clip((array - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = html.escape(name)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
    )


def _spectra(picture: Picture) -> str:
    """Noise power against frequency of every method's error, logarithmic, as inline SVG."""
    if not picture.spectra:
        return ""
    top = max(max(v) for v in picture.spectra.values())
    lines = []
    for number, (name, values) in enumerate(picture.spectra.items()):
        level = np.clip(np.log10(np.maximum(np.asarray(values), 1e-9) / top), -3, 0)
        points = " ".join(f"{20 + 10 * i:.0f},{10 - 40 * v:.1f}" for i, v in enumerate(level))
        colour = _COLOURS[number % len(_COLOURS)]
        lines.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        lines.append(
            f'<text x="350" y="{20 + 14 * number}" fill="{colour}" font-size="11">{html.escape(name)}</text>'
        )
    note = "power of the error, three decades, against frequency up to Nyquist"
    return f'<p>{note}</p><svg width="440" height="140" role="img" aria-label="{note}">{"".join(lines)}</svg>'
