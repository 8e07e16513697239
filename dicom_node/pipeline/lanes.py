"""A lane for each peer: one thread at a time, so that a peer that is down or slow delays no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Lanes:
    """Threads by the name of the peer they attend to, started when there is something to do and none runs."""

    def __init__(self, kind: str, attend: Callable[[str], object]) -> None:
        """`attend` does what is due for one peer, returns, and looks at `stopping` in between."""
        self._kind, self._attend = kind, attend
        self._threads: dict[str, threading.Thread] = {}
        self.stopping = threading.Event()

    def start(self, name: str) -> None:
        """Have a peer attended to, unless it is already, or everything stops."""
        running = self._threads.get(name)
        if self.stopping.is_set() or (running is not None and running.is_alive()):
            return
        thread = threading.Thread(target=self._attend, args=(name,), name=f"{self._kind}-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def stop(self, timeout_s: float) -> None:
        """Start no more, and let what runs finish within `timeout_s`."""
        self.stopping.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads.values():
            thread.join(max(deadline - time.monotonic(), 0.0))
