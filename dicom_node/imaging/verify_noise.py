"""How noisy a volume of the source is, measured as the guards measure it: asked for where a mean fell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dicom_node.errors import ReasonedError
from dicom_node.imaging.geometry import make_stack
from dicom_node.imaging.pixels import Cells, padding_of
from dicom_node.imaging.verify_model import Pair
from engine.volume import IntensityUnit, Volume


def noise_of(volume: Sequence[Pair], cells_of: Callable[[Pair], Cells]) -> float:
    """Return the standard deviation of the noise of an MR volume, in its unit; 0 where none can be told.

    `cells_of` reads the pixels of the source once more: a volume that keeps its mean never needs them.
    """
    # Loads PyTorch, which a process that only looks at headers spares.
    from engine.noise import estimate_noise

    try:
        stack = make_stack([pair.source.header for pair in volume])
        pairs = [volume[index] for index in stack.order]
        real, valid = zip(*(_real(pair, cells_of(pair)) for pair in pairs), strict=True)
        whole = Volume(np.stack(real), stack.affine, IntensityUnit.ARBITRARY, np.stack(valid))
        return estimate_noise(whole).sigma
    except (ReasonedError, ValueError):
        return 0.0


def _real(pair: Pair, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Real values of a slice and where it was measured, (rows, columns) each."""
    header = pair.source.header
    layout, (slope, intercept) = header.pixels, header.rescale
    padding = padding_of(pair.source.dataset, layout)
    real = layout.to_stored(cells) * np.float64(1.0 if slope is None else slope)
    valid = np.ones(cells.shape, np.bool_) if padding is None else ~padding.mask(cells, layout)
    return (real + (0.0 if intercept is None else intercept)).astype(np.float32), valid
