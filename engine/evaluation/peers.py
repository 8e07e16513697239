"""The methods to beat, each told the true noise. Optional libraries: bm4d and scikit-image.

bm4d is licensed for non-commercial use: a benchmark that a user installs, never a dependency. What a peer
is told beyond the noisy volume stands in its parameters, which also name its results in a cache.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from engine.enhancer import EnhanceOptions
from engine.errors import EngineInputError, OutOfRangeError
from engine.evaluation.cases import NoisyCase
from engine.evaluation.metrics import Array
from engine.evaluation.rician import stabilised
from engine.simulation.ct_noise import noise_power

_TV_WEIGHT, _NLM_H = 1.1, 0.8
_GAUSSIAN = (0.5, 0.8, 0.8)


@dataclass(frozen=True)
class Peer:
    """A method, the distribution it needs, its fixed parameters, and whether it takes a case."""

    run: Callable[[NoisyCase], Array]
    package: str | None = None
    parameters: Mapping[str, str | float] = field(default_factory=dict)
    ct: bool = True
    mr: bool = True

    def takes(self, case: NoisyCase) -> bool:
        """Whether it is made for this modality."""
        return self.ct if case.level.is_ct else self.mr

    def told(self, case: NoisyCase) -> dict[str, str | float]:
        """Everything its result depends on beside the noisy volume."""
        version = importlib.metadata.version(self.package) if self.package else ""
        return {**self.parameters, "sigma": case.sigma, "noise": str(case.level.shape), "version": version}


def gaussian(case: NoisyCase) -> Array:
    """Smooth with 0.8 voxels in-plane, half a voxel along."""
    return ndimage.gaussian_filter(case.noisy.array, _GAUSSIAN)


def tv(case: NoisyCase) -> Array:
    """Total variation (Chambolle), weight proportional to the noise."""
    from skimage.restoration import denoise_tv_chambolle

    scaled = case.noisy.array / case.value_range
    weight = _TV_WEIGHT * case.sigma / case.value_range
    result = denoise_tv_chambolle(scaled, weight=weight, max_num_iter=60)  # type: ignore[no-untyped-call]
    return np.asarray(result * case.value_range, dtype=np.float32)


def nlm(case: NoisyCase) -> Array:
    """Non-local means in 3D: patch 3, search 9, h = 0.8 sigma."""
    from skimage.restoration import denoise_nl_means

    result = denoise_nl_means(
        case.noisy.array,
        patch_size=3,
        patch_distance=4,
        h=_NLM_H * case.sigma,
        sigma=case.sigma,
        fast_mode=True,
    )
    return np.asarray(result, dtype=np.float32)


def classical(case: NoisyCase) -> Array:
    """Run our enhancer without a learned model, not told the noise; a refused scan comes back unchanged."""
    from engine.classical import ClassicalEnhancer

    try:
        options = EnhanceOptions(strength=1.0)
        return ClassicalEnhancer().enhance(case.noisy, options=options).volume.array
    except OutOfRangeError:
        return case.noisy.array


def _bm4d(array: Array, noise: float | Array) -> Array:
    """BM4D with its standard profile; `noise` is a deviation or a power spectrum."""
    import bm4d

    if not hasattr(np, "trapz"):
        # bm4d 4.2 calls it for coloured noise; NumPy 2.4 knows it as trapezoid alone.
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
    told = noise.astype(np.float64) if isinstance(noise, np.ndarray) else noise
    return np.asarray(bm4d.bm4d(array.astype(np.float64), told), dtype=np.float32)


def bm4d_white(case: NoisyCase) -> Array:
    """BM4D told the true deviation, noise taken as white."""
    return _bm4d(case.noisy.array, case.sigma)


def bm4d_psd(case: NoisyCase) -> Array:
    """BM4D told the true noise power spectrum as well."""
    size = case.truth.shape
    power = noise_power((size[0], size[1], size[2]), case.level.shape).numpy()
    return _bm4d(case.noisy.array, np.asarray(power * case.sigma**2 * np.prod(size), dtype=np.float32))


def bm4d_rician(case: NoisyCase) -> Array:
    """BM4D between a variance-stabilising transform and its exact unbiased inverse."""
    return stabilised(_bm4d, case.noisy.array, case.sigma)


PEERS: dict[str, Peer] = {
    "gaussian": Peer(gaussian, None, {"width": str(_GAUSSIAN)}),
    "tv": Peer(tv, "scikit-image", {"weight": _TV_WEIGHT}),
    "nlm": Peer(nlm, "scikit-image", {"h": _NLM_H, "patch": 3, "search": 9}),
    "classical": Peer(classical),
    "bm4d": Peer(bm4d_white, "bm4d", {"profile": "np"}),
    "bm4d-psd": Peer(bm4d_psd, "bm4d", {"profile": "np"}, mr=False),
    "bm4d-rician": Peer(bm4d_rician, "bm4d", {"profile": "np"}, ct=False),
}
DEFAULT_PEERS = "bm4d,bm4d-psd,bm4d-rician,nlm,tv,gaussian,classical"
UNCACHED = ("classical",)
"""Code of this repository, which changes without its version changing."""


def choose_peers(names: str) -> dict[str, Peer]:
    """Return the named peers. Raises `EngineInputError` for an unknown or missing one."""
    chosen: dict[str, Peer] = {}
    for name in filter(None, (n.strip() for n in names.split(","))):
        if name not in PEERS:
            raise EngineInputError(f"unknown peer {name!r}; choose from {', '.join(PEERS)}")
        peer = PEERS[name]
        if peer.package is not None and not _installed(peer.package):
            raise EngineInputError(f"peer {name} needs the package {peer.package}, which is not installed")
        chosen[name] = peer
    return chosen


def _installed(distribution: str) -> bool:
    """Whether a distribution is there."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
