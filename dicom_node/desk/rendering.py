"""From real values to eight bits: windows as DICOM defines them, and PNG that a browser shows at once."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_node.desk.images import Slice


@dataclass(frozen=True)
class Window:
    """What is spread over the grey scale: centre and width in real values (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float


CT_PRESETS: Mapping[str, Window] = {
    "soft tissue": Window(40.0, 400.0),
    "lung": Window(-600.0, 1500.0),
    "bone": Window(400.0, 1800.0),
    "brain": Window(40.0, 80.0),
    "mediastinum": Window(50.0, 350.0),
    "liver": Window(60.0, 160.0),
}


def automatic(values: Slice) -> Window:
    """A window from the first to the 99.5th percentile of a slice, for what has no units."""
    low, high = np.percentile(values[::2, ::2], (1.0, 99.5))
    width = max(float(high - low), 1e-6)
    return Window(float(low) + width / 2, width)


def symmetric(values: Slice) -> Window:
    """A window about zero that shows a difference: three robust standard deviations to each side."""
    spread = 1.4826 * float(np.median(np.abs(values[::2, ::2]))) * 3.0
    return Window(0.0, 2.0 * max(spread, 1e-6))


def to_grey(values: Slice, window: Window, *, inverted: bool = False) -> NDArray[np.uint8]:
    """Spread the window over 0 to 255; linear, both ends included (PS3.3 C.11.2.1.3.2, LINEAR_EXACT)."""
    scaled = (values - np.float32(window.centre)) * np.float32(255.0 / window.width) + np.float32(127.5)
    grey: NDArray[np.uint8] = np.clip(np.nan_to_num(scaled), 0.0, 255.0).astype(np.uint8)
    return np.uint8(255) - grey if inverted else grey


def to_png(grey: NDArray[np.uint8]) -> bytes:
    """PNG, compressed lightly: on loopback time counts more than bytes. Nothing but pixels is in it."""
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG", compress_level=1)
    return out.getvalue()
