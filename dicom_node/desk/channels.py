"""Mail and webhooks: how a message leaves the node, and what it is kept from reaching."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from config.alerts import MailSection, WebhookSection
from dicom_node.errors import NodeError

TIMEOUT_S = 10.0
_MOST_ANSWER = 4096


class NotToldError(NodeError):
    """A message could not be handed over; the text names the cause and neither address nor secret."""


def send_mail(section: MailSection, subject: str, body: str) -> None:
    """Hand one mail to the server. Raises `NotToldError`."""
    message = EmailMessage()
    message["Subject"], message["From"] = subject, section.sender
    message["To"] = ", ".join(section.recipients)
    message.set_content(body)
    context = ssl.create_default_context()
    try:
        kind = smtplib.SMTP_SSL if section.security == "tls" else smtplib.SMTP
        options: dict[str, Any] = {"context": context} if section.security == "tls" else {}
        with kind(section.host, section.port, timeout=TIMEOUT_S, **options) as server:
            if section.security == "starttls":
                server.starttls(context=context)
            if section.user is not None and section.password_file is not None:
                server.login(section.user, section.password_file.read_text().strip())
            server.send_message(message)
    except (OSError, smtplib.SMTPException, ssl.SSLError) as exc:
        raise NotToldError(f"the mail server did not take the message ({type(exc).__name__})") from exc


def call_webhook(
    section: WebhookSection,
    facts: Mapping[str, Any],
    *,
    allowed: Sequence[IPv4Network | IPv6Network],
) -> None:
    """POST the facts as JSON. Raises `NotToldError`, after ten seconds at the latest.

    The address is looked up once and that very address is called, so a name cannot change its meaning in between.
    Private, loopback and link-local addresses are refused unless allowed. Redirects are not followed.
    """
    parts = urlsplit(section.url)
    host = parts.hostname or ""
    address = _checked_address(host, parts.port or (443 if parts.scheme == "https" else 80), allowed)
    body = json.dumps(facts).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "dicom-node", "Host": parts.netloc}
    if section.secret_file is not None:
        try:
            key = section.secret_file.read_bytes().strip()
        except OSError as exc:
            raise NotToldError("the webhook's secret file cannot be read") from exc
        headers["X-Signature-SHA256"] = hmac.new(key, body, hashlib.sha256).hexdigest()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Pinned(address, host, tls=parts.scheme == "https")
    failures: list[Exception] = []

    def post() -> None:
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read(_MOST_ANSWER)
            if not 200 <= answer.status < 300:
                raise NotToldError(f"the webhook answered {answer.status}")
        except Exception as exc:
            failures.append(exc)

    # A server that answers a byte at a time would renew any time limit of the socket for ever.
    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    late = thread.is_alive()
    connection.close()
    if late:
        raise NotToldError("the webhook did not answer in time")
    if failures:
        if isinstance(failures[0], NotToldError):
            raise failures[0]
        raise NotToldError(f"the webhook could not be called ({type(failures[0]).__name__})") from failures[0]


def _checked_address(host: str, port: int, allowed: Sequence[IPv4Network | IPv6Network]) -> tuple[str, int]:
    """The first address of the host, if a webhook may go there. Raises `NotToldError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise NotToldError("the webhook's host is unknown") from exc
    for entry in found:
        address = ip_address(str(entry[4][0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not mapped.is_global and not any(mapped in network for network in allowed):
            raise NotToldError("the webhook lies in a private network that is not under allow_private")
    return str(found[0][4][0]), port


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, with the certificate checked for the host's name."""

    def __init__(self, address: tuple[str, int], host: str, *, tls: bool) -> None:
        super().__init__(host, address[1], timeout=TIMEOUT_S)
        self._address = address
        self._name = host
        self._tls = tls

    def connect(self) -> None:
        """Connect to the address, whatever the name means by now."""
        sock = socket.create_connection(self._address, TIMEOUT_S)
        if self._tls:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self._name)
        self.sock = sock
