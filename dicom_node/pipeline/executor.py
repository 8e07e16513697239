"""The worker's end of the enhancement process: start it, hand it an attempt, hear it out, replace it.

Whatever happens to the process (crash, hang, memory, time limit) becomes an `AttemptFailedError` with a
reason; the worker itself never runs decoder or enhancer code.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import IO, Any

import structlog

from dicom_node.errors import Reason, ReasonedError
from dicom_node.pipeline.attempt import AttemptSpec

log = structlog.get_logger(__name__)

Message = Mapping[str, Any]
Heard = Callable[[Message], None]


class AttemptFailedError(ReasonedError):
    """The attempt ended without a result; the reason says whether another one makes sense."""


class AttemptCanceledError(Exception):
    """The attempt stopped because it was asked to."""


class EnhancementProcess:
    """One enhancement process at a time, started when needed and replaced after any trouble.

    Not shared between threads, but `cancel` may be called from any thread.
    """

    _GRACE_S = 5.0
    _POLL_S = 0.2

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._messages: SimpleQueue[Message | None] = SimpleQueue()
        self._cancel_asked_at: float | None = None

    def start(self) -> None:
        """Start the process if none is alive, so that its imports run before the first job needs them."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.pipeline.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._messages = SimpleQueue()
        reader = threading.Thread(target=self._read, args=(self._process.stdout, self._messages), daemon=True)
        reader.start()

    @property
    def pid(self) -> int | None:
        """Process id while one is alive."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def run(self, spec: AttemptSpec, *, time_limit: timedelta, heard: Heard) -> Message:
        """Run one attempt and return its `result`.

        `heard` gets every stage and progress message, in this thread. Raises `AttemptFailedError` or
        `AttemptCanceledError`; after a crash, a time limit or a cancellation the process is gone.
        """
        self._cancel_asked_at = None
        self.start()
        self._tell(attempt=spec.as_json())
        deadline = time.monotonic() + time_limit.total_seconds()
        while True:
            message = self._next(deadline)
            if "result" in message:
                result: Message = message["result"]
                return result
            if "error" in message:
                log.warning("attempt.error", **message.get("log", {}))
                raise AttemptFailedError(Reason.named(message["error"]), message["detail"])
            if "canceled" in message:
                raise AttemptCanceledError
            heard(message)

    def cancel(self) -> None:
        """Ask the running attempt to stop; it is killed when it does not within a few seconds."""
        if self._cancel_asked_at is None:
            self._cancel_asked_at = time.monotonic()
            with suppress(AttemptFailedError):
                self._tell(cancel=True)

    def stop(self) -> None:
        """End the process: close its input, wait briefly, then kill."""
        if self._process is None:
            return
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(self._GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def _kill(self) -> None:
        """Kill the process and forget it."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    def _tell(self, **message: Any) -> None:
        """Write one line to the process."""
        pipe = None if self._process is None else self._process.stdin
        if pipe is None:
            raise AttemptFailedError(Reason.WORKER_DIED)
        try:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except (OSError, ValueError) as exc:
            raise AttemptFailedError(Reason.WORKER_DIED) from exc

    def _next(self, deadline: float) -> Message:
        """Return the next message; turn death, the time limit and an ignored cancel into errors."""
        while True:
            try:
                message = self._messages.get(timeout=self._POLL_S)
            except Empty:
                self._check_clock(deadline)
                continue
            if message is None:
                raise self._obituary()
            if "ready" not in message:
                self._check_clock(deadline)
                return message

    def _check_clock(self, deadline: float) -> None:
        """Kill the process when its time is over or when it ignores a cancel."""
        now = time.monotonic()
        if self._cancel_asked_at is not None and now - self._cancel_asked_at > self._GRACE_S:
            self._kill()
            raise AttemptCanceledError
        if now > deadline:
            self._kill()
            raise AttemptFailedError(Reason.TIME_LIMIT)

    def _obituary(self) -> Exception:
        """Say how the process ended."""
        code = self._process.wait() if self._process is not None else 0
        self.stop()
        if self._cancel_asked_at is not None:
            return AttemptCanceledError()
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        return AttemptFailedError(Reason.WORKER_DIED, f"It ended {how}.")

    @staticmethod
    def _read(pipe: IO[str] | None, messages: SimpleQueue[Message | None]) -> None:
        """Move lines from the pipe to the queue; None marks the end."""
        with suppress(ValueError, OSError):
            for line in pipe or ():
                messages.put(json.loads(line))
        messages.put(None)
