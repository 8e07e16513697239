"""Turns validation errors into problems an operator can act on: place, line, what is wrong, what to write."""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.conflicts import nearest
from config.errors import Problem
from config.key_paths import KeyPath, key_path_text, line_of

_SECRET_KEYS = frozenset({"database_url"})
"""Keys whose value may hold a password and is never repeated."""


def list_problems(
    error: ValidationError,
    *,
    model: type[BaseModel],
    lines: Mapping[KeyPath, int],
    known_faulty: Collection[KeyPath] = frozenset(),
    skip_types: Collection[str] = frozenset(),
) -> list[Problem]:
    """Return one problem for each wrong value.

    known_faulty  paths that have a problem of their own already, so nothing more is said about them
    skip_types    error types that the caller reports itself
    """
    problems: dict[KeyPath, Problem] = {}
    errors = error.errors(include_url=False)
    places = {_place(details) for details in errors}
    for details in errors:
        path = _place(details)
        if details["type"] in skip_types or _inside_any(path, known_faulty):
            continue
        if details["type"] == "too_short" and _holds_another(path, places):
            continue  # the list is only short of the items that are wrong
        message = _message(details, model)
        problems.setdefault(path, Problem(key_path_text(path), line_of(lines, path), message))
    return list(problems.values())


def in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort by line; what has no line comes first."""
    return tuple(sorted(problems, key=lambda problem: problem.line or 0))


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys that the operator may write in a section."""
    return [info.alias or name for name, info in model.model_fields.items()]


def model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the section that the path leads to, or None where there is a plain value."""
    current: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue  # the annotation of the list has led to its items already
        if current is None:
            return None
        current = _field_model(current, part)
    return current


def _field_model(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    for name, info in model.model_fields.items():
        if key in (name, info.alias):
            return _model_in(info.annotation)
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the section inside of Optional, tuple and Annotated."""
    parts = typing.get_args(annotation)
    if not parts:
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return annotation if is_section else None
    return next((found for part in parts if (found := _model_in(part)) is not None), None)


def _place(details: ErrorDetails) -> KeyPath:
    """The path of the value; an error in a key of a mapping stands where the key does."""
    return tuple(part for part in details["loc"] if part != "[key]")


def _inside_any(path: KeyPath, places: Collection[KeyPath]) -> bool:
    return any(path[: len(place)] == place for place in places)


def _holds_another(path: KeyPath, places: Collection[KeyPath]) -> bool:
    return any(len(place) > len(path) and place[: len(path)] == path for place in places)


def _message(details: ErrorDetails, model: type[BaseModel]) -> str:
    kind = details["type"]
    path = _place(details)
    if kind == "extra_forbidden":
        return _unknown_key(path, model)
    if details["input"] is None and kind != "missing":
        return "nothing is written here; give a value or remove the key"
    write = _MESSAGES.get(kind)
    if write is None:
        return str(details["msg"])
    return write(details.get("ctx", {}), _shown(details["input"], path))


def _unknown_key(path: KeyPath, model: type[BaseModel]) -> str:
    parent = model_at(model, path[:-1])
    valid = keys_of(parent) if parent is not None else []
    key = str(path[-1])
    hint = nearest(key, valid)
    if "did you mean" not in hint:
        home = _home_of(key, parent, path[:-1]) or _home_of(key, model, ())
        hint = f"; {key} belongs in {home}" if home is not None else hint
    return f"unknown key{hint}"


def _home_of(key: str, model: type[BaseModel] | None, path: KeyPath) -> str | None:
    """Return the section below `path` that has such a key, where the operator put it one level off."""
    for name, info in model.model_fields.items() if model is not None else ():
        section = info.annotation  # a list of sections is no home: nobody could tell which item
        if isinstance(section, type) and issubclass(section, BaseModel) and key in keys_of(section):
            return key_path_text((*path, name))
    return None


def _shown(value: object, path: KeyPath) -> str:
    if path and path[-1] in _SECRET_KEYS:
        return "the value"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _literal(context: Mapping[str, Any], shown: str) -> str:
    valid = [word.strip("'\" ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
    return f"{shown} is not known here{nearest(shown.strip(chr(39)), valid)}"


def _text(_context: Mapping[str, Any], shown: str) -> str:
    # The number is not repeated: 010 or 1.10 would come out otherwise than the operator wrote it.
    if shown[:1].isdigit() or shown[:1] == "-":
        return "a number is no text; write it in quotes"
    return f"expected a text, found {shown}"


def _expected(what: str) -> Callable[[Mapping[str, Any], str], str]:
    return lambda _context, shown: f"expected {what}, found {shown}"


_MESSAGES: Mapping[str, Callable[[Mapping[str, Any], str], str]] = {
    "missing": lambda _context, _shown: "this key is required",
    "literal_error": _literal,
    "string_type": _text,
    "int_type": _expected("a whole number"),
    "int_from_float": _expected("a whole number"),
    "float_type": _expected("a number"),
    "bool_type": _expected("true or false"),
    "bool_parsing": _expected("true or false"),
    "path_type": _expected("a path"),
    "tuple_type": _expected("a list"),
    "mapping_type": _expected("a mapping of keys and values"),
    "dict_type": _expected("a mapping of keys and values"),
    "model_type": _expected("a mapping of keys and values"),
    "model_attributes_type": _expected("a mapping of keys and values"),
    "too_short": lambda _context, _shown: "the list is empty",
    "greater_than_equal": lambda context, shown: f"{shown} is too little; at least {context['ge']}",
    "less_than_equal": lambda context, shown: f"{shown} is too much; at most {context['le']}",
}
