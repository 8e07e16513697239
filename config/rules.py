"""Which route takes a series and how long to wait for its last slice: pure decisions over plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from config.conditions import Condition, Orientation
from config.explain import SeriesSummary, Verdict, describe, explain
from config.sections import Route
from config.settings import Settings

__all__ = [
    "Condition",
    "Orientation",
    "RouteChoice",
    "SeriesSummary",
    "Verdict",
    "choose_route",
    "describe",
    "explain",
    "quiet_period_for",
]


@dataclass(frozen=True)
class RouteChoice:
    """The route that takes the series, or None, and why each route before it does not.

    rejected  (route name, failed clause), in file order.
    """

    route: Route | None
    rejected: tuple[tuple[str, str], ...] = ()


def choose_route(routes: Sequence[Route], summary: SeriesSummary) -> RouteChoice:
    """Return the first route that matches, in file order, with the failed clause of those before it."""
    rejected: list[tuple[str, str]] = []
    for route in routes:
        verdict = explain(route.when, summary)
        if verdict.matched:
            return RouteChoice(route, tuple(rejected))
        rejected.append((route.name, verdict.failed_clause))
    return RouteChoice(None, tuple(rejected))


def quiet_period_for(settings: Settings, route: Route | None, modality: str, calling_ae: str) -> timedelta:
    """Return how long no instance may arrive before the series counts as complete.

    The route decides, then the calling AE, then the modality, then the general period.
    """
    completion = settings.completion
    if route is not None and route.quiet_period is not None:
        return route.quiet_period
    by_ae = completion.quiet_period_by_ae.get(calling_ae.strip())
    if by_ae is not None:
        return by_ae
    return completion.quiet_period_by_modality.get(modality.strip().upper(), completion.quiet_period)
