"""Routes as a text of their own: read with every problem and its line, written as the file would have them."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from config.conflicts import find_conflicts
from config.errors import ConfigError, Problem
from config.key_paths import KeyPath, key_path_text, line_of
from config.problems import in_file_order, list_problems
from config.quantities import WRITTEN
from config.sections import Route, Section
from config.settings import Settings
from config.yaml_loader import parse_document

_SOURCE = "routes"


class _Routes(Section):
    """The text as a whole: the key `routes`, as in the configuration file."""

    routes: tuple[Route, ...] = ()


def read_routes(text: str, settings: Settings) -> Settings:
    """The settings with the routes of this text. Raises `ConfigError` with every problem and its line.

    The text holds the key `routes` as in the configuration file, and nothing else. Its destinations have to be among
    the peers of the settings.
    """
    document = parse_document(text, source=_SOURCE)
    problems = list(document.problems)
    try:
        routes = _Routes.model_validate(document.data, context={WRITTEN: True}).routes
    except ValidationError as exc:
        problems += list_problems(exc, model=_Routes, lines=document.lines, known_faulty=document.faulty)
        raise ConfigError(in_file_order(problems), source=_SOURCE) from exc
    merged: dict[str, Any] = {**settings.model_dump(), "routes": [route.model_dump() for route in routes]}
    for conflict in find_conflicts(merged):
        path: KeyPath = conflict.path
        problems.append(Problem(key_path_text(path), line_of(document.lines, path), conflict.message))
    if problems:
        raise ConfigError(in_file_order(problems), source=_SOURCE)
    return settings.model_copy(update={"routes": routes})


def write_routes(settings: Settings) -> str:
    """The routes as text that `read_routes` reads back to the same; defaults are left out."""
    routes = [
        route.model_dump(mode="json", by_alias=True, exclude_defaults=True) for route in settings.routes
    ]
    text: str = yaml.safe_dump(
        {"routes": routes}, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return text
