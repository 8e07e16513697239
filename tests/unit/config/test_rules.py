"""The first matching route takes the series; the most particular quiet period wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from config.rules import Condition, SeriesSummary, choose_route, quiet_period_for
from config.sections import CompletionSection, Route
from config.settings import Settings

Summarise = Callable[..., SeriesSummary]


def route(name: str, **when: object) -> Route:
    return Route(name=name, when=Condition.model_validate(when), send_to=("pacs",))


def test_first_match_in_file_order_wins(summarise: Summarise) -> None:
    routes = (route("mr", modality="MR"), route("head", body_part="HEAD"), route("ct", modality="CT"))

    choice = choose_route(routes, summarise())

    assert choice.route is routes[1]
    assert choice.rejected == (("mr", "modality is CT, rule wants MR"),)


def test_priority_does_not_change_which_route_takes_the_series(summarise: Summarise) -> None:
    routes = (route("first"), Route(name="urgent", priority=10, send_to=("pacs",)))

    assert choose_route(routes, summarise()).route is routes[0]


def test_series_without_route_names_every_failed_clause(summarise: Summarise) -> None:
    routes = (route("mr", modality="MR"), route("chest", body_part="CHEST"))

    choice = choose_route(routes, summarise())

    assert choice.route is None
    assert [name for name, _ in choice.rejected] == ["mr", "chest"]
    assert all(clause for _, clause in choice.rejected)


def test_route_without_condition_takes_everything(summarise: Summarise) -> None:
    catch_all = Route(name="rest", action="ignore")

    assert choose_route((catch_all,), summarise(modality="US")).route is catch_all


@pytest.mark.parametrize(
    ("own", "modality", "calling_ae", "seconds"),
    [
        (timedelta(seconds=5), "CT", "SLOW", 5),
        (None, "CT", "SLOW", 300),
        (None, "CT", "SLOW ", 300),
        (None, "CT", "OTHER", 30),
        (None, "MR", "OTHER", 90),
        (None, "US", "OTHER", 60),
    ],
)
def test_quiet_period_goes_from_route_to_ae_to_modality_to_general(
    own: timedelta | None, modality: str, calling_ae: str, seconds: int
) -> None:
    settings = Settings(completion=CompletionSection(quiet_period_by_ae={"SLOW": timedelta(minutes=5)}))
    chosen = Route(name="r", send_to=("pacs",), quiet_period=own)

    assert quiet_period_for(settings, chosen, modality, calling_ae) == timedelta(seconds=seconds)


def test_quiet_period_is_known_before_any_route_is() -> None:
    assert quiet_period_for(Settings(), None, "CT", "X") == timedelta(seconds=30)
