"""A test object there and back: stored at a peer by C-STORE, asked back by C-MOVE.

One slice of a phantom, patient TEST^DOCTOR. What comes back goes the way of every image when the node is
running; otherwise a listener of this check takes its place, admits by the same list and keeps nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydicom import dcmread

from config.sections import Peer
from config.settings import Settings
from dicom_node.doctor.findings import Area, Finding
from dicom_node.doctor.keeping import check_report
from dicom_node.doctor.listener import Watcher, listening
from dicom_node.doctor.peers import impatient
from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    PeerError,
    Reason,
)
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.network.retrieve import DESTINATION_UNKNOWN, MoveResult, move_series
from dicom_node.network.scu import Outgoing, outgoing, send
from engine.phantom import head_phantom

_STYLE = PhantomStyle(
    patient_name="TEST^DOCTOR",
    patient_id="DICOM-NODE-DOCTOR",
    study_key="doctor",
    series_description="DICOM NODE DOCTOR TEST",
)
_REMOVE = "Delete patient DICOM-NODE-DOCTOR at the peer when you are done."


def check_exchange(settings: Settings, peer: Peer) -> list[Finding]:
    """Send the test object to a peer (with our AE title filled in), have it committed, then ask for it back."""
    area, peer = Area("exchange", peer.name), impatient(peer)
    with tempfile.TemporaryDirectory(prefix="dicom-node-doctor-") as folder:
        (path,) = write_ct_series(
            head_phantom((1, 64, 64), (3.0, 3.6, 3.6)), Path(folder) / "s", style=_STYLE
        )
        item = outgoing(path)
        there, arrived = _store(area, peer, item)
        if not arrived:
            return [there]
        return [there, *check_report(settings, peer, item), _back(area, settings, peer, path)]


def _store(area: Area, peer: Peer, item: Outgoing) -> tuple[Finding, bool]:
    answers: list[tuple[int, str]] = []
    meaning = "Derived series for this peer fail in the same way."
    try:
        send(peer, [item], lambda _uid, status, comment: answers.append((status, comment)))
    except PeerError as exc:
        return area.problem(exc.detail, meaning=meaning, fix="See the findings about this peer."), False
    status, comment = answers[0]
    if status == 0:
        return area.ok(f"It stored a test object. {_REMOVE}"), True
    words = f" ({comment})" if comment else ""
    fix = "Ask the peer's administrator what its log says; 0122 means that the SOP class is not allowed."
    return area.problem(
        f"It answered 0x{status:04X}{words} to a test object.", meaning=meaning, fix=fix
    ), False


def _back(area: Area, settings: Settings, peer: Peer, path: Path) -> Finding:
    """Ask for the object at our first AE title and say whether it came."""
    dataset = dcmread(path, stop_before_pixels=True)
    with listening(settings) as watcher:
        try:
            result = move_series(
                peer, settings.node.ae_titles[0], dataset.StudyInstanceUID, dataset.SeriesInstanceUID
            )
        except AssociationRejectedError as exc:
            if exc.reason is Reason.NO_CONTEXT:
                return _untested(area, "It does not offer C-MOVE, so nothing can be asked back from here.")
            return _untested(area, f"C-MOVE: {exc.detail}")
        except AssociationLostError:  # Orthanc's answer to an AE title that it does not know
            return _unknown(area, settings, "It broke off when it was asked to send to")
        except PeerError as exc:
            return _untested(area, f"C-MOVE: {exc.detail}")
        if result.status == 0 and result.completed == 1 and result.failed == 0:
            return _came(area, watcher, str(dataset.SOPInstanceUID))
        return _failed(area, settings, watcher, result)


def _came(area: Area, watcher: Watcher | None, uid: str) -> Finding:
    if watcher is None:
        return area.ok("It sent the test object back; the node keeps it as a series of one image.")
    if watcher.saw(uid):
        return area.ok("It sent the test object back.")
    return area.problem(
        "It says that it sent the test object back, but nothing came here.",
        meaning="It sends to another machine under our AE title.",
        fix="The peer's administrator has to correct host and port of our AE title (see below).",
    )


def _failed(area: Area, settings: Settings, watcher: Watcher | None, result: MoveResult) -> Finding:
    meaning = "The peer cannot send series to this node."
    if result.status == DESTINATION_UNKNOWN:
        return _unknown(area, settings, "It answered A801 (unknown destination) for")
    if watcher is not None and watcher.turned_away:
        request, rejection = watcher.turned_away[0]
        return area.problem(
            f"It called as {request.calling_ae} from {request.peer_host} for {request.called_ae} and was "
            f"turned away ({rejection.name}).",
            meaning=meaning,
            fix=f"Add {{ae_title: {request.calling_ae}, network: {request.peer_host}}} to node.accept_from, "
            "or correct the AE title the peer calls.",
        )
    return area.problem(
        f"It could not send the test object back (0x{result.status:04X}, {result.failed} failed).",
        meaning=meaning,
        fix="The peer's administrator has to check the host and port entered for our AE title, whether it "
        "speaks TLS to us, and the firewall between.",
    )


def _unknown(area: Area, settings: Settings, seen: str) -> Finding:
    return area.problem(
        f"{seen} the AE title {settings.node.ae_titles[0]}.",
        meaning="The peer cannot send series to this node: most likely it does not know it.",
        fix="The peer's administrator has to enter the lines below.",
    )


def _untested(area: Area, seen: str) -> Finding:
    return area.warning(
        seen,
        meaning="Whether the peer can send to this node is not known yet.",
        fix="Send one series from the peer's console and look at `dicom-node series list`.",
    )
