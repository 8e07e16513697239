"""The methods to beat, each told the true noise. Optional libraries: bm4d and scikit-image.

bm4d is licensed for non-commercial use: a benchmark that a user installs, never a dependency.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from engine.errors import EngineInputError
from engine.evaluation.cases import SOFT_KERNEL, NoisyCase
from engine.evaluation.metrics import Array
from engine.simulation.ct_noise import CtNoiseShape, noise_power

Peer = Callable[[NoisyCase], Array]


def gaussian(case: NoisyCase) -> Array:
    """Smooth with 0.8 voxels in-plane."""
    return ndimage.gaussian_filter(case.noisy.array, (0.5, 0.8, 0.8))


def tv(case: NoisyCase) -> Array:
    """Total variation (Chambolle), weight proportional to the noise."""
    from skimage.restoration import denoise_tv_chambolle

    scaled = case.noisy.array / case.value_range
    weight = 1.1 * case.sigma / case.value_range
    result = denoise_tv_chambolle(scaled, weight=weight, max_num_iter=60)  # type: ignore[no-untyped-call]
    return np.asarray(result * case.value_range, dtype=np.float32)


def nlm(case: NoisyCase) -> Array:
    """Non-local means in 3D, patch 3, search 5, h = 0.8 sigma."""
    from skimage.restoration import denoise_nl_means

    result = denoise_nl_means(
        case.noisy.array, patch_size=3, patch_distance=4, h=0.8 * case.sigma, sigma=case.sigma, fast_mode=True
    )
    return np.asarray(result, dtype=np.float32)


def bm4d_white(case: NoisyCase) -> Array:
    """BM4D told the true deviation, noise taken as white."""
    import bm4d

    return np.asarray(bm4d.bm4d(case.noisy.array.astype(np.float64), case.sigma), dtype=np.float32)


def bm4d_psd(case: NoisyCase) -> Array:
    """BM4D told the true noise power spectrum as well."""
    import bm4d

    shape = SOFT_KERNEL if case.level.coloured else CtNoiseShape()
    size = case.truth.shape
    psd = noise_power((size[0], size[1], size[2]), shape).numpy() * case.sigma**2 * np.prod(size)
    return np.asarray(bm4d.bm4d(case.noisy.array.astype(np.float64), psd), dtype=np.float32)


PEERS: dict[str, tuple[Peer, str | None]] = {
    "gaussian": (gaussian, None),
    "tv": (tv, "skimage"),
    "nlm": (nlm, "skimage"),
    "bm4d": (bm4d_white, "bm4d"),
    "bm4d-psd": (bm4d_psd, "bm4d"),
}


def choose_peers(names: str) -> dict[str, Peer]:
    """Return the named peers. Raises `EngineInputError` for an unknown or missing one."""
    chosen: dict[str, Peer] = {}
    for name in filter(None, (n.strip() for n in names.split(","))):
        if name not in PEERS:
            raise EngineInputError(f"unknown peer {name!r}; choose from {', '.join(PEERS)}")
        peer, library = PEERS[name]
        if library is not None and importlib.util.find_spec(library) is None:
            raise EngineInputError(f"peer {name} needs the library {library}, which is not installed")
        chosen[name] = peer
    return chosen
