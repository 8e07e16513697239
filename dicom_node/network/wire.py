"""Reads PDUs from a socket under deadlines, without copying: one buffer, and views into it.

Every length is judged from the six bytes of the PDU header before anything of that length is read. A view
stays valid until the reader has to move what is left of the buffer; whoever keeps views is asked first.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Final

from dicom_node.network.transport import acknowledge_at_once

HEADER: Final = struct.Struct(">BxL")
_STEP: Final = 1 << 16


class PduType(IntEnum):
    """The seven PDU types, PS3.8 Table 9-11 and following."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Reason of an A-ABORT by the provider, PS3.8 Table 9-26."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class PeerGoneError(Exception):
    """The other side, or somebody on ours, closed the connection."""


class TooSlowError(Exception):
    """A deadline passed; `what` says which."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class ProtocolViolationError(Exception):
    """The peer broke PS3.8 or PS3.7: the association ends with an A-ABORT. No text comes from the peer."""

    def __init__(self, reason: AbortReason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


class Wire:
    """One connection, read and written by one thread."""

    def __init__(self, raw: socket.socket, *, tick_s: float, pdu_s: float) -> None:
        """`tick_s`: how often a blocked read looks at its deadlines. `pdu_s`: the time one PDU may take."""
        self.raw = raw
        self._pdu_s = pdu_s
        self._buffer = bytearray(_STEP)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._began = 0.0
        raw.settimeout(tick_s)

    def grow(self, size: int) -> None:
        """Take a buffer for longer PDUs; nothing may hold a view."""
        if size > len(self._buffer):
            kept = bytes(self._view[self._start : self._end])
            self._buffer = bytearray(size)
            self._view = memoryview(self._buffer)
            self._view[: len(kept)] = kept
            self._start, self._end = 0, len(kept)

    def next_pdu(
        self,
        caps: Mapping[int, int],
        *,
        first_byte_by: float,
        complete_by: float = math.inf,
        before_move: Callable[[], None] = lambda: None,
    ) -> tuple[int, memoryview]:
        """The type and the body of the next PDU, which has to come in time (monotonic clock).

        `caps`: the types that may come now, and the greatest body of each. Raises
        `ProtocolViolationError` from the header alone, `TooSlowError` or `PeerGoneError`.
        """
        needed = HEADER.size
        while True:
            have = self._end - self._start
            if have >= HEADER.size:
                kind, length = HEADER.unpack_from(self._buffer, self._start)
                needed = HEADER.size + _allowed(kind, length, caps)
                if have >= needed:
                    body = self._view[self._start + HEADER.size : self._start + needed]
                    self._start += needed
                    self._began = 0.0
                    return kind, body
            self._make_room(needed, before_move)
            self._wait_for_more(have, first_byte_by, complete_by)

    def _make_room(self, needed: int, before_move: Callable[[], None]) -> None:
        """Have room behind what was read; the buffer grows only as bytes come, whatever a header claims."""
        size = len(self._buffer)
        if self._end < size and (self._start == 0 or self._start + needed <= size):
            return
        before_move()
        rest = self._end - self._start
        self._view[:rest] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, rest
        if rest == size:
            self.grow(min(needed, 2 * size))

    def _wait_for_more(self, have: int, first_byte_by: float, complete_by: float) -> None:
        """Read once, or look at the clock."""
        acknowledge_at_once(self.raw)
        try:
            count = self.raw.recv_into(self._view[self._end :])
        except TimeoutError:
            count = -1
        except (OSError, ValueError) as exc:
            raise PeerGoneError from exc
        if count == 0:
            raise PeerGoneError
        now = time.monotonic()
        if count > 0:
            self._end += count
            self._began = self._began or now
        self._judge_time(now, have > 0 or count > 0, first_byte_by, complete_by)

    def _judge_time(self, now: float, begun: bool, first_byte_by: float, complete_by: float) -> None:
        """Raise `TooSlowError` unless a whole PDU is there or there is time left for one."""
        if self._is_complete():
            return
        if now >= complete_by:
            raise TooSlowError("message takes too long")
        if begun and now >= self._began + self._pdu_s:
            raise TooSlowError("PDU takes too long")
        if not begun and now >= first_byte_by:
            raise TooSlowError("silent between PDUs")

    def _is_complete(self) -> bool:
        """Whether a whole PDU lies in the buffer."""
        have = self._end - self._start
        return have >= HEADER.size and have >= HEADER.size + HEADER.unpack_from(self._buffer, self._start)[1]

    def send(self, data: bytes) -> None:
        """Send everything, usually in one piece. Raises `PeerGoneError` or `TooSlowError`."""
        view = memoryview(data)
        deadline = time.monotonic() + self._pdu_s
        while view:
            try:
                view = view[self.raw.send(view) :]
            except TimeoutError as exc:
                if time.monotonic() >= deadline:
                    raise TooSlowError("does not read its answers") from exc
            except (OSError, ValueError) as exc:
                raise PeerGoneError from exc

    def linger(self, seconds: float = 1.0) -> None:
        """Say that no more will come, and wait a moment for the peer to close.

        Closing at once would reset the connection while bytes of the peer are unread, and the reset
        overtakes our last PDU (PS3.8 9.2.1 has the ARTIM timer for this).
        """
        deadline = time.monotonic() + seconds
        with suppress(OSError, ValueError):
            socket.socket.shutdown(self.raw, socket.SHUT_WR)
            self.raw.settimeout(seconds / 4)
            while time.monotonic() < deadline:
                with suppress(TimeoutError):
                    if not self.raw.recv_into(self._view):
                        return


def _allowed(kind: int, length: int, caps: Mapping[int, int]) -> int:
    """The length, if a PDU of this type and length may come now."""
    cap = caps.get(kind)
    if cap is None:
        known = PduType.ASSOCIATE_RQ <= kind <= PduType.ABORT
        reason = AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU
        raise ProtocolViolationError(reason, f"PDU type {kind:02X}")
    if length > cap:
        raise ProtocolViolationError(AbortReason.INVALID_PARAMETER, f"PDU of {length} bytes")
    return length


def cut(raw: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Wake whoever reads this socket; safe from any thread, also on a TLS socket."""
    with suppress(OSError, ValueError):
        socket.socket.shutdown(raw, how)
