"""DICOM TLS: contexts of the profiles of PS3.15, read again when their files change, and handshakes that end.

A handshake runs on the connection's own thread under a deadline, so that a peer that connects and stays
silent never holds up the accept loop. What follows is the same association on a secured socket.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog

from config.tls import FILE_KEYS, ListenerTls, PeerTls, TlsProfile, TlsSection
from dicom_node.network.gate import Ticket
from dicom_node.network.server import AssociationServer
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error

log = structlog.get_logger(__name__)

C = TypeVar("C", bound=ssl.SSLContext)

_ECDHE = "ECDHE+AESGCM"  # RFC 9325 4.2: the four suites with AES-GCM, for RSA and ECDSA certificates
_CIPHERS: Mapping[TlsProfile, str] = {
    "bcp195": f"{_ECDHE}:!PSK:!aNULL",
    # RFC 7525 4.2 recommends these two with finite-field groups of at least 2048 bits as well.
    "bcp195-non-downgrading": f"{_ECDHE}:DHE+AESGCM:!PSK:!aNULL:!DSS",
}
_GROUP = Path(__file__).with_name("ffdhe3072.pem")  # the group of that name, RFC 7919 A.2


def listener_context(section: ListenerTls) -> ssl.SSLContext:
    """The context of our port. Raises `OSError` (`ssl.SSLError` is one) when the files cannot be used."""
    context = _prepared(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), section)
    context.verify_mode = ssl.CERT_REQUIRED if section.mutual else ssl.CERT_NONE
    if section.profile == "bcp195-non-downgrading":
        context.load_dh_params(str(_GROUP))
    return context


def peer_context(section: PeerTls) -> PeerContext:
    """The context of one connection to a peer, from the files as they are now.

    Raises `OSError` when they cannot be used.
    """
    context = _prepared(PeerContext(ssl.PROTOCOL_TLS_CLIENT), section)
    context.check_hostname = section.check_name
    context.sslsocket_class = _TellingSocket
    return context


def _prepared(context: C, section: TlsSection) -> C:
    """TLS 1.2 or newer with the suites of the profile; no compression, no renegotiation, no tickets."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS[section.profile])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    if section.certificate is not None:
        context.load_cert_chain(section.certificate, section.key)
    if section.ca is not None:
        context.load_verify_locations(section.ca)
    return context


class RenewedContext:
    """The listener's context, made anew when one of its files has changed. Safe for several threads.

    Files that cannot be used (half written, expired key pair) leave the last good context in place; the
    log says so once per change.
    """

    def __init__(self, section: ListenerTls) -> None:
        self._section = section
        self._lock = threading.Lock()
        self._stamp = _stamp(section)
        self._context = listener_context(section)

    def current(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        with self._lock:
            stamp = _stamp(self._section)
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
            return self._context

    def _renew(self) -> None:
        """Take the new files, or keep what works."""
        try:
            self._context = listener_context(self._section)
        except OSError as exc:
            log.error(events.TLS_NOT_RENEWED, **describe_error(exc))
        else:
            log.info(events.TLS_RENEWED)


def _stamp(section: TlsSection) -> tuple[tuple[int, int, int] | None, ...]:
    """What tells one version of the files from the next."""
    return tuple(_version(getattr(section, key)) for key in FILE_KEYS)


def _version(path: Path | None) -> tuple[int, int, int] | None:
    if path is not None:
        with suppress(OSError):
            found = path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
    return None


class TlsAssociationServer(AssociationServer):
    """An association server whose connections begin with a TLS handshake, each on a thread of its own."""

    def __init__(self, *args: Any, tls: RenewedContext, **kwargs: Any) -> None:
        self._tls = tls
        super().__init__(*args, **kwargs)

    def secure(self, request: socket.socket, address: Any, ticket: Ticket) -> socket.socket | None:
        """Shake hands within the time for it, bytes that drip included."""
        try:
            secured = self._tls.current().wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
            ticket.raw = secured
            secured.settimeout(self.settings.tls_handshake_s)
            secured.do_handshake()
        except OSError as exc:
            if number := self.seldom.count("tls"):
                log.warning(events.TLS_REFUSED, peer_host=str(address[0]), cause=_cause(exc), number=number)
            return None
        return secured


class PeerContext(ssl.SSLContext):
    """A context for one connection to a peer; `failure` says why its handshake failed."""

    failure: str = ""


class _TellingSocket(ssl.SSLSocket):
    """Tells its context why the handshake failed; the library above only says that there is no connection."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands."""
        try:
            super().do_handshake(block)
        except OSError as exc:
            if isinstance(self.context, PeerContext):
                self.context.failure = _cause(exc)
            raise


def _cause(exc: OSError) -> str:
    """Why a handshake failed, in OpenSSL's words, without a subject or a path."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return str(exc.verify_message)
    if isinstance(exc, ssl.SSLError):
        return str(exc.reason or type(exc).__name__).replace("_", " ").lower()
    return exc.strerror or type(exc).__name__
