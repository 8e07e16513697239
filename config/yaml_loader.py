"""YAML to plain values, with the line of every key, and without the traps of YAML.

Only texts, numbers, true, false, null, lists and mappings come out. `no`, `on`, `010`, `1E5` and `12:30`
stay texts, because an AE title may look like that (nearer to YAML 1.2 than to 1.1). Tags, duplicate keys, merge
keys, many aliases and deep or very large files are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError, Problem
from config.key_paths import KeyPath, key_path_text

MAX_BYTES = 1024**2
MAX_ALIASES = 50
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Values after aliases are written out: what a small file can grow to."""

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_CONSTANTS: Mapping[str, Mapping[str, bool | None]] = {
    f"{_TAG}bool": {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False},
    f"{_TAG}null": {"": None, "~": None, "null": None, "Null": None, "NULL": None},
}
_MISSING = object()


@dataclass(frozen=True)
class Document:
    """A file as plain values.

    data      what the file says; a value with a problem of its own is left out
    lines     1-based line of each key and list item; the empty path is the file
    problems  what is wrong with the YAML itself; `faulty` holds the paths of the values left out
    """

    data: Any
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...]
    faulty: frozenset[KeyPath]


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises `ConfigError` when it cannot be read or is no YAML at all."""
    return parse_document(_read_text(path), source=path.name)


def parse_document(text: str, *, source: str = "configuration") -> Document:
    """Parse YAML text. Raises `ConfigError` when the text as a whole is no acceptable YAML."""
    try:
        root = _Composer(text).get_single_node()
    except _TooMuchError as exc:
        raise ConfigError([Problem("", exc.line, str(exc))], source=source) from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark is not None else None
        message = f"not well-formed YAML: {exc.problem or exc.context}"
        raise ConfigError([Problem("", line, message)], source=source) from exc
    except yaml.YAMLError as exc:
        raise ConfigError(
            [Problem("", None, "the file holds a character that YAML refuses")], source=source
        ) from exc
    if root is None:
        raise ConfigError([Problem("", None, "the file is empty")], source=source)
    return _Builder().build(root)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        message = f"cannot be read: {exc.strerror or type(exc).__name__}"
        raise ConfigError([Problem("", None, message)], source=str(path)) from exc
    if len(content) > MAX_BYTES:
        raise ConfigError([Problem("", None, "the file is larger than 1 MiB")], source=path.name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError([Problem("", line, "the file is not UTF-8 text")], source=path.name) from exc


class _TooMuchError(yaml.YAMLError):
    """The file is valid YAML but deeper or more entangled than any configuration."""

    def __init__(self, message: str, event: yaml.Event) -> None:
        super().__init__(message)
        mark = event.start_mark
        self.line = mark.line + 1 if mark is not None else None


class _Composer(yaml.SafeLoader):
    """Builds nodes only; no constructor ever runs, so no tag can make an object."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._aliases = 0
        self._depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Name the tag of a node; `implicit` is (True, False) for a scalar without quotes."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _plain_tag(value)
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one node, counting aliases and depth."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise _TooMuchError(f"more than {MAX_ALIASES} aliases", event)
        if self._depth >= MAX_DEPTH:
            raise _TooMuchError(f"nested deeper than {MAX_DEPTH} levels", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _plain_tag(text: str) -> str:
    """The tag of a scalar without quotes and without a tag of its own."""
    for tag, words in _CONSTANTS.items():
        if text in words:
            return tag
    if _INT.fullmatch(text):
        return f"{_TAG}int"
    if _FLOAT.fullmatch(text):
        return f"{_TAG}float"
    return f"{_TAG}merge" if text == "<<" else f"{_TAG}str"


class _Builder:
    """Turns nodes into plain values and collects what is wrong with them."""

    def __init__(self) -> None:
        self._lines: dict[KeyPath, int] = {}
        self._problems: list[Problem] = []
        self._faulty: set[KeyPath] = set()
        self._open: set[int] = set()
        self._count = 0

    def build(self, root: yaml.Node) -> Document:
        """Return the whole document."""
        data = self._value(root, ())
        return Document(
            None if data is _MISSING else data, self._lines, tuple(self._problems), frozenset(self._faulty)
        )

    def _fault(self, path: KeyPath, node: yaml.Node, message: str) -> object:
        line = node.start_mark.line + 1
        if path not in self._faulty:
            self._problems.append(Problem(key_path_text(path), line, message))
        self._faulty.add(path)
        return _MISSING

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._count += 1
        if self._count > MAX_VALUES:
            return self._fault((), node, f"more than {MAX_VALUES} values")
        if id(node) in self._open:
            return self._fault(path, node, "the alias stands inside what it repeats")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            return self._collection(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        text: str = node.value
        if node.tag == f"{_TAG}str":
            return text
        if node.tag == f"{_TAG}int" and _INT.fullmatch(text) and len(text) <= 20:
            return int(text)
        if node.tag == f"{_TAG}float" and _FLOAT.fullmatch(text):
            return float(text)
        if node.tag in _CONSTANTS and text in _CONSTANTS[node.tag]:
            return _CONSTANTS[node.tag][text]
        if node.tag == f"{_TAG}int":
            return self._fault(path, node, "the number cannot be read")
        return self._fault(path, node, _tag_message(node.tag))

    def _collection(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            items = [self._value(item, (*path, position)) for position, item in enumerate(node.value)]
            # Positions are kept: a later item must not take the place, and the line, of a faulty one.
            return [None if item is _MISSING else item for item in items]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        return self._fault(path, node, _tag_message(node.tag))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            if key in first_line:
                problem = Problem(
                    key_path_text((*path, key)),
                    line,
                    f"the key is given twice, first on line {first_line[key]}",
                )
                self._problems.append(problem)
                continue
            first_line[key] = line
            self._lines[*path, key] = line
            value = self._value(value_node, (*path, key))
            if value is not _MISSING:
                result[key] = value
        return result

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """Return the key as text, or None after noting why it is none."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            message = "a key has to be a plain word"
        elif node.tag == f"{_TAG}str":
            return str(node.value)
        elif node.tag == f"{_TAG}merge":
            message = "merge keys (<<) are not supported; write the keys out"
        elif node.tag.startswith(_TAG) and node.tag.removeprefix(_TAG) in {"int", "float", "bool", "null"}:
            message = f'the key {node.value} is not a text; write "{node.value}" in quotes'
        else:
            message = _tag_message(node.tag)
        self._problems.append(Problem(key_path_text(path), line, message))
        return None


def _tag_message(tag: str) -> str:
    shown = f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag
    return f"the YAML tag {shown} is not allowed; write a plain value"
