"""What a C-STORE response status means for a delivery (PS3.4 Table B.2-1, PS3.7 Annex C).

status                    verdict      what follows
0000                      DELIVERED    stored
0111                      DELIVERED    duplicate SOP instance: the bytes are ours, sent before
B000, B006, B007, Bxxx    DELIVERED    stored with a warning (coerced, elements discarded, ...), which is kept
A7xx, 0213                BUSY         out of resources: the destination is left alone for a while
0110, 0210                LATER        this instance did not work out now; it is sent again
0122                      RENEGOTIATE  SOP class not supported after all: once more on a new association
0124                      PAUSE        not authorised: only a person at the destination can change that
A9xx, Cxxx, others        REFUSED      for good
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """What becomes of one instance after its answer."""

    DELIVERED = "DELIVERED"
    BUSY = "BUSY"
    LATER = "LATER"
    RENEGOTIATE = "RENEGOTIATE"
    PAUSE = "PAUSE"
    REFUSED = "REFUSED"


_TABLE: Final[tuple[tuple[int, int, Verdict], ...]] = (
    (0x0000, 0x0000, Verdict.DELIVERED),
    (0x0110, 0x0110, Verdict.LATER),
    (0x0111, 0x0111, Verdict.DELIVERED),
    (0x0122, 0x0122, Verdict.RENEGOTIATE),
    (0x0124, 0x0124, Verdict.PAUSE),
    (0x0210, 0x0210, Verdict.LATER),
    (0x0213, 0x0213, Verdict.BUSY),
    (0xA700, 0xA7FF, Verdict.BUSY),
    (0xB000, 0xBFFF, Verdict.DELIVERED),
)


def judge(status: int) -> Verdict:
    """Verdict for a C-STORE response status."""
    for first, last, verdict in _TABLE:
        if first <= status <= last:
            return verdict
    return Verdict.REFUSED


def is_warning(status: int) -> bool:
    """Whether the object was stored with a warning that a person may want to see."""
    return 0xB000 <= status <= 0xBFFF
