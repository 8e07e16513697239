"""The library's upper layer without its thread: primitives leave as PDUs at once, on the caller's thread.

The library negotiates, and serves the messages of further services; both only send. Reading is done by
`Wire`, so there is no queue, no state machine that polls and no second thread to an association.
"""

from __future__ import annotations

from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, P_DATA

from dicom_node.network.commands import Command
from dicom_node.network.wire import (
    HEADER,
    AbortReason,
    PduType,
    PeerGoneError,
    ProtocolViolationError,
    Wire,
)


class BlockingProvider(DULServiceProvider):
    """Sends what the library gives it on the wire; never started as the thread it could be."""

    def __init__(self, assoc: Association, wire: Wire) -> None:
        super().__init__(assoc)
        self._wire = wire

    def send_pdu(self, primitive: Any) -> None:
        """Encode and send one primitive."""
        if isinstance(primitive, P_DATA):
            pdu: Any = P_DATA_TF(primitive)
        elif isinstance(primitive, (A_ABORT, A_P_ABORT)):
            pdu = A_ABORT_RQ(primitive)
        elif isinstance(primitive, A_ASSOCIATE):
            pdu = A_ASSOCIATE_RJ(primitive) if primitive.result else A_ASSOCIATE_AC(primitive)
        else:
            raise TypeError(f"an acceptor does not send {type(primitive).__name__}")
        self._wire.send(pdu.encode())

    def stop_dul(self) -> bool:
        """There is no thread to stop."""
        return True


def decode_request(body: bytes) -> A_ASSOCIATE:
    """Let the library decode a request that `judge_request` has passed.

    Raises `ProtocolViolationError` for values that only its decoder looks at.
    """
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(HEADER.pack(PduType.ASSOCIATE_RQ, len(body)) + body)
        return pdu.to_primitive()
    except Exception as exc:  # the library raises whatever its parts raise
        raise ProtocolViolationError(AbortReason.INVALID_PARAMETER, "a value of the request") from exc


def serve_with_library(
    assoc: Association, context_id: int, _command: Command, encoded: bytes, data: bytes
) -> None:
    """Let the library answer one complete message, on this thread.

    Raises `ProtocolViolationError` when it is none, and `PeerGoneError` when the library aborted.
    """
    fragments = P_DATA()
    pieces: list[Any] = [[context_id, b"\x03" + encoded]]
    if data:
        pieces.append([context_id, b"\x02" + data])
    fragments.presentation_data_value_list = pieces
    message = DIMSEMessage()
    try:
        message.decode_msg(fragments, assoc)
        primitive = message.message_to_primitive()
    except Exception as exc:  # the library raises whatever its parts raise
        raise ProtocolViolationError(AbortReason.INVALID_PARAMETER, "a service message") from exc
    assoc._serve_request(cast("Any", primitive), context_id)
    if assoc.is_aborted:
        raise PeerGoneError
