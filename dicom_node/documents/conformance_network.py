"""The network half of the conformance statement: roles, contexts, statuses, addresses, security."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pydicom.uid import UID

from config.sections import Peer
from config.settings import Settings
from config.tls import TlsSection
from dicom_node.documents.markdown import document, table
from dicom_node.network.presentation import (
    EXPLICIT_LE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_LE,
    STORAGE_SOP_CLASSES,
    accepted_contexts,
)
from dicom_node.network.status import Rejection, Status
from dicom_node.sinks.outcome import Verdict, judge

__all__ = ["IMPLEMENTATION_CLASS_UID", "IMPLEMENTATION_VERSION_NAME"]

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_VERIFICATION: Final = "1.2.840.10008.1.1"
_PARAMETRIC_MAP: Final = "1.2.840.10008.5.1.4.1.1.30"
_COMPREHENSIVE_SR: Final = "1.2.840.10008.5.1.4.1.1.88.33"
_COMMITMENT: Final = "1.2.840.10008.1.20.1"

_STATUSES: Final[Mapping[Status, tuple[str, str]]] = {
    Status.SUCCESS: ("Success", "stored durably, or a resend of an instance that is stored already"),
    Status.OUT_OF_RESOURCES: ("Refused: out of resources", "no space, a limit reached, or not durable"),
    Status.DATA_SET_MISMATCH: ("Error: data set does not match", "it names another SOP class or instance"),
    Status.REQUIRED_UID: (
        "Error: data set does not match",
        "a Study, Series or SOP UID is missing or malformed",
    ),
    Status.CANNOT_UNDERSTAND: ("Error: cannot understand", "the data set cannot be parsed"),
    Status.INTERNAL_ERROR: ("Error: cannot understand", "a fault of the node; the log names the place"),
    Status.SOP_CLASS_NOT_SUPPORTED: ("Refused: SOP class not supported", "it is not that of the context"),
    Status.NOT_AUTHORIZED: ("Refused: not authorized", "this AE may not store"),
    Status.PROCESSING_FAILURE: ("Failed: processing failure", "the command lacks a UID or is out of order"),
    Status.INVALID_INSTANCE: (
        "Failed: invalid SOP instance",
        "the SOP Instance UID of the command is malformed",
    ),
    Status.UNRECOGNIZED_OPERATION: ("Failed: unrecognized operation", "neither C-STORE nor C-ECHO"),
}
_REJECTIONS: Final[Mapping[Rejection, str]] = {
    Rejection.CALLING_AE_UNKNOWN: "the calling AE title or its address is not on the list, or is malformed",
    Rejection.CALLED_AE_UNKNOWN: "the called AE title is none of ours",
    Rejection.APPLICATION_CONTEXT: "the application context is not that of DICOM",
    Rejection.VERSION_NOT_SUPPORTED: "the protocol version is not 1",
    Rejection.TEMPORARY_CONGESTION: "the node stops, is paused, or its disk is full; try again",
    Rejection.LOCAL_LIMIT: "a configured limit (in all, of the AE, from the address) is reached; try again",
}
_ANSWERS: Final[tuple[tuple[str, int], ...]] = (
    ("0000", 0x0000),
    ("Bxxx warning", 0xB000),
    ("0111 duplicate SOP instance", 0x0111),
    ("A7xx, 0213 out of resources", 0xA700),
    ("0110, 0210", 0x0110),
    ("0122 SOP class not supported", 0x0122),
    ("0124 not authorized", 0x0124),
    ("A9xx, Cxxx, any other", 0xC000),
)
_FAILURES: Final[tuple[tuple[str, str], ...]] = (
    ("0110", "damaged, or its UID has several contents"),
    ("0112", "not here"),
    ("0119", "here with another SOP class"),
    ("0122", "of a SOP class that is not accepted"),
    ("0131", "listed under a Transaction UID that is in use for another list"),
)
_VERDICTS: Final[Mapping[Verdict, str]] = {
    Verdict.DELIVERED: "delivered; a warning is kept with the instance",
    Verdict.BUSY: "the association is released; the destination is left alone for a while",
    Verdict.LATER: "the other instances go on; this one is sent again later",
    Verdict.RENEGOTIATE: "once more on a new association, then refused for good",
    Verdict.PAUSE: "the association is released; an operator is told, and the destination "
    "is asked again after the longest wait",
    Verdict.REFUSED: "this instance is refused for good, the others go on; an operator may try again",
}


def services(settings: Settings) -> str:
    """The table of network services, SCU and SCP (PS3.2 N.1)."""
    routes = settings.routes
    maps = any(route.companions.uncertainty_map for route in routes)
    reports = any(route.companions.quality_report for route in routes)
    commitment = any(peer.commitment is not None for peer in settings.peers)
    rows = [("Verification", _VERIFICATION, "Yes", "Yes")]
    rows += [(UID(uid).name, uid, "Yes" if _is_derived(uid) else "No", "Yes") for uid in STORAGE_SOP_CLASSES]
    rows += [
        (UID(uid).name, uid, _used(used), _used(taken) if taken is not None else "No")
        for uid, used, taken in (
            (_PARAMETRIC_MAP, maps, None),
            (_COMPREHENSIVE_SR, reports, None),
            (_COMMITMENT, commitment, settings.promises),
        )
    ]
    return table(("SOP class", "UID", "SCU (sends)", "SCP (receives)"), rows)


def _used(used: bool) -> str:
    return "Yes" if used else "No: not configured"


def _is_derived(uid: str) -> bool:
    """Whether derived objects of the class are made: a derived conversion or capture there is not."""
    return "Legacy" not in UID(uid).name and "Secondary Capture" not in UID(uid).name


def association_policies(settings: Settings) -> str:
    """What holds for every association (PS3.2 N.5)."""
    node = settings.node
    rows = [
        ("Application context name", APPLICATION_CONTEXT),
        ("Associations accepted at the same time", node.max_associations),
        ("Associations accepted of one AE at the same time", settings.receiving.max_per_ae),
        (
            "Several AEs at once",
            "share the receiver: beside others an AE has at most three objects worked on, others wait in order",
        ),
        ("Associations to one destination at the same time", "as configured per peer: 1 (default) or 2"),
        ("Maximum PDU length received", f"{node.max_pdu} bytes"),
        ("Asynchronous operations window", "not negotiated: one operation at a time"),
        ("SCP/SCU role selection", "only for Storage Commitment; for storage the requestor is SCU"),
        ("SOP Class Extended Negotiation", "accepts none, proposes none"),
        ("SOP Class Common Extended Negotiation", "accepts none, proposes none"),
        ("User Identity Negotiation", "accepts none, proposes none"),
        ("Time for A-ASSOCIATE-RQ after the connection", _seconds(settings.receiving.first_pdu)),
        ("Silence within a message", _seconds(node.timeouts.dimse)),
        ("Silence between messages", _seconds(node.timeouts.network)),
    ]
    return document("### 3.1 Association policies", table(("policy", "value"), rows))


def storage_scp(settings: Settings) -> str:
    """What the acceptor takes and how it answers (PS3.2 N.5.2.5, N.7.3.2.6)."""
    syntaxes = next(c.transfer_syntax_uids for c in accepted_contexts() if c.sop_class_uid != _VERIFICATION)
    statuses = [(f"{status.value:04X}", *_STATUSES[status]) for status in Status]
    rejections = [("/".join(map(str, r.value)), _REJECTIONS[r]) for r in Rejection]
    return document(
        f"### 3.2 Storage SCP: {', '.join(settings.node.ae_titles)}",
        "Storage level 2 (full): every attribute of a received instance, private ones included, is kept byte "
        "for byte. Nothing is coerced. Digital signatures stay valid, since nothing is changed. C-ECHO is "
        "answered with 0000 to every AE that may associate.",
        "For each SOP class of chapter 1 the first of these transfer syntaxes that the requestor offers is "
        "accepted. Lossless compression is taken as it comes, lossy syntaxes last.",
        table(("transfer syntax, in order of preference", "UID"), [(UID(uid).name, uid) for uid in syntaxes]),
        "Verification accepts Explicit and Implicit VR Little Endian.",
        "C-STORE statuses. A status says whether the node holds the instance, never whether its series could be "
        "enhanced. Warnings are never sent.",
        table(("status", "meaning", "when"), statuses),
        "One SOP Instance UID with other contents is answered with 0000 as well: both copies are kept, nothing "
        "is overwritten, and the series is held for a person.",
        "Association rejections (result/source/reason).",
        table(("A-ASSOCIATE-RJ", "when"), rejections),
        "A presentation context that is not in these tables is refused; a message on a refused context ends "
        "with A-ABORT.",
        *_safekeeping(settings),
    )


def _safekeeping(settings: Settings) -> list[str]:
    """Storage commitment as provider (PS3.4 Annex J), where a sender may ask for it."""
    rows = [
        (
            asked.ae_title or peer.ae_title,
            f"{asked.host or peer.host}:{asked.port or peer.port}",
            "for good" if asked.keep_for is None else f"{asked.keep_for.total_seconds() / 86400:g} days",
            _seconds(asked.wait_for),
            asked.most_instances,
            asked.most_open,
        )
        for peer in settings.peers
        if (asked := peer.safekeeping) is not None
    ]
    if not rows:
        return ["Storage commitment is promised to nobody: N-ACTION is answered with 0124."]
    columns = ("AE title", "report to", "kept", "waits for missing", "instances at most", "open at most")
    reasons = ", ".join(f"{code} {words}" for code, words in _FAILURES)
    return [
        "Storage Commitment Push Model SCP: a request is durable before N-ACTION is answered with 0000, and is "
        "answered after a restart too. Every listed file is read again; what has the digest it was received with is "
        "promised, and retention leaves it alone for the time in the table. N-EVENT-REPORT always comes on an "
        "association of ours, on which we propose the SCP role, with event type 1, or 2 and Failure Reasons: "
        + reasons
        + ". It is "
        "repeated until it is answered with 0000, or for as long as configured. Retrieve AE Title is not sent.",
        "Storage is on disk, not volatile; images are not retrievable by DICOM from this node.",
        "N-ACTION statuses: 0000 taken, 0112 not the well-known instance, 0115 a UID is missing or malformed, 0123 not "
        "action type 1, 0124 this AE may not ask, 0213 too many instances or open requests.",
        table(columns, rows),
    ]


def storage_scu(settings: Settings) -> str:
    """What the requestor proposes and what answers mean to it (PS3.2 N.7.3.2.5)."""
    delivery = settings.delivery
    return document(
        "### 3.3 Storage SCU",
        "Every instance is proposed in the transfer syntax it is stored in, in a presentation context of its own, "
        f"and goes out byte for byte. What is stored in {UID(EXPLICIT_LE).name}, as derived instances are, is "
        f"proposed in {UID(IMPLICIT_LE).name} too, and converted where the peer accepts nothing else. Values of "
        "source pixels that were compressed with loss stay marked so. A series goes over one association, or over "
        "two where the peer is configured so.",
        table(("answer", "consequence"), [(label, _VERDICTS[judge(status)]) for label, status in _ANSWERS]),
        "A destination that cannot be reached, rejects for the moment or breaks off is tried again: after "
        f"at most {_seconds(delivery.backoff_first)}, doubling up to {_seconds(delivery.backoff_longest)}, with "
        f"jitter, for {delivery.give_up_after.total_seconds() / 86400:g} days; after {delivery.circuit_opens_at} "
        "failures in a row a C-ECHO has to succeed first. An instance without an answer counts as not sent.",
        "Verification SCU: `dicom-node echo` and `dicom-node doctor`.",
        *_commitment(settings),
    )


def _commitment(settings: Settings) -> list[str]:
    """Storage commitment as requestor (PS3.4 Annex J), where a destination is asked for it."""
    rows = [
        (peer.name, _seconds(asked.answer_within), asked.asks, asked.resends, _seconds(asked.linger))
        for peer in settings.peers
        if (asked := peer.commitment) is not None
    ]
    if not rows:
        return ["Storage commitment is asked of no destination."]
    columns = ("destination", "answer within", "asks", "resends", "association kept open for a report")
    return [
        "Storage Commitment Push Model SCU: N-ACTION for all instances of a delivery; N-EVENT-REPORT is accepted on "
        "the same association or on one of the destination, which then proposes the SCP role, at any time and also "
        "after a restart. Instances that failed with 0110, 0112, 0131 or 0213 are sent again; 0119, 0122 and others "
        "stand.",
        table(columns, rows),
    ]


def configuration(settings: Settings) -> str:
    """Addresses and parameters of this installation (PS3.2 N.4)."""
    node = settings.node
    local = [
        ("AE titles", ", ".join(node.ae_titles)),
        ("Address and port", f"{node.host}:{node.port}" + (" (TLS)" if node.tls else "")),
        ("Addressing", "TCP/IP, version 4 and 6"),
        ("Largest PDU accepted", f"{node.max_pdu} bytes"),
    ]
    peers = [_peer_row(settings, peer) for peer in settings.peers]
    remote = (
        table(("destination", "AE title", "address", "we call as", "largest PDU", "TLS", "enabled"), peers)
        if peers
        else "No destination is configured."
    )
    return document(table(("parameter", "value"), local), remote)


def _peer_row(settings: Settings, peer: Peer) -> tuple[object, ...]:
    return (
        peer.name,
        peer.ae_title,
        f"{peer.host}:{peer.port}",
        settings.calling_title(peer),
        f"{peer.max_pdu} bytes",
        _tls(peer.tls),
        "yes" if peer.enabled else "no",
    )


def security(settings: Settings) -> str:
    """Who may call, and what is encrypted (PS3.15 Annex B)."""
    node = settings.node
    callers = [(c.ae_title, c.network or "any") for c in node.accept_from]
    who = (
        table(("calling AE title", "from"), callers)
        if callers
        else "Every calling AE title may associate; the configuration allows that on the loopback address only."
    )
    return document(
        f"Listening port: {_tls(node.tls)}.",
        "TLS profiles of PS3.15 that can be configured: BCP 195 and Non-Downgrading BCP 195 (TLS 1.2 and newer).",
        who,
        "Logs, metrics, file names and error comments carry no patient data.",
    )


def _tls(section: TlsSection | None) -> str:
    """The profile in words."""
    if section is None:
        return "no TLS"
    return f"TLS, profile {section.profile}, {'mutual' if section.mutual else 'one-sided'} authentication"


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
