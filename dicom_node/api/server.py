"""The web process: a socket bound before anything heavy is loaded, uvicorn behind it, stopped within a limit."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import h11
import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.api import ApiSection
from dicom_node.api.limits import LARGEST_HEADERS

log = structlog.get_logger(__name__)

HEADER_TIME_S = 15.0
_KEEP_ALIVE_S = 30
_BIND_AGAIN_S = 2.0


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a limit on how long the headers of a request may take."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Restart the clock when a new request begins; stop it when its headers are complete."""
        super().data_received(data)
        waiting = self.conn.their_state is h11.IDLE
        if not waiting and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif waiting and self._deadline is None:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._deadline = self.loop.call_later(HEADER_TIME_S, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def bind(section: ApiSection, stop: threading.Event) -> socket.socket | None:
    """The listening socket; waits for the port as long as another has it, None when stopped meanwhile."""
    told = False
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    while not stop.is_set():
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((section.host, section.port))
        except OSError as exc:
            listener.close()
            if not told:
                log.error("page.cannot_listen", host=section.host, port=section.port, cause=exc.strerror)
                told = True
            stop.wait(_BIND_AGAIN_S)
            continue
        listener.set_inheritable(False)
        return listener
    return None


def serve(app: FastAPI, section: ApiSection, listener: socket.socket, stop: threading.Event) -> None:
    """Answer requests until `stop`; running ones get ten seconds to end."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=section.max_connections,
        h11_max_incomplete_event_size=LARGEST_HEADERS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=10,
        ssl_certfile=str(section.tls.certificate) if section.tls else None,
        ssl_keyfile=str(section.tls.key) if section.tls else None,
    )
    server = uvicorn.Server(config)
    # In a thread of its own: there uvicorn leaves the signals, and with them the way we stop, alone.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page", daemon=True)
    thread.start()
    log.info("page.listening", host=section.host, port=listener.getsockname()[1], tls=section.tls is not None)
    while not stop.wait(0.5) and thread.is_alive():
        pass
    server.should_exit = True
    thread.join(15)
