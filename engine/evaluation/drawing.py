"""Pieces of a page that needs no other file: slices as embedded PNG, curves as inline SVG, plain tables."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from engine.evaluation.metrics import Array

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25em .7em;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}.best{font-weight:700}.loss{color:#a93226}"
    "small{color:#666}img{width:190px;image-rendering:pixelated;margin:2px}"
    "figure{display:inline-block;margin:2px}figcaption{font-size:12px}code{overflow-wrap:anywhere}"
    ".scroll{overflow-x:auto}"
)
COLOURS = ("#888888", "#c0392b", "#2471a3", "#1e8449", "#b7950b", "#6c3483", "#117a65", "#a04000", "#2e4053")
_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 180, 46, 12


def page(heading: str, parts: Sequence[str]) -> str:
    """One HTML document around the parts."""
    title = html.escape(heading)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    return f"{head}<style>{STYLE}</style>\n" + "\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; column names are escaped."""
    head = "".join(f"<th>{html.escape(c)}" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return f'<div class="scroll"><table><tr>{head}{body}</table></div>'


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of plain rows with the same keys."""
    columns = list(rows[0])
    return table(columns, [[cell(r.get(c)) for c in columns] for r in rows])


def cell(value: object, digits: int = 3) -> str:
    """One value as text; a number that is none as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else html.escape(str(value))


def image(name: str, array: Array, low: float, high: float) -> str:
    """One slice as an embedded PNG, `low` black and `high` white."""
    grey = (np.clip((array - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = html.escape(name)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
    )


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Lines of (x, y) points with axes and names, as inline SVG. A logarithmic y shows three decades."""
    drawn = {n: (_axis(x, log=log_x), _axis(y, log=log_y)) for n, (x, y) in lines.items() if len(x)}
    if not drawn:
        return ""
    xs = np.concatenate([x for x, _ in drawn.values()])
    ys = np.concatenate([y for _, y in drawn.values()])
    bottom = max(ys.min(), ys.max() - 3) if log_y else ys.min()
    box = (xs.min(), max(xs.max(), xs.min() + 1e-9), bottom, max(ys.max(), bottom + 1e-9))
    marks = [_line(i, name, x, y, box) for i, (name, (x, y)) in enumerate(drawn.items())]
    height = max(_HEIGHT + 50, 30 + 15 * len(drawn))
    label = html.escape(f"{y_label} against {x_label}")
    frame = f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#bbb"/>'
    axes = _axis_texts(box, x_label, y_label, log_x=log_x, log_y=log_y)
    opening = f'<svg width="{_LEFT + _WIDTH + 170}" height="{height}" role="img" aria-label="{label}">'
    return f"{opening}{frame}{axes}{''.join(marks)}</svg>"


def _axis(values: Sequence[float], *, log: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Positions along an axis."""
    array = np.asarray(values, dtype=np.float64)
    return np.log10(np.maximum(array, 1e-12)) if log else array


def _line(
    number: int,
    name: str,
    x: np.ndarray[Any, np.dtype[np.float64]],
    y: np.ndarray[Any, np.dtype[np.float64]],
    box: tuple[float, float, float, float],
) -> str:
    """One polyline, its points marked when they are few, and its name."""
    left, right, bottom, top = box
    px = _LEFT + (x - left) / (right - left) * _WIDTH
    py = _TOP + _HEIGHT - (np.clip(y, bottom, top) - bottom) / (top - bottom) * _HEIGHT
    colour = COLOURS[number % len(COLOURS)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))
    dots = ""
    if len(px) <= 12:
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>'
            for a, b in zip(px, py, strict=True)
        )
    at = f'x="{_LEFT + _WIDTH + 10}" y="{_TOP + 10 + 15 * number}"'
    text = f'<text {at} fill="{colour}" font-size="12">{html.escape(name)}</text>'
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>{dots}{text}'


def _axis_texts(
    box: tuple[float, float, float, float], x_label: str, y_label: str, *, log_x: bool, log_y: bool
) -> str:
    """Ends of both axes and their names."""
    left, right, bottom, top = box

    def number(value: float, *, log: bool) -> str:
        return f"{10**value if log else value:.3g}"

    below = _TOP + _HEIGHT + 14
    parts = [
        (_LEFT, below, "start", number(left, log=log_x)),
        (_LEFT + _WIDTH, below, "end", number(right, log=log_x)),
        (_LEFT + _WIDTH / 2, below + 14, "middle", html.escape(f"{x_label}; upwards: {y_label}")),
        (_LEFT - 4, _TOP + _HEIGHT, "end", number(bottom, log=log_y)),
        (_LEFT - 4, _TOP + 10, "end", number(top, log=log_y)),
    ]
    return "".join(
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="11" fill="#555">{text}</text>'
        for x, y, anchor, text in parts
    )
