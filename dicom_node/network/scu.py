"""The SCU: C-ECHO and C-STORE to a peer over one association per call, opened and released here.

A stored file goes out byte for byte. The one conversion is Explicit to Implicit VR Little Endian, for a
peer that accepts nothing else.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationSocket

from config.sections import Peer
from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    PeerUnreachableError,
    Reason,
    UnreadableInstanceError,
)
from dicom_node.network.presentation import (
    EXPLICIT_LE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_LE,
    VERIFICATION,
    ProposedContext,
    proposed_contexts,
)
from dicom_node.network.pynetdicom_switches import configure_library
from dicom_node.network.status import Status, describe_rejection
from dicom_node.network.tls import PeerContext, TlsRequestorEntity, peer_context
from dicom_node.network.transport import RequestorEntity

_SLOWEST_LINK = 64 * 1024  # bytes/s; a large object on a slow line is not a silent peer

_UNREADABLE = (InvalidDicomError, AttributeError, OSError, ValueError, EOFError)

OnResult = Callable[[str, int, str], bool | None]
"""Called with SOP Instance UID, status and comment once an instance is answered; False stops the sending."""


@dataclass(frozen=True)
class Outgoing:
    """One Part 10 file to send; the UIDs are those of its file meta."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class EchoResult:
    """A C-ECHO that was answered: its status and the seconds from connecting to the answer."""

    status: int
    seconds: float


@dataclass(frozen=True)
class SendReport:
    """How many instances were answered, and how many of those with success (0000)."""

    answered: int
    succeeded: int
    seconds: float


def echo(peer: Peer, *, calling_ae_title: str | None = None) -> EchoResult:
    """Verify that the peer answers C-ECHO. Raises a `PeerError` when it does not."""
    begin = time.monotonic()
    contexts = (ProposedContext(VERIFICATION, (EXPLICIT_LE, IMPLICIT_LE)),)
    with associate(peer, contexts, calling_ae_title) as assoc:
        status = _status_of(_guarded(assoc.send_c_echo), "C-ECHO")
    return EchoResult(status, time.monotonic() - begin)


