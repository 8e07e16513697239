"""One accepted association, from its acceptance to its end, on one thread (PS3.7 9.1, PS3.8 9.2).

C-STORE and C-ECHO are served here: fragments go from the read buffer to the receiver as views, without an
object in between, and each answer leaves in one write. Messages of other services go to the library.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from dicom_node.network import commands
from dicom_node.network.commands import Command, command_pdus, decode_command, encode_response
from dicom_node.network.limits import ScpSettings
from dicom_node.network.received import AssociationInfo, Begin, Incoming, StoreRequest
from dicom_node.network.shares import Shares
from dicom_node.network.status import Ending, Status, StoreResponse
from dicom_node.network.wire import AbortReason, PduType, ProtocolViolationError, TooSlowError, Wire
from dicom_node.observability.logs import describe_error

log = structlog.get_logger(__name__)

_PDV: Final = struct.Struct(">LBB")
_RELEASE_RP: Final = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
_IS_COMMAND, _IS_LAST = 1, 2
_FREE_FRAGMENTS: Final = 256  # small fragments a message may have whatever its size
_FRAGMENT: Final = 64  # bytes that a fragment should carry on average beyond that
_FLUSH: Final = 1 << 18  # bytes gathered before they are handed on

Library = Callable[[int, Command, bytes, bytes], None]
"""Serves a message of another service: presentation context, command (decoded and as sent), data set."""


@dataclass(frozen=True)
class AcceptedContext:
    """What a presentation context id stands for. `stores`: served here, not by the library."""

    sop_class_uid: str
    transfer_syntax_uid: str
    stores: bool


@dataclass
class _Message:
    """The message that is arriving. `incoming` is None when its data set is only drained."""

    context_id: int
    began: float
    encoded: bytearray = field(default_factory=bytearray)
    command: Command | None = None
    incoming: Incoming | None = None
    answer: StoreResponse | None = None
    kept: bytearray | None = None
    size: int = 0
    fragments: int = 0


class Conversation:
    """Serves one association. `run` is called once; everything happens on its thread."""

    def __init__(
        self,
        wire: Wire,
        settings: ScpSettings,
        *,
        contexts: Mapping[int, AcceptedContext],
        association: AssociationInfo,
        peer_max_pdu: int,
        begin: Begin,
        library: Library,
        shares: Shares,
    ) -> None:
        self._wire = wire
        self._settings = settings
        self._contexts = contexts
        self._association = association
        self._peer_max_pdu = peer_max_pdu
        self._begin = begin
        self._library = library
        self._shares = shares
        self._message: _Message | None = None
        self._pieces: list[memoryview] = []
        self._gathered = 0
        self._caps: dict[int, int] = {
            PduType.P_DATA_TF: settings.max_pdu,
            PduType.RELEASE_RQ: 4,
            PduType.ABORT: 4,
        }
        self._ends_at = time.monotonic() + settings.lifetime_s
        wire.grow(max(2 * (settings.max_pdu + 6), 1 << 19))

    def run(self) -> Ending:
        """Serve until the peer releases or aborts.

        Raises what `Wire.next_pdu` raises when the association ends otherwise; nothing unfinished stays
        behind in any case.
        """
        try:
            while True:
                kind, body = self._next()
                if kind == PduType.P_DATA_TF:
                    self._take(body)
                elif kind == PduType.ABORT:
                    return Ending.ABORTED
                else:
                    if self._message is not None:
                        raise _unexpected("release within a message")
                    self._wire.send(_RELEASE_RP)
                    return Ending.RELEASED
        finally:
            self._drop()

    def _next(self) -> tuple[int, memoryview]:
        """The next PDU, within what is left of the message's or the association's time."""
        now = time.monotonic()
        message = self._message
        if message is None:
            if now >= self._ends_at:
                raise TooSlowError("association lasted too long")
            idle_until = min(now + self._settings.network_timeout_s, self._ends_at)
            return self._wire.next_pdu(self._caps, first_byte_by=idle_until, before_move=self._flush)
        complete_by = message.began + max(
            self._settings.message_s, message.size / self._settings.slowest_rate
        )
        if now >= complete_by:
            raise TooSlowError("message takes too long")
        return self._wire.next_pdu(
            self._caps,
            first_byte_by=now + self._settings.dimse_timeout_s,
            complete_by=complete_by,
            before_move=self._flush,
        )

    def _take(self, body: memoryview) -> None:
        """Take the fragments of one P-DATA-TF (PS3.8 9.3.5)."""
        position, end = 0, len(body)
        while position < end:
            if end - position < _PDV.size:
                raise _invalid("a fragment is cut off")
            length, context_id, control = _PDV.unpack_from(body, position)
            stop = position + 4 + length
            if length < 2 or stop > end:
                raise _invalid("a fragment reaches behind the end")
            self._fragment(context_id, control, body[position + _PDV.size : stop])
            position = stop

    def _fragment(self, context_id: int, control: int, data: memoryview) -> None:
        """Take one fragment of the message that is arriving."""
        message = self._message
        if message is None:
            if context_id not in self._contexts or not control & _IS_COMMAND:
                raise _invalid("a message begins without a command on an accepted context")
            message = self._message = _Message(context_id, time.monotonic())
        elif context_id != message.context_id:
            raise _invalid("two messages at once")
        message.fragments += 1
        message.size += len(data)
        if message.fragments > _FREE_FRAGMENTS + message.size // _FRAGMENT:
            raise _invalid("too many small fragments")
        if control & _IS_COMMAND:
            self._command_fragment(message, data, last=bool(control & _IS_LAST))
        elif message.command is None:
            raise _invalid("data before the command is complete")
        else:
            self._data_fragment(message, data)
            if control & _IS_LAST:
                self._finish(message)

    def _command_fragment(self, message: _Message, data: memoryview, *, last: bool) -> None:
        """Collect the command set; with its last fragment the message is known."""
        if message.command is not None:
            raise _unexpected("a second command within a message")
        message.encoded += data
        if len(message.encoded) > commands.LARGEST_COMMAND:
            raise _invalid("the command is too long")
        if last:
            message.command = command = decode_command(message.encoded)
            self._start(message, command)
            if not command.has_data:
                self._finish(message)

    # --- serving

    def _start(self, message: _Message, command: Command) -> None:
        """Decide what becomes of the message before its data set comes."""
        context = self._contexts[message.context_id]
        if not context.stores:
            message.kept = bytearray()
            return
        if command.field & commands.RESPONSE:
            raise _unexpected("a response to nothing")
        message.answer = self._refusal(command, context)
        if message.answer is not None or command.field != commands.C_STORE_RQ:
            return
        request = StoreRequest(
            command.sop_class_uid, command.sop_instance_uid, context.transfer_syntax_uid, self._association
        )
        try:
            message.incoming = self._begin(request)
        except Exception as exc:  # edge: the peer gets a status, and the log a place
            self._failed(message, exc)

    def _refusal(self, command: Command, context: AcceptedContext) -> StoreResponse | None:
        """What can be said against a request from its command alone."""
        status, comment = command.fault, ""
        if status is None and command.sop_class_uid != context.sop_class_uid:
            status = Status.SOP_CLASS_NOT_SUPPORTED
        if status is None and command.field == commands.C_STORE_RQ and not command.has_data:
            status, comment = Status.CANNOT_UNDERSTAND, "CANNOT_UNDERSTAND"
        if status is None:
            return None
        log.warning("instance.refused", association=self._association.id, status=f"{status:04X}")
        return StoreResponse(status, comment=comment)

    def _data_fragment(self, message: _Message, data: memoryview) -> None:
        """Gather views until there is enough for one write."""
        if message.kept is not None:
            if len(message.kept) + len(data) > commands.LARGEST_COMMAND * 64:
                raise _invalid("the data set of a service message is too long")
            message.kept += data
        elif message.incoming is not None:
            self._pieces.append(data)
            self._gathered += len(data)
            if self._gathered >= _FLUSH:
                self._flush()

    def _flush(self) -> None:
        """Hand the gathered views on; after this none is held."""
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        message = self._message
        if not pieces or message is None or message.incoming is None:
            return
        try:
            with self._shares.turn(self._association.calling_ae):
                message.incoming.write(pieces)
        except Exception as exc:  # edge: the rest of the data set is drained
            self._failed(message, exc)

    def _finish(self, message: _Message) -> None:
        """The message is complete: act on it and answer."""
        self._flush()
        command = message.command
        assert command is not None  # noqa: S101 (a message is complete only with its command)
        if message.kept is not None:
            self._message = None
            self._library(message.context_id, command, bytes(message.encoded), bytes(message.kept))
            return
        if message.incoming is not None:
            try:
                with self._shares.turn(self._association.calling_ae):
                    message.answer = message.incoming.finish()
            except Exception as exc:  # edge: the DIMSE handler
                self._failed(message, exc)
        self._drop()
        if command.field != commands.C_CANCEL_RQ:
            self._answer(message.context_id, command, message.answer or StoreResponse(Status.SUCCESS))

    def _answer(self, context_id: int, command: Command, response: StoreResponse) -> None:
        """Send one response."""
        encoded = encode_response(command, response)
        self._wire.send(command_pdus(context_id, encoded, self._peer_max_pdu))

    def _failed(self, message: _Message, exc: Exception) -> None:
        """Whatever went wrong inside, the peer gets a status and no text of ours."""
        log.error("instance.refused", association=self._association.id, status="C001", **describe_error(exc))
        message.answer = StoreResponse(Status.INTERNAL_ERROR, comment="INTERNAL_ERROR")
        incoming, message.incoming = message.incoming, None
        if incoming is not None:
            incoming.discard()

    def _drop(self) -> None:
        """Forget the message; an unfinished data set leaves nothing behind."""
        message, self._message = self._message, None
        self._pieces, self._gathered = [], 0
        if message is not None and message.incoming is not None:
            message.incoming.discard()


def _invalid(what: str) -> ProtocolViolationError:
    return ProtocolViolationError(AbortReason.INVALID_PARAMETER, what)


def _unexpected(what: str) -> ProtocolViolationError:
    return ProtocolViolationError(AbortReason.UNEXPECTED_PDU, what)
