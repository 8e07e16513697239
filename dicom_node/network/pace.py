"""How fast a peer is, as it was measured, and how long it may therefore take: pure numbers.

The configured time limits are a floor and are never shortened: a peer that was fast yesterday may be busy
today. They grow with the size of an object and with how slow the peer has been, so that a slow line is
told from a silent one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SLOWEST_LINK: Final = 64 * 1024
"""Bytes a second that any line is given, however fast it has been."""

_PATIENCE: Final = 4.0  # times slower than it ever was: still at work
_WEIGHT: Final = 0.2  # of the latest measurement
_LONGEST_S: Final = 3600.0


@dataclass(frozen=True)
class Pace:
    """What was measured of one peer: bytes a second it takes, seconds to answer; None before the first."""

    bytes_per_s: float | None = None
    answer_s: float | None = None

    def after(self, size: int, sent_s: float, answered_s: float) -> Pace:
        """The pace with one more instance of `size` bytes: seconds to send it, and from there to its answer."""
        speed = size / max(sent_s + answered_s, 1e-6)
        return Pace(_mixed(self.bytes_per_s, speed), _mixed(self.answer_s, answered_s))

    def message_s(self, size: int, floor_s: float) -> float:
        """Seconds that sending `size` bytes may take, at least `floor_s`."""
        measured = SLOWEST_LINK if self.bytes_per_s is None else self.bytes_per_s / _PATIENCE
        slowest = min(SLOWEST_LINK, measured)
        return min(max(floor_s, size / slowest), max(_LONGEST_S, floor_s))

    def answer_limit_s(self, size: int, floor_s: float) -> float:
        """Seconds from the last byte to the answer, at least `floor_s`."""
        usual = _PATIENCE * (self.answer_s or 0.0)
        return min(max(floor_s, usual, size / SLOWEST_LINK), max(_LONGEST_S, floor_s))


def _mixed(before: float | None, now: float) -> float:
    """The running mean, which follows a change within some ten instances."""
    return now if before is None else before + _WEIGHT * (now - before)
