"""Which enhancers there are, by the name an operator writes into a route.

An explicit table, no plug-in discovery: what can run on patient data is what is written here. Each
factory imports its enhancer when asked, so that a node that runs the classical one never loads a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.enhancer import Enhancer
from engine.errors import EngineInputError

OptionValues = Mapping[str, str | int | float | bool]


def _build_identity(options: OptionValues) -> Enhancer:
    from engine.identity import IdentityEnhancer

    _refuse_unknown("identity", options, known=())
    return IdentityEnhancer()


def _build_classical(options: OptionValues) -> Enhancer:
    from engine.classical import ClassicalEnhancer

    _refuse_unknown("classical", options, known=())
    return ClassicalEnhancer()


def _build_diffusion(options: OptionValues) -> Enhancer:
    from engine.bundle import BUNDLES, load_bundle
    from engine.device import choose_device
    from engine.diffusion.diffusion_enhancer import DiffusionEnhancer

    _refuse_unknown(_DIFFUSION, options, known=("device", "mode", "steps", "repeats"))
    device = choose_device(str(options.get("device", "auto")))
    return DiffusionEnhancer(load_bundle(BUNDLES / _DIFFUSION), device)


_DIFFUSION = "ddpm3d-ctmr-1"
"""The shipped bundle; an enhancer's name is its model's id, so that a route pins what runs."""

_FACTORIES: Mapping[str, Callable[[OptionValues], Enhancer]] = {
    "classical": _build_classical,
    _DIFFUSION: _build_diffusion,
    "identity": _build_identity,
}


def enhancer_names() -> tuple[str, ...]:
    """Names that `build_enhancer` knows, in alphabetical order."""
    return tuple(sorted(_FACTORIES))


def build_enhancer(name: str, options: OptionValues | None = None) -> Enhancer:
    """Build the enhancer of that name.

    Raises `EngineInputError` when the name is unknown or an option is not one of this enhancer's.
    """
    factory = _FACTORIES.get(name)
    if factory is None:
        raise EngineInputError(f"no enhancer is called {name!r}; there are: {', '.join(enhancer_names())}")
    return factory(options or {})


def _refuse_unknown(name: str, options: OptionValues, *, known: tuple[str, ...]) -> None:
    """Refuse an option that the enhancer does not have; a misspelt one must not be ignored."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        allowed = ", ".join(known) or "none"
        raise EngineInputError(
            f"enhancer {name!r} has no option {', '.join(map(repr, unknown))} (options: {allowed})"
        )
