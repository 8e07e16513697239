"""Remembers who looked at what lately, so that scrolling through a series is one look and not two hundred."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

_KEPT = 10_000


class Looks:
    """Safe for several threads; forgets all at a restart, which only tells one look more."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._seen: dict[str, datetime] = {}

    def first(self, key: str, every: timedelta) -> bool:
        """Whether this is the first look under the key for so long."""
        at = self._now()
        with self._lock:
            if len(self._seen) > _KEPT:
                self._seen = {k: seen for k, seen in self._seen.items() if at - seen < every}
            if key in self._seen and at - self._seen[key] < every:
                return False
            self._seen[key] = at
            return True
