"""A TCP proxy that can be cut, stalled and told to act after so many bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Proxy:
    """Relays connections to a port of the loopback address until it is closed."""

    def __init__(self, target: int, *, port: int = 0) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._left: int | None = None
        self._act: Callable[[], object] = lambda: None
        threading.Thread(target=self._accept, daemon=True).start()

    def after(self, count: int, act: Callable[[], object]) -> None:
        """Call `act` once, when so many bytes have gone to the target, and cut everything."""
        self._left, self._act = count, act

    def cut(self) -> None:
        """Break every connection and refuse new ones until `mend`."""
        self._refusing = True
        self._break_all()

    def stall(self) -> None:
        """Pass nothing on, keep everything open (a cable that was pulled) until `mend`."""
        self._flowing.clear()

    def mend(self) -> None:
        """Work again."""
        self._refusing = False
        self._flowing.set()

    def close(self) -> None:
        """End."""
        self._listener.close()
        self.mend()
        self._break_all()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, counting: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(4096):
                self._flowing.wait()
                if counting and self._left is not None:
                    self._left -= len(chunk)
                    if self._left <= 0:
                        self._left = None
                        self._act()
                        self._break_all()
                        return
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            with self._lock:
                self._open.discard(end)

    def _break_all(self) -> None:
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
