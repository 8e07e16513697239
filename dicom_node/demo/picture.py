"""before_after.png: the middle slice of the source, of the derived series, and their difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engine.volume import IntensityUnit, Volume

Float = NDArray[np.float32]

_HEIGHT = 512
_MARGIN = 12
_CAPTION = 30


def write_picture(path: Path, before: Volume, after: Volume, *, noise: tuple[float, float]) -> None:
    """Write source, derived and difference side by side; both images in the same window.

    The difference is stretched to +-4 times the source's noise, so that anatomy in it would show.
    """
    middle = before.array.shape[0] // 2
    left, right = before.array[middle], after.array[middle]
    low, high = window(left, before.unit)
    unit = "HU" if before.unit is IntensityUnit.HU else ""
    span = max(4.0 * noise[0], 1e-6)
    panels = [
        (_panel(left, low, high), f"source, noise {noise[0]:.1f} {unit}"),
        (_panel(right, low, high), f"derived, noise {noise[1]:.1f} {unit}"),
        (_panel(left - right, -span, span), f"difference, +-{span:.0f} {unit}"),
    ]
    _compose(panels).save(path, format="PNG", optimize=True)


def window(image: Float, unit: IntensityUnit) -> tuple[float, float]:
    """Display window: brain for a CT head slice, wide soft tissue for other CT, percentiles for MR."""
    if unit is not IntensityUnit.HU:
        low, high = np.percentile(image, (1.0, 99.5))
        return float(low), float(max(high, low + 1.0))
    tissue = image[(image > -200.0) & (image < 200.0)]
    lung = float(np.mean((image > -950.0) & (image < -600.0)))
    if lung > 0.05 or tissue.size == 0:
        return -160.0, 240.0
    return -40.0, 120.0


def _panel(image: Float, low: float, high: float) -> Image.Image:
    """One slice as an 8-bit picture of the common height."""
    scaled = np.clip((image - low) / (high - low), 0.0, 1.0)
    picture = Image.fromarray((scaled * 255.0).round().astype(np.uint8))
    width = max(1, round(picture.width * _HEIGHT / picture.height))
    return picture.resize((width, _HEIGHT), Image.Resampling.BICUBIC)


def _compose(panels: list[tuple[Image.Image, str]]) -> Image.Image:
    """Put captioned panels in a row."""
    width = sum(panel.width for panel, _ in panels) + _MARGIN * (len(panels) + 1)
    sheet = Image.new("L", (width, _HEIGHT + 2 * _CAPTION + _MARGIN), 0)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    x = _MARGIN
    for panel, caption in panels:
        draw.text((x, 6), caption.strip(), fill=230, font=font)
        sheet.paste(panel, (x, _CAPTION))
        x += panel.width + _MARGIN
    foot = "Research use only. Not a cleared medical device."
    draw.text((_MARGIN, _HEIGHT + _CAPTION + 8), foot, fill=150, font=ImageFont.load_default(13))
    return sheet
