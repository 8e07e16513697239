"""One listener, several processes: each connection goes to the process that has the fewest.

The interpreter runs one thread at a time, so a receiver with many senders needs several. The parent accepts,
holds the counts that all of them share, and starts a process again that has died; it never reads a byte of a
sender. (SO_REUSEPORT would put several connections on one process by chance.)
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from dicom_node.errors import CannotListenError
from dicom_node.network.channel import Channel
from dicom_node.network.gate import Gate, Ticket
from dicom_node.network.limits import ScpSettings
from dicom_node.network.wire import cut
from dicom_node.observability import events

log = structlog.get_logger(__name__)

Spawn = Callable[[socket.socket, str], subprocess.Popen[bytes]]
"""Starts a process that serves what comes over the socket, as the run of that name."""

_FIRST_WAIT_S, _LONGEST_WAIT_S, _STEADY_S = 0.5, 30.0, 60.0
_LOOK_AGAIN_S = 0.2


@dataclass(eq=False)
class _Worker:
    """One place for a process, and the process that is there now."""

    run_id: str = ""
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    ready: bool = False
    started_at: float = 0.0
    failures: int = 0
    tickets: dict[int, Ticket] = field(default_factory=dict)


class Dispatcher:
    """Accepts connections and hands them out; a process that dies is replaced, the others go on."""

    def __init__(
        self,
        settings: ScpSettings,
        count: int,
        *,
        spawn: Spawn,
        new_run_id: Callable[[], str],
        lost: Callable[[str], object],
    ) -> None:
        """`lost` is told the run of a process that has died, when it is dead for certain."""
        self._settings = settings
        self._spawn = spawn
        self._new_run_id = new_run_id
        self._lost = lost
        self._gate = Gate(settings)
        self._workers = [_Worker() for _ in range(count)]
        self._changed = threading.Condition()
        self._stopping = False
        self._listener: socket.socket | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the listener; raises `RuntimeError` before `start`."""
        if self._listener is None:
            raise RuntimeError("the dispatcher has not been started")
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def pids(self) -> list[int]:
        """The processes that are ready to serve."""
        with self._changed:
            return [one.process.pid for one in self._workers if one.ready and one.process is not None]

    def start(self) -> None:
        """Listen and start the processes. Raises `CannotListenError`."""
        settings = self._settings
        try:
            self._listener = _listen(settings.host, settings.port)
        except OSError as exc:
            cause = exc.strerror or type(exc).__name__
            raise CannotListenError(settings.host, settings.port, cause) from exc
        for worker in self._workers:
            threading.Thread(target=self._tend, args=(worker,), name="receiver-process", daemon=True).start()
        threading.Thread(target=self._accept, name="dispatch", daemon=True).start()

    def stop(self, drain: timedelta) -> None:
        """Stop accepting, let associations finish for `drain`, then end every process."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._listener is not None:
            cut(self._listener)
            self._listener.close()
        self._gate.cut_waiting()
        for worker in self._workers:
            if worker.channel is not None:
                worker.channel.send({"stop": drain.total_seconds()})
        deadline = time.monotonic() + drain.total_seconds() + 10.0
        for worker in self._workers:
            _end(worker, max(deadline - time.monotonic(), 0.1))

    # --- connections

    def _accept(self) -> None:
        """Hand out connections until the listener is closed; without a process they wait in its queue."""
        assert self._listener is not None  # noqa: S101 (`start` has made it)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or any(one.ready for one in self._workers))
                if self._stopping:
                    return
            try:
                raw, address = self._listener.accept()
            except OSError:
                time.sleep(0.05)  # no handle left, or closed: the loop looks which
                continue
            ticket = self._gate.enter(str(address[0]), raw)
            if not self._hand_over(ticket, address):
                self._forget(ticket)

    def _hand_over(self, ticket: Ticket, address: tuple[object, ...]) -> bool:
        """Give a connection to the process with the fewest; False when none takes it."""
        with self._changed:
            ready = sorted((one for one in self._workers if one.ready), key=lambda one: len(one.tickets))
            for worker in ready:
                message = {"take": ticket.number, "address": list(address), "crowded": ticket.crowded}
                if worker.channel is not None and worker.channel.send(message, ticket.raw):
                    worker.tickets[ticket.number] = ticket
                    return True
        return False

    def _forget(self, ticket: Ticket) -> None:
        """The connection has ended."""
        self._gate.leave(ticket)
        ticket.raw.close()

    # --- processes

    def _tend(self, worker: _Worker) -> None:
        """Keep one process running until the stop; runs on a thread of its own."""
        while not self._stopping:
            self._launch(worker)
            self._listen_to(worker)
            with self._changed:
                worker.ready = False
                tickets, worker.tickets = list(worker.tickets.values()), {}
                stopping = bool(self._stopping)
            if stopping:
                return
            code = _end(worker, 5.0)
            for ticket in tickets:
                cut(ticket.raw)
                self._forget(ticket)
            self._lost(worker.run_id)
            steady = time.monotonic() - worker.started_at > _STEADY_S
            worker.failures = 1 if steady else worker.failures + 1
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (worker.failures - 1))
            log.error(events.PROCESS_EXITED, role="receiver", exit_status=code, restart_in_s=wait_s)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, wait_s)

    def _launch(self, worker: _Worker) -> None:
        """Start a process with its end of a new channel."""
        channel, theirs = Channel.pair()
        with theirs, self._changed:
            worker.run_id = self._new_run_id()
            worker.channel, worker.started_at = channel, time.monotonic()
            worker.process = self._spawn(theirs, worker.run_id)
        log.info(events.PROCESS_STARTED, role="receiver", pid=worker.process.pid)

    def _listen_to(self, worker: _Worker) -> None:
        """Answer a process until its end of the channel is closed."""
        channel = worker.channel
        assert channel is not None  # noqa: S101 (`_launch` has made it)
        while (received := channel.receive()) is not None:
            message, _ = received
            if "ready" in message:
                with self._changed:
                    worker.ready = True
                    self._changed.notify_all()
            elif "associate" in message:
                channel.send(self._associate(worker, message))
            elif "leave" in message:
                with self._changed:
                    ticket = worker.tickets.pop(message["leave"], None)
                if ticket is not None:
                    self._forget(ticket)

    def _associate(self, worker: _Worker, message: dict[str, object]) -> dict[str, object]:
        """Ask the gate for a slot; the answer as a message."""
        number = message["associate"]
        with self._changed:
            ticket = worker.tickets.get(number) if isinstance(number, int) else None
        rejection = self._gate.associate(ticket, str(message["ae"])) if ticket is not None else None
        granted = ticket is not None and rejection is None
        return {"answer": number, "granted": granted}


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; IPv4 where the host has both."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return socket.create_server(address[:2], family=family, backlog=128)


def _end(worker: _Worker, seconds: float) -> int | None:
    """Wait for a process to end, kill it if it does not, and close the channel."""
    process = worker.process
    if process is None:
        return None
    try:
        code: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    with suppress(OSError):
        if worker.channel is not None:
            worker.channel.close()
    return code
