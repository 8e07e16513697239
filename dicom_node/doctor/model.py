"""The model: is the bundle whole, and does each enhancer in use remove noise from a phantom right here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.settings import Settings
from dicom_node.doctor.findings import Area, Finding
from engine.enhancer import EnhancementResult, EnhanceOptions
from engine.errors import EngineError
from engine.phantom import head_phantom, noisy_ct
from engine.registry import build_enhancer, enhancer_names
from engine.volume import Volume

_SHAPE, _SPACING_MM, _NOISE_HU = (16, 96, 96), (3.0, 2.4, 2.4), 20.0
_NOT_ENHANCED = "Series that need it fail, and nothing is sent for them."


@dataclass(frozen=True)
class EnhancerInUse:
    """An enhancer that the configuration names, with its options."""

    name: str
    options: Mapping[str, str | int | float | bool]


def enhancers_in_use(settings: Settings) -> list[EnhancerInUse]:
    """Each enhancer with each set of options once, the general one first."""
    found = [EnhancerInUse(settings.enhancement.enhancer, {})]
    for route in settings.routes:
        if route.action == "enhance":
            wanted = route.enhancement
            use = EnhancerInUse(wanted.enhancer or settings.enhancement.enhancer, dict(wanted.options))
            found += [use] if use not in found else []
    return found


def check_enhancer(use: EnhancerInUse, *, strength: float) -> list[Finding]:
    """Build an enhancer as a worker would and let it loose on a noisy head phantom."""
    area = Area("model", use.name)
    if use.name not in enhancer_names():
        return [
            area.problem(
                "There is no enhancer of this name.",
                meaning="The node does not start.",
                fix=f"Write one of {', '.join(enhancer_names())}.",
            )
        ]
    clean = head_phantom(_SHAPE, _SPACING_MM)
    noisy = noisy_ct(clean, _NOISE_HU, seed=1)
    try:
        enhancer = build_enhancer(use.name, use.options)
        options = EnhanceOptions(strength=strength, seed=1, extra=use.options)
        result = enhancer.enhance(noisy, options=options)
    except EngineError as exc:
        return [
            area.problem(f"The self-test failed: {exc}.", meaning=_NOT_ENHANCED, fix=_reinstall(use.name))
        ]
    return [judge_self_test(area, clean, noisy, result, changes=use.name != "identity" and strength > 0.0)]


def judge_self_test(
    area: Area, clean: Volume, noisy: Volume, result: EnhancementResult, *, changes: bool
) -> Finding:
    """Compare what came out with the truth: same grid, finite, and nearer to it than what went in."""
    out = result.volume
    same_grid = out.array.shape == noisy.array.shape and np.array_equal(out.affine, noisy.affine)
    if not same_grid or not np.isfinite(out.array).all():
        return area.problem(
            "The self-test gave a volume of another shape, or values that are no numbers.",
            meaning="The guards refuse such volumes; nothing is sent.",
            fix="Reinstall this version; with a GPU, try options {device: cpu} to tell the two apart.",
        )
    before, after = _error(clean, noisy), _error(clean, out)
    seen = f"The self-test took {result.report.seconds:.1f} s: error {before:.1f} to {after:.1f} HU."
    if changes and after >= before:
        return area.problem(
            seen,
            meaning="The image came out no better than it went in, so the computation is wrong here.",
            fix="Reinstall this version; with a GPU, try options {device: cpu} to tell the two apart.",
        )
    return area.ok(seen)


def check_bundle(folder: Path) -> list[Finding]:
    """Load a bundle as the engine does: manifest, digest of the weights, architecture."""
    from engine.bundle import load_bundle

    area = Area("model", folder.name)
    try:
        bundle = load_bundle(folder)
    except EngineError as exc:
        return [area.problem(f"{exc}.", meaning=_NOT_ENHANCED, fix=_reinstall(folder.name))]
    return [area.ok(f"Version {bundle.version} is whole: SHA-256 {bundle.digest[:12]} is the manifest's.")]


def shipped_bundles() -> list[Path]:
    """The folders of the bundles that came with this version."""
    from engine.bundle import BUNDLES, MANIFEST

    return sorted(path.parent for path in BUNDLES.glob(f"*/{MANIFEST}"))


def _error(clean: Volume, other: Volume) -> float:
    """Root mean square difference, in HU."""
    return float(np.sqrt(np.mean((clean.array - other.array) ** 2)))


def _reinstall(name: str) -> str:
    return f"Correct the options of {name} in the configuration, or reinstall this version."
