"""One role in a process of its own, forked from the supervisor, which has loaded already what all roles need.

A new interpreter takes a second and a half of processor time before its first line of work, for each role and
after each death; a fork takes none, and the roles share the memory of what is loaded. Forking is safe because the
supervisor never has a second thread and no connection open. What else it holds (its lock, the other roles'
pipes) is closed in the child, as a new program would have it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from config.errors import ConfigError
from config.settings import load_settings
from dicom_node.node import Role, run_role
from dicom_node.observability import events
from dicom_node.observability.logs import configure, describe_error

log = structlog.get_logger(__name__)

_FORK = multiprocessing.get_context("fork")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STANDARD_INPUT, _FIRST_OTHER = 0, 3


class RoleProcess:
    """A role at work; it ends when told to, or when this side of its standard input is closed, however it is."""

    def __init__(self, role: Role, config: Path) -> None:
        """Start it. Raises `RuntimeError` when this process has other threads: their locks would stay shut."""
        if threading.active_count() > 1:
            raise RuntimeError("a process with several threads cannot be forked safely")
        theirs, self._ours = os.pipe()
        self._process = _FORK.Process(target=play, args=(role, config, theirs), name=f"dicom-{role}")
        with _signals_held():
            self._process.start()
        os.close(theirs)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid or 0

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to drain."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        self._process.join(max(seconds, 0.0))
        return self._process.exitcode is not None

    def close(self) -> None:
        """Close its standard input, after which it ends by itself. Any number of calls count once."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


def play(role: Role, config: Path, standard_input: int) -> None:
    """Be the role, in a process just forked, until a signal or the end of `standard_input`."""
    # A terminal's Ctrl-C must reach the supervisor alone, or the order of draining is lost.
    os.setsid()
    os.dup2(standard_input, _STANDARD_INPUT)
    os.closerange(_FIRST_OTHER, os.sysconf("SC_OPEN_MAX"))
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    with suppress(OSError):  # for ps and top, where the system lets a process name itself
        Path("/proc/self/comm").write_text(f"dicom-{role}", encoding="ascii")
    try:
        settings = load_settings(config)
    except ConfigError as exc:
        log.critical(events.PROCESS_FAILED, role=str(role), **describe_error(exc))
        raise SystemExit(2) from exc
    configure(level=settings.logging.level, fmt=settings.logging.format)
    run_role(role, settings, config)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep back the signals that stop: between fork and `play` the supervisor's handlers would swallow them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
