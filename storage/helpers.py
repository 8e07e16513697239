"""A thread or two for a sync that may run beside other work of whoever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Helpers:
    """Runs one thing beside another while a thread is free. Safe for several threads.

    When all are taken there is enough going on at once already, and a change of threads would only cost.
    """

    def __init__(self, count: int = 2) -> None:
        self._free = threading.Semaphore(count)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sync")

    def beside(self, work: Callable[[], None], meanwhile: Callable[[], None]) -> bool:
        """Run `work` on another thread and `meanwhile` here; False, and neither run, if no thread is free.

        Raises what either raises, once both have ended.
        """
        if not self._free.acquire(blocking=False):
            return False
        try:
            future = self._pool.submit(work)
            try:
                meanwhile()
            finally:
                future.result()
        finally:
            self._free.release()
        return True
