"""The share of each sender in the work of receiving: who opens more associations gets no more of it.

Counted is work, never waiting: a turn is held while bytes are written and made durable, not while a peer is slow
to send them. An AE that sends alone has as many turns at once as it has associations. Beside others it has four
less one for each of them, and one at least; the rest of its associations wait in order. So a sender with one
association has about a quarter of the work beside one with ten, not an eleventh, and never waits for a turn.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

_AT_ONCE: Final = 4  # fewer would leave group commits nothing to gather
_REMEMBERED_S: Final = 1.0  # an AE between two objects is still sending


@dataclass(eq=False)
class _Share:
    """One AE: how many turns it holds, who waits for one, and when it last had one."""

    held: int = 0
    waiting: deque[threading.Lock] = field(default_factory=deque)
    ended_at: float = float("-inf")


class Shares:
    """Hands out turns. Safe for any number of threads, one for each association."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}

    @contextmanager
    def turn(self, calling_ae: str) -> Iterator[None]:
        """Hold a turn of this AE for the length of the block, after waiting for it if need be."""
        with self._lock:
            share, place = self._ask(calling_ae)
        if place is not None:
            place.acquire()
        try:
            yield
        finally:
            with self._lock:
                self._end(share)

    def _ask(self, calling_ae: str) -> tuple[_Share, threading.Lock | None]:
        """A turn at once, or a place in the queue: a lock that opens with the turn."""
        share = self._shares.get(calling_ae)
        if share is None:
            self._forget()
            share = self._shares[calling_ae] = _Share()
        if share.held < self._most(share):
            share.held += 1
            return share, None
        place = threading.Lock()
        place.acquire()
        share.waiting.append(place)
        return share, place

    def _end(self, share: _Share) -> None:
        """Hand the turn on to those who wait."""
        share.held -= 1
        share.ended_at = self._monotonic()
        while share.waiting and share.held < self._most(share):
            share.held += 1
            share.waiting.popleft().release()

    def _most(self, share: _Share) -> float:
        """How many turns an AE may hold at the moment."""
        if len(self._shares) == 1:
            return float("inf")
        others = sum(self._sends(other) for other in self._shares.values() if other is not share)
        return max(1, _AT_ONCE - others) if others else float("inf")

    def _sends(self, share: _Share) -> bool:
        """Whether the AE is sending; who waits for a turn is behind one that is held."""
        return share.held > 0 or self._monotonic() - share.ended_at < _REMEMBERED_S

    def _forget(self) -> None:
        """Keep no AE that has stopped sending."""
        self._shares = {title: share for title, share in self._shares.items() if self._sends(share)}
