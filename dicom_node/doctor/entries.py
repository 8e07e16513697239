"""What a PACS administrator has to enter on his side, as lines to copy."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass

from pydicom.uid import UID

from config.names import is_loopback
from config.sections import Peer
from config.settings import Settings
from dicom_node.doctor.peers import SENT_SOP_CLASSES
from dicom_node.network.presentation import STORAGE_SOP_CLASSES, storage_transfer_syntaxes

_ANY = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class Entry:
    """One block of lines; `title` says whose administrator enters it and where."""

    title: str
    lines: tuple[tuple[str, str], ...]


def entries(settings: Settings) -> list[Entry]:
    """The node as a destination, then what each peer has to allow."""
    return [_destination(settings), *(_caller(settings, peer) for peer in settings.peers if peer.enabled)]


def _destination(settings: Settings) -> Entry:
    node = settings.node
    return Entry(
        "On every system that sends to this node: a new storage destination",
        (
            ("AE title", " or ".join(node.ae_titles)),
            ("Host", _our_host(settings)),
            ("Port", str(node.port)),
            ("TLS", _tls(settings)),
            (
                "Services",
                "Storage SCP, Verification SCP" + (", Storage Commitment SCP" if settings.promises else ""),
            ),
            ("SOP classes", "; ".join(_named(uid) for uid in STORAGE_SOP_CLASSES)),
            ("Transfer syntaxes", "; ".join(UID(uid).name for uid in storage_transfer_syntaxes())),
            ("Callers admitted", _callers(settings)),
        ),
    )


def _caller(settings: Settings, peer: Peer) -> Entry:
    return Entry(
        f"On {peer.name} ({peer.ae_title} at {peer.host}:{peer.port}): allow this node to store",
        (
            ("Calling AE title", settings.calling_title(peer)),
            ("Host", address_towards(peer.host, peer.port) or _our_host(settings)),
            (
                "TLS",
                "yes" + (", we show a certificate" if peer.tls.certificate else "") if peer.tls else "no",
            ),
            ("SOP classes", "; ".join(_named(uid) for uid in SENT_SOP_CLASSES)),
            ("Transfer syntaxes", "Explicit VR Little Endian, or else Implicit VR Little Endian"),
            *(
                (("Commitment reports to", f"{settings.calling_title(peer)}, port {settings.node.port}"),)
                if peer.commitment
                else ()
            ),
            *(
                (("Commitment reports from", f"this node, to port {_report_port(peer)}, as SCP"),)
                if peer.safekeeping
                else ()
            ),
        ),
    )


def _report_port(peer: Peer) -> int:
    own = peer.safekeeping
    return (own.port if own is not None else None) or peer.port


def address_towards(host: str, port: int) -> str | None:
    """Our address on the way to a host, which is how it sees us without NAT; sends nothing."""
    with suppress(OSError):
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # a datagram socket only looks up the route
            return str(probe.getsockname()[0])
    return None


def _our_host(settings: Settings) -> str:
    host = settings.node.host
    if host not in _ANY:
        return f"{host} (this machine only: set node.host)" if is_loopback(host) else host
    found = {address_towards(peer.host, peer.port) for peer in settings.peers if peer.enabled} - {None}
    return " or ".join(sorted(str(address) for address in found)) or socket.gethostname()


def _tls(settings: Settings) -> str:
    tls = settings.node.tls
    if tls is None:
        return "no"
    profile = "BCP 195 RFC 8996, 9325 (PS3.15 B.12)" if tls.profile == "bcp195" else "non-downgrading (B.10)"
    return f"yes, {profile}, TLS 1.2 or newer" + (", with a client certificate" if tls.mutual else "")


def _callers(settings: Settings) -> str:
    callers = settings.node.accept_from
    if not callers:
        return "any AE title, from this machine"
    return "; ".join(
        caller.ae_title + (f" from {caller.network}" if caller.network else "") for caller in callers
    )


def _named(uid: str) -> str:
    return f"{UID(uid).name} ({uid})"
