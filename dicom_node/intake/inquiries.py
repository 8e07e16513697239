"""Questions that take their time, asked beside the sweep: decoding, asking a peer. No series waits for another."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a question came to: a value, or the error it ended with."""

    value: Any = None
    error: Exception | None = None


class Inquiries:
    """Each question is asked once and answered when somebody asks for the answer again."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or ThreadPoolExecutor(max_workers=2, thread_name_prefix="inquiry")
        self._asked: dict[Hashable, Future[Any]] = {}

    def ask(self, key: Hashable, question: Callable[[], Any]) -> Answer | None:
        """The answer, forgotten once it is given; None while it is not known, and asked now if it never was."""
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = self._executor.submit(question)
        if not future.done():
            return None
        del self._asked[key]
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return Answer(error=error) if error is not None else Answer(value=future.result())

    def close(self) -> None:
        """Ask nothing more; what is being asked ends by its own time limit."""
        self._executor.shutdown(wait=False, cancel_futures=True)
