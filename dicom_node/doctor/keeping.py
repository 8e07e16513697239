"""Storage commitment with each peer that is asked for it, or may ask: the request there, the report back."""

from __future__ import annotations

import threading
import uuid
from typing import Final

from config.sections import Peer
from config.settings import Settings
from dicom_node.doctor.findings import Area, Finding
from dicom_node.doctor.listener import listening
from dicom_node.errors import AssociationRejectedError, PeerError, Reason
from dicom_node.network.commitment import COMMITMENT, KeepReport, ask_to_keep, report_service
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, ProposedContext
from dicom_node.network.safekeeping import check_reports
from dicom_node.network.scu import negotiate
from dicom_node.network.stored_file import Outgoing
from dicom_node.pipeline.commitment import commitment_peer
from dicom_node.pipeline.safekeeping import report_peer

_REPORT_S: Final = 30.0
_LINGER_S: Final = 2.0
_NEVER: Final = "Deliveries to it stay delivered and are never committed."


def check_commitment(peer: Peer) -> list[Finding]:
    """Whether the peer offers the service; nothing for one that is not asked."""
    if peer.commitment is None:
        return []
    area, asked = Area("commitment", peer.name), commitment_peer(peer, peer.commitment)
    try:
        negotiate(asked, (ProposedContext(COMMITMENT, (EXPLICIT_LE, IMPLICIT_LE)),))
    except AssociationRejectedError as exc:
        if exc.reason is Reason.NO_CONTEXT:
            return [_refused(area, "It does not offer storage commitment.")]
        return [_refused(area, exc.detail)]
    except PeerError as exc:
        return [_refused(area, exc.detail)]
    return [area.ok(f"{asked.ae_title} at {asked.host}:{asked.port} offers storage commitment.")]


def check_safekeeping(settings: Settings, peer: Peer) -> list[Finding]:
    """Whether a peer that may ask us to keep its images lets us report; nothing for one that may not."""
    if peer.safekeeping is None:
        return []
    area, asked = Area("safekeeping", peer.name), report_peer(peer, peer.safekeeping, None)
    fix = "The peer's administrator has to accept our AE title as SCP of Storage Commitment; or correct host and port."
    try:
        check_reports(asked)
    except PeerError as exc:
        return [area.problem(exc.detail, meaning="It never learns what this node promised.", fix=fix)]
    found = [area.ok(f"{asked.ae_title} at {asked.host}:{asked.port} takes reports of what is kept.")]
    if settings.retention.enabled and peer.safekeeping.keep_for is None:
        found.append(
            area.warning(
                "Its images are promised for good, and retention is on.",
                meaning="What it asks for is never deleted, and the disk fills.",
                fix="Set `keep_for`, if the peer deletes nothing on the strength of the promise.",
            )
        )
    return found


def check_report(settings: Settings, peer: Peer, item: Outgoing) -> list[Finding]:
    """Ask the peer to keep an object that it has just stored, and wait for what it reports."""
    if peer.commitment is None:
        return []
    area, reports, came = Area("commitment", peer.name), list[KeepReport](), threading.Event()

    def heard(report: KeepReport) -> bool:
        reports.append(report)
        came.set()
        return True

    pair = (item.sop_class_uid, item.sop_instance_uid)
    transaction = f"2.25.{uuid.uuid4().int}"
    with listening(settings, (report_service(heard),)) as watcher:
        try:
            asked = commitment_peer(peer, peer.commitment)
            ask_to_keep(asked, transaction, [pair], heard, linger_s=_LINGER_S)
        except PeerError as exc:
            return [_refused(area, exc.message)]
        if watcher is not None:
            came.wait(_REPORT_S)
    if reports:
        return [_judged(area, reports[0], item.sop_instance_uid)]
    if watcher is None:
        return [
            area.warning(
                "It took a request; its report goes to the node, which is running and does not know it.",
                meaning="Whether reports reach this node is not known yet.",
                fix="Look at `dicom-node deliveries commitments`, or run this check while the node is stopped.",
            )
        ]
    return [
        area.problem(
            f"It took a request, but no report came within {_REPORT_S:.0f} s.",
            meaning=_NEVER,
            fix="The peer's administrator has to enter our AE title, host and port for commitment reports, and "
            "node.accept_from has to list the AE title that it calls with.",
        )
    ]


def _judged(area: Area, report: KeepReport, uid: str) -> Finding:
    """What the report says about the test object."""
    if uid in report.committed:
        return area.ok("It promised to keep the test object, and its report reached us.")
    reason = report.failed.get(uid)
    words = "does not name it" if reason is None else f"says that it does not (reason 0x{reason:04X})"
    return area.problem(
        f"It was asked to keep the test object, and its report {words}.",
        meaning="Deliveries to it are sent again and then count as not committed.",
        fix="Ask the peer's administrator what its log says about this moment.",
    )


def _refused(area: Area, seen: str) -> Finding:
    return area.problem(
        seen,
        meaning=_NEVER,
        fix="The peer's administrator has to allow storage commitment for our AE title; or remove "
        "`commitment` from this peer.",
    )
