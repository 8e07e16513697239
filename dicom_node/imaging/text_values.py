"""Joining ASCII to text of unknown character set without decoding more than necessary."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from pydicom.charset import python_encoding

_ESCAPE = 0x1B


def joined(source: bytes, addition: str, *, limit: int, charset: Sequence[str]) -> bytes:
    """Return the source followed by a blank and an ASCII addition, at most `limit` characters.

    The source is cut, the addition never. A source that would have to be cut but cannot be cut safely
    (code extensions of ISO 2022, an unknown character set) is left out as a whole.
    """
    kept = source.strip(b" \0")
    added = addition.encode("ascii")
    room = limit - len(added) - 1
    kept = kept if _length(kept, charset) <= room else _cut(kept, room, charset)
    return kept + b" " + added if kept else added


def _codec(charset: Sequence[str]) -> str | None:
    """The Python codec of a value without code extensions, or None."""
    defined = [term for term in charset if term]
    if not defined:
        return "ascii"
    if len(defined) > 1 or len(charset) > 1:
        return None
    name = python_encoding.get(defined[0])
    try:
        return codecs.lookup(name).name if name else None
    except LookupError:
        return None


def _length(value: bytes, charset: Sequence[str]) -> int:
    """Characters in a value; bytes where the character set is not understood, which is never less."""
    decoded = _decoded(value, charset)
    return len(value) if decoded is None else len(decoded)


def _cut(value: bytes, room: int, charset: Sequence[str]) -> bytes:
    """The first `room` characters, or nothing where a cut could break a character."""
    if room <= 0:
        return b""
    if value.isascii() and _ESCAPE not in value:
        return value[:room].rstrip()
    codec, decoded = _codec(charset), _decoded(value, charset)
    if codec is None or decoded is None:
        return b""
    return decoded[:room].rstrip().encode(codec)


def _decoded(value: bytes, charset: Sequence[str]) -> str | None:
    """The text, or None where it cannot be told."""
    codec = _codec(charset)
    if codec is None or _ESCAPE in value:
        return None
    try:
        return value.decode(codec)
    except UnicodeDecodeError:
        return None
