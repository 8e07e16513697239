"""Which rejected callers are worth a line in the trail: each of them, but no flood of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

_EVERY_S = 60.0
_MOST_PER_MINUTE = 20


class AlertGate:
    """Lets each kind of alert through once a minute, and 20 of all kinds together. Safe for several threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._passed: dict[Hashable, float] = {}
        self._held_back = 0

    def passes(self, kind: Hashable) -> int | None:
        """None to keep quiet; otherwise how many alerts were held back since the last one that passed."""
        now = self._monotonic()
        with self._lock:
            self._passed = {key: at for key, at in self._passed.items() if now - at < _EVERY_S}
            if kind in self._passed or len(self._passed) >= _MOST_PER_MINUTE:
                self._held_back += 1
                return None
            self._passed[kind] = now
            held_back, self._held_back = self._held_back, 0
            return held_back