def send(
    peer: Peer, files: Iterable[Outgoing], on_result: OnResult, *, calling_ae_title: str | None = None
) -> SendReport:
    """Send `files` in the order given over one association, with `on_result` after each answer.

    An instance whose SOP class or syntax the peer did not accept is reported with 0122. Raises
    `PeerUnreachableError`, `AssociationRejectedError` or `AssociationLostError`; what was reported
    before stands. An instance without a report was not answered and has to be sent again.
    """
    begin = time.monotonic()
    items = tuple(files)
    if not items:
        return SendReport(0, 0, 0.0)
    contexts = proposed_contexts((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    answered = succeeded = 0
    with associate(peer, contexts, calling_ae_title) as assoc:
        agreed = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in assoc.accepted_contexts}
        for number, item in enumerate(items):
            status, comment = _store(assoc, item, agreed, message_id=number % 65535 + 1, peer=peer)
            answered += 1
            succeeded += status == Status.SUCCESS
            if on_result(item.sop_instance_uid, status, comment) is False:
                break
    return SendReport(answered, succeeded, time.monotonic() - begin)


def negotiate(
    peer: Peer, contexts: Sequence[ProposedContext], *, calling_ae_title: str | None = None
) -> frozenset[tuple[str, str]]:
    """Propose contexts and release at once; the (SOP class, transfer syntax) pairs that the peer accepted.

    Raises a `PeerError`; a peer that accepts none of them is an `AssociationRejectedError` with NO_CONTEXT.
    """
    with associate(peer, contexts, calling_ae_title) as assoc:
        return frozenset((str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in assoc.accepted_contexts)


def outgoing(path: Path) -> Outgoing:
    """Describe a file for sending from its file meta alone. Raises `UnreadableInstanceError`."""
    try:
        meta = read_file_meta_info(path)
        return Outgoing(
            path,
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
        )
    except _UNREADABLE as exc:
        raise UnreadableInstanceError("The file has no complete file meta information.") from exc


def _store(
    assoc: Association, item: Outgoing, agreed: set[tuple[str, str]], *, message_id: int, peer: Peer
) -> tuple[int, str]:
    """Send one instance and wait for its answer; (status, comment)."""
    payload: Path | Dataset = item.path
    if (item.sop_class_uid, item.transfer_syntax_uid) in agreed:
        pass
    elif item.transfer_syntax_uid == EXPLICIT_LE and (item.sop_class_uid, IMPLICIT_LE) in agreed:
        payload = _read(item.path)
    else:
        return int(Status.SOP_CLASS_NOT_SUPPORTED), str(Reason.NO_CONTEXT)
    assoc.dimse_timeout = max(peer.timeouts.dimse.total_seconds(), _size(item.path) / _SLOWEST_LINK)
    answer = _guarded(lambda: assoc.send_c_store(payload, msg_id=message_id))
    return _status_of(answer, "C-STORE"), str(answer.get("ErrorComment", ""))


def _read(path: Path) -> Dataset:
    """The whole file, decoded, for the one conversion there is."""
    try:
        return dcmread(path)
    except _UNREADABLE as exc:
        raise UnreadableInstanceError(f"{type(exc).__name__} while reading it.") from exc


def _size(path: Path) -> int:
    """Bytes of the file."""
    try:
        return path.stat().st_size
    except OSError as exc:
        raise UnreadableInstanceError(f"{type(exc).__name__} while reading it.") from exc


def _guarded(request: Callable[[], Dataset]) -> Dataset:
    """Make one request; an association that is gone by then is lost, not a mistake of the caller."""
    try:
        return request()
    except RuntimeError as exc:
        raise AssociationLostError("The association ended between two requests.") from exc
    except (OSError, ValueError, AttributeError) as exc:
        raise UnreadableInstanceError(f"{type(exc).__name__} while sending it.") from exc


def _status_of(answer: Dataset, service: str) -> int:
    """The status of an answer; without one there was no answer, and nothing is known to be stored."""
    if "Status" not in answer:
        raise AssociationLostError(f"No answer to a {service} request.")
    return int(answer.Status)


@contextmanager
def associate(
    peer: Peer, contexts: Sequence[ProposedContext], calling_ae_title: str | None
) -> Iterator[Association]:
    """An established association, released at the end of the block, aborted when the block raises."""
    configure_library()
    tls = _context(peer)
    connected: list[bool] = []

    def on_connected(event: Any) -> None:
        connected.append(True)
        _prepare_socket(event.assoc, peer)

    assoc = _entity(peer, calling_ae_title).associate(
        _address(peer),
        peer.port,
        contexts=[
            build_context(context.sop_class_uid, list(context.transfer_syntax_uids)) for context in contexts
        ],
        ae_title=peer.ae_title,
        max_pdu=peer.max_pdu,
        evt_handlers=[(evt.EVT_CONN_OPEN, on_connected)],
        tls_args=None if tls is None else (tls, (peer.tls and peer.tls.server_name) or peer.host),
    )
    if tls is not None and tls.failure:
        raise PeerUnreachableError(f"No TLS connection to {peer.name}: {tls.failure}.")
    if not assoc.is_established:
        raise _failure(assoc, peer, connected=bool(connected))
    try:
        yield assoc
    except BaseException:
        assoc.abort()
        raise
    else:
        assoc.release()


def _address(peer: Peer) -> str:
    """The peer's IP address, IPv4 before IPv6: the library takes a name without a dot for IPv6."""
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise PeerUnreachableError(f"The host name of {peer.name} is unknown.") from exc
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def _context(peer: Peer) -> PeerContext | None:
    """The TLS context for one association with a peer, or None where it is called in the clear."""
    if peer.tls is None:
        return None
    try:
        return peer_context(peer.tls)
    except OSError as exc:
        cause = exc.strerror or type(exc).__name__
        raise PeerUnreachableError(f"The TLS files for {peer.name} cannot be used: {cause}.") from exc


def _entity(peer: Peer, calling_ae_title: str | None) -> RequestorEntity:
    """The application entity that calls `peer`. Raises `ValueError` when nobody said under which title."""
    title = peer.calling_ae_title or calling_ae_title
    if title is None:
        raise ValueError("no calling AE title for this peer")
    entity = (TlsRequestorEntity if peer.tls else RequestorEntity)(ae_title=title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = peer.timeouts.association.total_seconds()
    entity.acse_timeout = peer.timeouts.association.total_seconds()
    entity.dimse_timeout = peer.timeouts.dimse.total_seconds()
    entity.network_timeout = peer.timeouts.network.total_seconds()
    return entity


def _prepare_socket(assoc: Association, peer: Peer) -> None:
    """Send small writes at once, and give up on a peer that stops reading or stops in mid-PDU."""
    raw = cast(AssociationSocket, assoc.dul.socket).socket
    if raw is None:  # closed again already; the request that follows finds out
        return
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.settimeout(peer.timeouts.network.total_seconds())


def _failure(assoc: Association, peer: Peer, *, connected: bool) -> Exception:
    """Why there is no association, as the error that the caller decides by."""
    if not connected:
        return PeerUnreachableError(f"No connection to {peer.name}.")
    if assoc.is_rejected:
        answer = cast(A_ASSOCIATE, assoc.acceptor.primitive)
        triple = (answer.result or 0, answer.result_source or 0, answer.diagnostic or 0)
        return AssociationRejectedError(describe_rejection(*triple), permanent=answer.result == 1)
    if assoc.rejected_contexts:
        return AssociationRejectedError(
            "None of the presentation contexts was accepted.", permanent=True, reason=Reason.NO_CONTEXT
        )
    # In TLS 1.3 a server that refuses our certificate says so only after the handshake.
    doubt = " It may not accept our certificate." if peer.tls is not None else ""
    return AssociationRejectedError(f"Aborted, or no answer to the request.{doubt}", permanent=False)
