"""The data path of one established association: C-STORE requests out, their answers in, under deadlines.

One instance leaves in one gathered system call where the kernel takes it. The deadlines are the kernel's
own (SO_SNDTIMEO, SO_RCVTIMEO), so that no call polls; TLS goes through its library piece by piece.
"""

from __future__ import annotations

import array
import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final

from dicom_node.errors import AssociationLostError
from dicom_node.network.store_messages import (
    P_DATA,
    AnswerParts,
    MessageError,
    StoreAnswer,
    data_pdus,
    largest_fragment,
    store_command,
)
from dicom_node.network.transport import acknowledge_at_once

_TICK_S: Final = 1.0  # how often a waiting call looks at its deadline
_MOST_SLICES: Final = 1000  # Linux takes 1024 in one call
_TLS_PIECE: Final = 256 * 1024
_ABORT, _RELEASE_RQ = 0x07, 0x05
_LONGEST_ANSWER: Final = 128 * 1024


@dataclass(frozen=True)
class Request:
    """One C-STORE request: what is announced, and where its data set comes from."""

    sop_class_uid: str
    sop_instance_uid: str
    message_id: int
    context_id: int
    length: int
    pieces: Iterable[memoryview]


class StoreChannel:
    """Sends requests and reads answers on a lent connection; not for several threads.

    Raises `AssociationLostError` when the peer is gone, silent or not understood: the association has to
    be aborted then, and whatever was not answered counts as not stored.
    """

    def __init__(self, raw: socket.socket, *, peer_max_length: int, silence_s: float) -> None:
        self._raw = raw
        self._is_tls = isinstance(raw, ssl.SSLSocket)
        self._silence_s = silence_s
        self._fragment = largest_fragment(peer_max_length)
        self._buffer = memoryview(bytearray(_LONGEST_ANSWER + 6))
        self._filled = 0
        self._prepare()

    def send(self, request: Request, *, limit_s: float) -> None:
        """Send one request with its data set within `limit_s`."""
        deadline = time.monotonic() + limit_s
        command = store_command(
            request.sop_class_uid, request.sop_instance_uid, request.message_id, request.context_id
        )
        slices: list[bytes | memoryview] = [command]
        left = request.length
        try:
            for piece in request.pieces:
                left -= len(piece)
                pairs = data_pdus(
                    piece, context_id=request.context_id, fragment=self._fragment, is_end=left == 0
                )
                slices.extend(chain.from_iterable(pairs))
                self._send(slices, deadline)
                slices.clear()
        except OSError as exc:
            raise AssociationLostError(f"{_cause(exc)} while sending.") from exc

    def answer(self, request: Request, *, limit_s: float) -> StoreAnswer:
        """Wait up to `limit_s` for the answer to this request."""
        deadline = time.monotonic() + limit_s
        parts = AnswerParts(request.context_id)
        try:
            while True:
                answer = self._next(parts, deadline)
                if answer is not None:
                    break
        except OSError as exc:
            raise AssociationLostError(f"{_cause(exc)} while an answer was due.") from exc
        except MessageError as exc:
            raise AssociationLostError(f"Protocol error: {exc}.") from exc
        if answer.message_id != request.message_id:
            raise AssociationLostError("Protocol error: an answer to another request.")
        if answer.sop_instance_uid not in ("", request.sop_instance_uid):
            raise AssociationLostError("Protocol error: the answer names another instance.")
        return answer

    # --- out

    def _prepare(self) -> None:
        """Have the kernel end calls that make no progress."""
        if self._is_tls:
            self._raw.settimeout(self._silence_s)
            return
        self._raw.settimeout(None)
        tick = struct.pack("ll", int(_TICK_S), 0)
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)

    def _send(self, slices: list[bytes | memoryview], deadline: float) -> None:
        """Send slices in order, many in one call."""
        if self._is_tls:
            self._send_over_tls(slices, deadline)
            return
        for start in range(0, len(slices), _MOST_SLICES):
            self._gather(slices[start : start + _MOST_SLICES], deadline)

    def _gather(self, slices: list[bytes | memoryview], deadline: float) -> None:
        """One gathered call, and what is left of it when the peer reads slowly."""
        heard, held = time.monotonic(), -1
        while slices:
            try:
                sent = self._raw.sendmsg(slices)
            except BlockingIOError:
                sent = 0
            slices = _rest(slices, sent)
            if not slices:
                return
            # The kernel asks for more only when a good part of its buffer is free: the peer may well be reading.
            now, before = time.monotonic(), held
            held = _held_by_kernel(self._raw)
            if sent or held != before:
                heard = now
            if now >= deadline or now - heard >= self._silence_s:
                raise TimeoutError

    def _send_over_tls(self, slices: list[bytes | memoryview], deadline: float) -> None:
        """Join slices to pieces that TLS encrypts as a whole."""
        joined = memoryview(b"".join(slices))
        for start in range(0, len(joined), _TLS_PIECE):
            if time.monotonic() >= deadline:
                raise TimeoutError
            self._raw.sendall(joined[start : start + _TLS_PIECE])

    # --- in

    def _next(self, parts: AnswerParts, deadline: float) -> StoreAnswer | None:
        """Read one PDU; the answer if it is complete with it."""
        self._fill(6, deadline)
        kind, length = self._buffer[0], int.from_bytes(self._buffer[2:6], "big")
        if kind == _ABORT:
            raise AssociationLostError("The destination aborted the association.")
        if kind == _RELEASE_RQ:
            raise AssociationLostError("The destination ends the association although an answer is due.")
        if kind != P_DATA or length > _LONGEST_ANSWER:
            raise MessageError("an unexpected PDU")
        self._fill(6 + length, deadline)
        answer = parts.add(self._buffer[6 : 6 + length])
        self._drop(6 + length)
        return answer

    def _fill(self, wanted: int, deadline: float) -> None:
        """Have that many bytes in the buffer. An answer under way may not stop for longer than a silence."""
        while self._filled < wanted:
            acknowledge_at_once(self._raw)
            limit = min(deadline, time.monotonic() + self._silence_s) if self._filled else deadline
            count = self._receive(limit)
            if count == 0:
                raise AssociationLostError("The destination closed the connection.")
            self._filled += count

    def _receive(self, deadline: float) -> int:
        """Read what there is, waiting for the first byte until the deadline."""
        while True:
            if self._is_tls:
                self._raw.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                return self._raw.recv_into(self._buffer[self._filled :])
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
            finally:
                if self._is_tls:
                    self._raw.settimeout(self._silence_s)

    def _drop(self, count: int) -> None:
        """Forget the first bytes of the buffer."""
        left = self._filled - count
        self._buffer[:left] = bytes(self._buffer[count : self._filled])
        self._filled = left


def _rest(slices: list[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """What is left to send of slices of which `sent` bytes have gone."""
    for number, part in enumerate(slices):
        if sent < len(part):
            return [memoryview(part)[sent:], *slices[number + 1 :]]
        sent -= len(part)
    return []


def _held_by_kernel(raw: socket.socket) -> int:
    """Bytes that were sent and are not acknowledged yet; 0 where the system does not tell."""
    count = array.array("i", [0])
    with suppress(OSError):
        fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, count, True)
    return count[0]


def _cause(exc: OSError) -> str:
    """Why a call failed, in the system's words."""
    if isinstance(exc, TimeoutError):
        return "The time limit passed"
    return exc.strerror or type(exc).__name__
