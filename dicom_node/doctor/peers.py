"""Each peer: does it answer, and does it take what we would send."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pydicom.uid import UID, CTImageStorage, MRImageStorage

from config.sections import Peer, Timeouts
from dicom_node.doctor.findings import Area, Finding
from dicom_node.errors import AssociationRejectedError, PeerError, PeerUnreachableError, Reason
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, ProposedContext
from dicom_node.network.scu import echo, negotiate

SENT_SOP_CLASSES = (str(CTImageStorage), str(MRImageStorage))
"""What derived series consist of; `dicom_node.imaging` writes nothing else."""

_PATIENCE = timedelta(seconds=10)
_NOTHING_SENT = "Derived series for this peer wait and are not delivered."


def check_peer(peer: Peer) -> list[Finding]:
    """Call a peer (with our AE title filled in) and propose every context a delivery may need."""
    area = Area("peers", peer.name)
    if not peer.enabled:
        return [
            area.warning(
                "It is switched off (enabled: false).",
                meaning="Deliveries to it wait.",
                fix="Remove `enabled: false` to send.",
            )
        ]
    peer = impatient(peer)
    try:
        result = echo(peer)
    except AssociationRejectedError as exc:
        if exc.reason is not Reason.NO_CONTEXT:
            return [_refused(area, peer, exc)]
        findings = [
            area.warning(
                "It does not accept Verification (C-ECHO).",
                meaning="It cannot be tested with an echo; storing may work all the same.",
                fix="Nothing, or let the peer's administrator switch the Verification service on.",
            )
        ]
    except PeerError as exc:
        return [_refused(area, peer, exc)]
    else:
        findings = [_echoed(area, peer, result.status, result.seconds)]
    try:
        return [*findings, *_contexts(area, peer)]
    except PeerError as exc:
        return [*findings, _refused(area, peer, exc)]


def impatient(peer: Peer) -> Peer:
    """The peer with time limits for somebody who waits at a terminal."""
    limits = Timeouts(
        association=min(peer.timeouts.association, _PATIENCE),
        dimse=min(peer.timeouts.dimse, _PATIENCE),
        network=min(peer.timeouts.network, _PATIENCE),
    )
    return peer.model_copy(update={"timeouts": limits})


def _echoed(area: Area, peer: Peer, status: int, seconds: float) -> Finding:
    where = f"{peer.ae_title} at {peer.host}:{peer.port}{' over TLS' if peer.tls else ''}"
    if status == 0:
        return area.ok(f"{where} answers C-ECHO in {seconds * 1000:.0f} ms.")
    return area.warning(
        f"{where} answers C-ECHO with 0x{status:04X}.",
        meaning="It takes associations but is not well.",
        fix="Ask the peer's administrator what its log says about this moment.",
    )


def _contexts(area: Area, peer: Peer) -> Iterator[Finding]:
    """Propose each SOP class with each syntax in a context of its own."""
    asked = [
        ProposedContext(sop_class, (syntax,))
        for sop_class in SENT_SOP_CLASSES
        for syntax in (EXPLICIT_LE, IMPLICIT_LE)
    ]
    try:
        accepted = negotiate(peer, asked)
    except AssociationRejectedError as exc:
        if exc.reason is not Reason.NO_CONTEXT:
            raise
        accepted = frozenset()
    for sop_class in SENT_SOP_CLASSES:
        name = UID(sop_class).name
        syntaxes = [s for s in (EXPLICIT_LE, IMPLICIT_LE) if (sop_class, s) in accepted]
        if not syntaxes:
            yield area.problem(
                f"It does not accept {name}.",
                meaning="Such derived series are refused and their deliveries fail.",
                fix=f"The peer's administrator has to allow {name} ({sop_class}) from {peer.calling_ae_title}.",
            )
        elif EXPLICIT_LE not in syntaxes:
            yield area.warning(
                f"It accepts {name} in Implicit VR Little Endian only.",
                meaning="Each image is converted on the way, and the types of private elements are lost.",
                fix="Let the peer accept Explicit VR Little Endian (1.2.840.10008.1.2.1).",
            )
        else:
            yield area.ok(f"It accepts {name} in {' and '.join(UID(s).name for s in syntaxes)}.")


def _refused(area: Area, peer: Peer, exc: PeerError) -> Finding:
    """What a failed association means for the person who has to mend it."""
    return area.problem(exc.detail, meaning=_NOTHING_SENT, fix=_fix(peer, exc))


def _fix(peer: Peer, exc: PeerError) -> str:
    if isinstance(exc, PeerUnreachableError):
        if "TLS" in exc.detail:
            return (
                f"Check that port {peer.port} of {peer.host} speaks TLS, that the peer's certificate names "
                "that host and is signed by the file under `ca`, and that it believes ours."
            )
        return (
            f"Check host and port ({peer.host}:{peer.port}), that the peer runs, and the firewall between: "
            f"nc -vz {peer.host} {peer.port}"
        )
    if "calling AE title" in exc.detail:
        return f"The peer's administrator has to enter our AE title {peer.calling_ae_title} (see below)."
    if "called AE title" in exc.detail:
        return f"Its AE title is not {peer.ae_title}; correct ae_title under peers."
    return "Ask the peer's administrator what its log says about this moment."
