"""Where a value stands in the file: ("routes", 1, "send_to", 0), shown as routes[1].send_to[0]."""

from __future__ import annotations

from collections.abc import Mapping

KeyPath = tuple[str | int, ...]


def key_path_text(path: KeyPath) -> str:
    """Write a path as the operator reads it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of the path, or of the nearest thing around it that the file holds."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None
