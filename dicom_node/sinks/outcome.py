"""What a C-STORE response status means for a delivery (PS3.4 Table B.2-1, PS3.7 Annex C).

status                              verdict      why
0000                                DELIVERED    stored
B000, B006, B007                    DELIVERED    stored with a warning, which is kept
0111                                DELIVERED    duplicate SOP instance: the bytes are ours, sent before
A7xx, 0110, 0210, 0213              LATER        out of resources or a passing failure
anything else                       REFUSED      permanent: A9xx, Cxxx, 0122, 0124 ...
"""

from __future__ import annotations

from enum import StrEnum

_WARNINGS = frozenset({0xB000, 0xB006, 0xB007})
_PASSING = frozenset({0x0110, 0x0210, 0x0213})


class Verdict(StrEnum):
    """What becomes of one instance after its answer."""

    DELIVERED = "DELIVERED"
    LATER = "LATER"
    REFUSED = "REFUSED"


def judge(status: int) -> Verdict:
    """Verdict for a C-STORE response status."""
    if status in (0x0000, 0x0111) or status in _WARNINGS:
        return Verdict.DELIVERED
    if status >> 8 == 0xA7 or status in _PASSING:
        return Verdict.LATER
    return Verdict.REFUSED
