"""The packaged configuration loads as it is and names every key."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import BaseModel

from config.conditions import Condition
from config.problems import keys_of, model_at
from config.sections import Route
from config.settings import Settings
from config.template import TEMPLATE

Load = Callable[[str], Settings]


def test_template_loads_unchanged(load: Load) -> None:
    settings = load(TEMPLATE)

    assert [peer.name for peer in settings.peers] == ["pacs"]
    assert [route.action for route in settings.routes] == ["ignore", "enhance"]


def test_template_shows_the_defaults(load: Load) -> None:
    settings, defaults = load(TEMPLATE), load("node: {}")

    assert settings.model_copy(update={"peers": (), "routes": ()}) == defaults


def test_template_names_every_key() -> None:
    missing = [key for model in every_section(Settings) for key in keys_of(model) if not mentions(key)]

    assert missing == []


def test_commented_keys_load_when_the_comment_is_taken_away(load: Load) -> None:
    uncommented = re.sub(r"^( +)# ( *[a-z_]+:)", r"\1\2", TEMPLATE, flags=re.MULTILINE)

    settings = load(uncommented)

    route: Route = settings.routes[1]
    assert settings.peers[0].calling_ae_title == "ENHANCE"
    assert (route.minimum_slices, route.enhancement.strength) == (8, 0.7)
    assert settings.storage.database_url is not None
    assert settings.derivation.uid_root == "1.2.826.0.1.99"


def test_template_says_research_use_only() -> None:
    assert "Research use only, not a cleared medical device" in TEMPLATE


def every_section(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The model and all sections below it."""
    found = {model}
    for key in keys_of(model):
        below = model_at(model, (key,))
        if below is not None and below not in (model, Condition):
            found |= every_section(below)
    return found | {Condition} if model is Route else found


def mentions(key: str) -> bool:
    return re.search(rf"\b{key}:", TEMPLATE) is not None
