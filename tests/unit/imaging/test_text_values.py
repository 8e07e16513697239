"""Joining ASCII to text of unknown character set."""

from __future__ import annotations

import pytest

from dicom_node.imaging.text_values import joined


@pytest.mark.parametrize(
    ("source", "charset", "expected"),
    [
        (b"HEAD ", [], b"HEAD [X]"),
        (b"", [], b"[X]"),
        (b"A" * 70, [], b"A" * 60 + b" [X]"),
        (b"A" * 59 + b" " + b"B" * 10, [], b"A" * 59 + b" [X]"),
        ("ä".encode("latin-1") * 70, ["ISO_IR 100"], "ä".encode("latin-1") * 60 + b" [X]"),
        ("ä".encode() * 70, ["ISO_IR 192"], "ä".encode() * 60 + b" [X]"),
        ("ä".encode() * 60, ["ISO_IR 192"], "ä".encode() * 60 + b" [X]"),
        ("頭".encode("gb18030") * 70, ["GB18030"], "頭".encode("gb18030") * 60 + b" [X]"),
        (b"\x1b$B" + b"F,It" * 20 + b"\x1b(B", ["", "ISO 2022 IR 87"], b"[X]"),
        (b"\x1b$BF,\x1b(B", ["", "ISO 2022 IR 87"], b"\x1b$BF,\x1b(B [X]"),
        (b"\xff" * 70, ["ISO_IR 192"], b"[X]"),
        (b"\xe4" * 70, ["NO SUCH SET"], b"[X]"),
        (b"\xe4" * 10, ["NO SUCH SET"], b"\xe4" * 10 + b" [X]"),
    ],
)
def test_the_addition_is_whole_and_no_character_is_cut_in_half(
    source: bytes, charset: list[str], expected: bytes
) -> None:
    assert joined(source, "[X]", limit=64, charset=charset) == expected
