"""Figures of what an enhancement did to its series: noise before and after, bias, and spectra of what was removed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dicom_node.desk.images import Images, Layer, NoImageError, Slice
from storage.store import Store

_BANDS = 32
_SLICES = 6
_SMOOTH = 4.0
_KEPT = 64


@dataclass(frozen=True)
class Quality:
    """Figures of one job; noise in real units, frequencies in cycles per pixel, spectra as amplitude per band."""

    noise_before: float | None
    noise_after: float | None
    bias: float | None
    mean_difference: float
    std_difference: float
    largest_difference: float
    frequencies: tuple[float, ...]
    spectrum_source: tuple[float, ...]
    spectrum_derived: tuple[float, ...]
    spectrum_difference: tuple[float, ...]
    guards: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


class QualityFigures:
    """Computes figures once per job and keeps the latest."""

    def __init__(self, store: Store, images: Images) -> None:
        self._store = store
        self._images = images
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Quality] = OrderedDict()

    def of_job(self, job_id: int) -> Quality:
        """The figures of a finished enhancement. Raises what `Images` raises."""
        with self._lock:
            if job_id in self._kept:
                return self._kept[job_id]
        found = self._compute(job_id)
        with self._lock:
            self._kept[job_id] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _compute(self, job_id: int) -> Quality:
        result = self._store.jobs.get(job_id).result
        shown = self._images.of_job(job_id)
        if shown.derived is None:
            raise NoImageError("there are no stored images")
        count = len(shown.derived.paths)
        places = np.unique(np.linspace(count * 0.2, count * 0.8, _SLICES).astype(int)).clip(0, count - 1)
        pairs = [
            tuple(
                self._images.layer_slice(shown, layer, int(place)) for layer in (Layer.SOURCE, Layer.DERIVED)
            )
            for place in places
        ]
        differences = [derived - source for source, derived in pairs]
        return Quality(
            noise_before=_number(result.get("noise_before")),
            noise_after=_number(result.get("noise_after")),
            bias=_number(result.get("bias")),
            mean_difference=float(np.mean([np.mean(d) for d in differences])),
            std_difference=float(np.sqrt(np.mean([np.var(d) for d in differences]))),
            largest_difference=float(max(np.abs(d).max() for d in differences)),
            frequencies=tuple(float(f) for f in (np.arange(_BANDS) + 0.5) * 0.5 / _BANDS),
            spectrum_source=_mean_spectrum([_fine(source) for source, _ in pairs]),
            spectrum_derived=_mean_spectrum([_fine(derived) for _, derived in pairs]),
            spectrum_difference=_mean_spectrum(differences),
            guards=_mapping(result.get("guards")),
            seconds=_mapping(result.get("seconds")),
        )


def radial_spectrum(values: Slice, bands: int = _BANDS) -> NDArray[np.float64]:
    """Mean amplitude per band of radial frequency up to 0.5 cycles per pixel; white noise of std s gives s in each."""
    rows, columns = values.shape
    window = np.hanning(rows)[:, None] * np.hanning(columns)[None, :]
    centred = (values - values.mean()) * window
    power = np.abs(np.fft.rfft2(centred)) ** 2 / np.sum(window**2)
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    index = np.minimum((radius / 0.5 * bands).astype(int), bands)
    sums = np.bincount(index.ravel(), power.ravel(), bands + 1)[:bands]
    counts = np.maximum(np.bincount(index.ravel(), minlength=bands + 1)[:bands], 1)
    spectrum: NDArray[np.float64] = np.sqrt(sums / counts)
    return spectrum


def _fine(values: Slice) -> Slice:
    """What is left of a slice without its coarse structure."""
    fine: Slice = values - gaussian_filter(values, _SMOOTH)
    return fine


def _mean_spectrum(slices: list[Slice]) -> tuple[float, ...]:
    mean = np.sqrt(np.mean([radial_spectrum(values) ** 2 for values in slices], axis=0))
    return tuple(round(float(value), 6) for value in mean)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
