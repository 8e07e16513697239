"""Syslog over TLS: the record as RFC 5424 writes it, framed and confirmed as RFC 5425 allows.

Syslog knows no acknowledgement. What there is: a receiver has to answer our close_notify with its own
(RFC 5425 4.4), and it can only do so once it has read everything before it. So each batch has a connection
of its own, and counts as sent when that answer has come. A batch that did not get so far is sent again:
the log server may hold a record twice, told by its number (`meta sequenceId`), but never misses one.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC

from config.audit import SyslogSection
from dicom_node.errors import NodeError
from dicom_node.network.tls import peer_context
from storage.audit_chain import AuditRecord

_FACILITY = 10  # security and authorization messages (PS3.15 A.6)
_NOTICE, _WARNING = 5, 4
_BOM = b"\xef\xbb\xbf"  # RFC 5424 6.4: says that the message is UTF-8
_APP_NAME = "dicom-node"
_MESSAGE_ID = "DICOM+RFC3881"  # PS3.15 A.6
# RFC 5612: the enterprise number that stands for nobody, since these two facts are of our own making.
_CHAIN = "chain@32473"
_SEQUENCE_LIMIT = 2**31 - 1  # RFC 5424 7.3.1


class AuditNotSentError(NodeError):
    """The log server did not confirm a batch; nothing of it counts as sent."""


class SyslogTarget:
    """The configured log server. Holds no connection between batches."""

    def __init__(self, section: SyslogSection, *, hostname: str) -> None:
        self._section = section
        self._hostname = _printable(hostname, 255)

    def deliver(self, records: Sequence[AuditRecord]) -> None:
        """Send a batch and wait until the server has read it. Raises `AuditNotSentError`."""
        frames = b"".join(frame(format_record(record, self._hostname)) for record in records)
        try:
            self._exchange(frames)
        except OSError as exc:  # ssl.SSLError and timeouts are of this kind
            raise AuditNotSentError(_cause(exc)) from exc

    def _exchange(self, frames: bytes) -> None:
        section = self._section
        context = peer_context(section.tls)
        if section.tls.certificate is not None:
            # Under TLS 1.3 a server refuses our certificate only after our side of the handshake is done, and OpenSSL
            # then takes its alert for a close_notify: the batch would count as read. TLS 1.2 refuses in the handshake.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        address, timeout_s = (section.host, section.port), section.timeout.total_seconds()
        with (
            socket.create_connection(address, timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=section.tls.server_name or section.host) as secured,
        ):
            secured.sendall(frames)
            _await_goodbye(secured)


def format_record(record: AuditRecord, hostname: str) -> bytes:
    """One syslog message (RFC 5424 6): header, the place in the chain, and the XML in UTF-8."""
    severity = _NOTICE if record.outcome == 0 else _WARNING
    at = record.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    number = (record.seq - 1) % _SEQUENCE_LIMIT + 1
    facts = (
        f'[meta sequenceId="{number}"]'
        f'[{_CHAIN} seq="{record.seq}" digest="{record.digest}" previous="{record.previous}"]'
    )
    header = f"<{_FACILITY * 8 + severity}>1 {at} {hostname} {_APP_NAME} - {_MESSAGE_ID} {facts} "
    return header.encode("ascii") + _BOM + record.message.encode("utf-8")


def frame(message: bytes) -> bytes:
    """Octet counting (RFC 5425 4.3): the length, a space, the message."""
    return str(len(message)).encode("ascii") + b" " + message


def _await_goodbye(secured: ssl.SSLSocket) -> None:
    """Say close_notify and wait for the other side's; a plain end of the connection will do as well.

    A connection that ends in good order had nothing unread: the system resets it otherwise.
    """
    try:
        secured.unwrap()
    except ssl.SSLEOFError:
        return
    except OSError as exc:
        if exc.errno not in (0, errno.ENOTCONN) or isinstance(exc, ssl.SSLError):
            raise


def _cause(exc: OSError) -> str:
    """Why, in the words of the system or of OpenSSL, without a name or a path."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the log server's certificate is not believed: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {str(exc.reason or type(exc).__name__).replace('_', ' ').lower()}"
    if isinstance(exc, TimeoutError):
        return "the log server did not answer in time"
    return f"the log server cannot be reached: {exc.strerror or type(exc).__name__}"


def _printable(text: str, longest: int) -> str:
    """A header field: visible ASCII, or the sign for nothing (RFC 5424 6.2)."""
    kept = "".join(char for char in text if "!" <= char <= "~")[:longest]
    return kept or "-"
