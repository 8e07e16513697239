"""An association that we request: opened, prepared and ended in one place, refusals told apart."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import EventType
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_role
from pynetdicom.transport import AssociationSocket

from config.sections import Peer
from dicom_node.errors import AssociationRejectedError, PeerUnreachableError, Reason
from dicom_node.network.lending import LendingEntity
from dicom_node.network.presentation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    ProposedContext,
)
from dicom_node.network.pynetdicom_switches import configure_library
from dicom_node.network.status import describe_rejection
from dicom_node.network.tls import PeerContext, peer_context


@contextmanager
def associate(
    peer: Peer,
    contexts: Sequence[ProposedContext],
    calling_ae_title: str | None,
    *,
    handlers: Sequence[tuple[EventType, Callable[[Any], Any]]] = (),
    reports_of: Sequence[str] = (),
    reports_on: Sequence[str] = (),
) -> Iterator[Association]:
    """An established association, released at the end of the block, aborted when the block raises.

    `handlers` answer what the peer asks meanwhile. `reports_of`: SOP classes of which the peer, as their
    SCP, may also send requests of its own. `reports_on`: those of which we are the SCP.
    """
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
        evt_handlers=[(evt.EVT_CONN_OPEN, on_connected), *handlers],
        ext_neg=[
            *(build_role(uid, scu_role=True) for uid in reports_of),
            *(build_role(uid, scp_role=True) for uid in reports_on),
        ],
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


def _entity(peer: Peer, calling_ae_title: str | None) -> LendingEntity:
    """The application entity that calls `peer`. Raises `ValueError` when nobody said under which title."""
    title = peer.calling_ae_title or calling_ae_title
    if title is None:
        raise ValueError("no calling AE title for this peer")
    entity = LendingEntity(ae_title=title)
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
