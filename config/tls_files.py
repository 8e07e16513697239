"""Whether the files that TLS needs are there, private, valid today and belong together.

Nothing is parsed by hand: a certificate is proven by a handshake with itself in memory, the same handshake
that a peer will make.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.tls import FILE_KEYS, ListenerTls, TlsSection

_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED and _NOT_YET_VALID of OpenSSL


@dataclass(frozen=True)
class TlsFault:
    """What is wrong with one file; `key` is the key that names it."""

    key: str
    message: str


class TlsFilesError(Exception):
    """The files cannot be used; `fault` says which and why."""

    def __init__(self, fault: TlsFault) -> None:
        super().__init__(f"{fault.key}: {fault.message}")
        self.fault = fault


def find_tls_faults(section: TlsSection) -> list[TlsFault]:
    """Return what is wrong with the files; none when TLS can be spoken with them today."""
    faults = [fault for key in FILE_KEYS for fault in _unreadable(key, getattr(section, key))]
    if faults:
        return faults
    faults = list(_exposed(section.key)) if section.key is not None else []
    for check in (_prove_certificate, _check_ca):
        try:
            check(section)
        except TlsFilesError as exc:
            faults.append(exc.fault)
    return faults


def expiry(section: TlsSection) -> datetime | None:
    """When our certificate ends; None when there is none. Raises `TlsFilesError` when it is of no use."""
    if section.certificate is None:
        return None
    return _moment(_prove_certificate(section)["notAfter"])


def _unreadable(key: str, path: Path | None) -> Iterator[TlsFault]:
    """Report a file that cannot be opened."""
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        yield TlsFault(key, f"{path} does not exist")
    except OSError as exc:
        yield TlsFault(key, f"{path} cannot be read: {exc.strerror}")


def _exposed(path: Path) -> Iterator[TlsFault]:
    """Report a private key that other users of this machine can read, or its group can replace."""
    mode = path.stat().st_mode
    if mode & _OTHERS:
        yield TlsFault(
            "key",
            f"{path} is readable or writable by other users (mode {stat.S_IMODE(mode):04o}); chmod 600 it",
        )


def _prove_certificate(section: TlsSection) -> dict[str, Any]:
    """Return our certificate's contents, proven by a handshake with itself."""
    if section.certificate is None or section.key is None:
        return {}
    serving = isinstance(section, ListenerTls)
    ours, other = _pair(serving=serving)
    try:
        for context in (ours, other):  # whoever serves needs a certificate, and this one is at hand
            context.load_cert_chain(section.certificate, section.key, password=_no_passphrase)
    except ssl.SSLError as exc:
        raise TlsFilesError(_load_fault(section, exc)) from exc
    except ValueError as exc:
        raise TlsFilesError(TlsFault("key", f"{section.key} has a passphrase; store it without")) from exc
    try:
        other.load_verify_locations(section.certificate)
        return _shake_hands(ours, other, serving=serving)
    except ssl.SSLCertVerificationError as exc:
        raise TlsFilesError(TlsFault("certificate", _verdict(section.certificate, exc))) from exc
    except ssl.SSLError as exc:
        reason = exc.reason or "no PEM certificate"
        raise TlsFilesError(
            TlsFault("certificate", f"{section.certificate} cannot be used ({reason})")
        ) from exc


def _no_passphrase() -> str:
    """Called for an encrypted key only; a service has nobody to ask."""
    raise ValueError


def _load_fault(section: TlsSection, exc: ssl.SSLError) -> TlsFault:
    """Which of the two files OpenSSL did not like."""
    if exc.reason == "KEY_VALUES_MISMATCH":
        return TlsFault("key", f"{section.key} is not the key of {section.certificate}")
    if exc.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return TlsFault("certificate", f"{section.certificate} is too weak ({exc.reason})")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(section.certificate)
    except ssl.SSLError:
        return TlsFault("certificate", f"{section.certificate} holds no PEM certificate")
    return TlsFault("key", f"{section.key} holds no PEM private key")


def _verdict(path: Path, exc: ssl.SSLCertVerificationError) -> str:
    """The operator's words for what a peer would find."""
    if exc.verify_code == _EXPIRED:
        return f"{path} has expired; peers will refuse it"
    if exc.verify_code == _NOT_YET:
        return f"{path} is not valid yet; check the clock, or wait"
    return f"{path} will be refused by peers: {exc.verify_message}"


def _check_ca(section: TlsSection) -> None:
    """Refuse a file without a certificate that may sign others today."""
    if section.ca is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(section.ca)
    except ssl.SSLError as exc:
        raise TlsFilesError(TlsFault("ca", f"{section.ca} holds no PEM certificate")) from exc
    found = context.get_ca_certs()
    if not found:
        raise TlsFilesError(TlsFault("ca", f"{section.ca} holds no certificate that may sign others"))
    if all(_moment(str(authority["notAfter"])) < datetime.now(UTC) for authority in found):
        raise TlsFilesError(TlsFault("ca", f"{section.ca} has expired"))


def _pair(*, serving: bool) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Our side, and the other side that has to believe our certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    ours, other = (server, client) if serving else (client, server)
    # TLS 1.2, where the client's certificate is judged inside of the handshake.
    ours.maximum_version = ssl.TLSVersion.TLSv1_2
    ours.verify_mode = ssl.CERT_NONE
    other.verify_mode = ssl.CERT_REQUIRED
    other.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return ours, other


def _shake_hands(ours: ssl.SSLContext, other: ssl.SSLContext, *, serving: bool) -> dict[str, Any]:
    """Run a handshake in memory; return our certificate as the other side sees it."""
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = ours.wrap_bio(to_us, to_them, server_side=serving)
    them = other.wrap_bio(to_them, to_us, server_side=not serving)
    waiting = [them, us]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    return dict(them.getpeercert() or {})


def _moment(text: str) -> datetime:
    """A time as OpenSSL writes it."""
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
