"""One JSON line per event, or a human line on a terminal; never patient data.

Our own events carry fixed names and facts we chose (UIDs, numbers, codes). Text from elsewhere is not
ours to trust: a library's message or an exception's text may quote a patient's name (pydicom quotes
offending values, for one). Of those, only the logger, the level, the place and the exception's type are
kept; the text of our own error classes is safe by construction and stays.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

from dicom_node.observability import events

_OWN_ROOTS = ("dicom_node", "config", "engine", "storage")
_OWN_ERROR_PACKAGES = ("dicom_node.", "config.", "engine.", "storage.")

EventDict = MutableMapping[str, Any]


def configure(
    *, level: str = "INFO", fmt: Literal["auto", "json", "console"] = "auto", stream: TextIO | None = None
) -> None:
    """Send every log record of this process, libraries' included, to `stream` (standard error).

    `auto` is human-readable on a terminal and JSON elsewhere.
    """
    out = stream or sys.stderr
    human = fmt == "console" or (fmt == "auto" and out.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _safe_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[_foreign_message, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Keep the libraries at WARNING and route Python warnings through the same filter."""
    # A record that cannot be written is dropped: Python would print it with the error that was being handled,
    # and that may hold patient data.
    logging.raiseExceptions = False
    for name in ("pynetdicom", "pydicom", "alembic", "sqlalchemy", "highdicom", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns at every tick that finds the previous sweep still at work, which is the normal case here.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)


def _foreign_message(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Reduce a record that did not come from structlog to facts that cannot hold patient data."""
    record: logging.LogRecord = event["_record"]
    if record.name.split(".")[0] in _OWN_ROOTS:
        return event
    event["event"] = events.FOREIGN_MESSAGE
    event["logger"] = record.name
    event["where"] = f"{record.module}:{record.lineno}"
    event.pop("positional_args", None)
    return event


def _safe_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by type and frames; the text stays only for our own error classes."""
    info = event.pop("exc_info", None)
    if not info:
        return event
    error = (
        info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
    )
    if error is not None:
        event.update(describe_error(error))
    return event


class Seldom:
    """Decides when something that happens often is worth a line: at once, then every so many seconds.

    Safe for several threads. Keys are our own words, so that no peer can make it grow.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[float, int]] = {}

    def count(self, key: str) -> int:
        """Count one; return how many to report now, 0 for none."""
        now = time.monotonic()
        with self._lock:
            due, number = self._counts.get(key, (now, 0))
            number += 1
            report = now >= due
            self._counts[key] = (now + self._seconds, 0) if report else (due, number)
        return number if report else 0


def describe_error(error: BaseException) -> dict[str, Any]:
    """Facts about an exception that are safe to log: its type, its frames and, if it is ours, its text."""
    kind = type(error)
    facts: dict[str, Any] = {"error": f"{kind.__module__}.{kind.__qualname__}"}
    if kind.__module__.startswith(_OWN_ERROR_PACKAGES):
        facts["message"] = str(error)
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    facts["frames"] = [f"{frame.filename.rsplit('/', 3)[-1]}:{frame.lineno}:{frame.name}" for frame in frames]
    return facts
