"""The line between the process that accepts connections and one that serves them: short messages, and sockets.

A SOCK_SEQPACKET pair keeps the bounds of messages and tells each side when the other is gone. A message is one
JSON object; a connection travels beside it as a descriptor.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

_LARGEST: Final = 4096  # bytes; the largest message has an address and an AE title


class Channel:
    """One end of the line. `send` may be called from several threads, `receive` from one."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Our end, and the other one for a process that is about to start."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def inherited(cls, descriptor: int) -> Channel:
        """The end that this process was started with."""
        return cls(socket.socket(fileno=descriptor))

    def send(self, message: Mapping[str, Any], connection: socket.socket | None = None) -> bool:
        """Send a message, with a connection beside it if given; False when the other side is gone."""
        data = json.dumps(message).encode()
        try:
            if connection is None:
                self._raw.send(data)
            else:
                socket.send_fds(self._raw, [data], [connection.fileno()])
        except OSError:
            return False
        return True

    def receive(self) -> tuple[dict[str, Any], socket.socket | None] | None:
        """The next message and its connection; None when the other side is gone."""
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._raw, _LARGEST, 1)
        except OSError:
            return None
        if not data:
            return None
        connection = socket.socket(fileno=descriptors[0]) if descriptors else None
        return json.loads(data), connection

    def close(self) -> None:
        """Close our end; the other side notices."""
        with suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)
        self._raw.close()
