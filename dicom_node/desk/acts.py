"""Acts on the line as a whole and on peers; those on series and jobs are `dicom_node.operations`."""

from __future__ import annotations

from typing import Any

from dicom_node.desk.desk import Desk
from dicom_node.errors import PeerError
from dicom_node.network import scu
from dicom_node.operations import find_peer
from storage.pauses import Part, PauseRecord


def set_pause(desk: Desk, part: Part, *, paused: bool, actor: str) -> PauseRecord:
    """Pause or resume a part of the line. Intake: new associations are rejected for the time being."""
    record = desk.store.pauses.set(part, paused=paused, actor=actor)
    desk.figures.forget()
    return record


def echo(desk: Desk, name: str, *, actor: str) -> dict[str, Any]:
    """C-ECHO a peer, once. A peer that does not answer is a result, not an error.

    Raises `UnknownNameError` for a peer that is not configured.
    """
    peer = find_peer(desk.settings, name)
    answer: dict[str, Any] = {
        "peer": name,
        "answered": False,
        "status": None,
        "seconds": None,
        "reason": None,
        "message": "",
    }
    try:
        result = scu.echo(peer)
    except PeerError as exc:
        answer |= {"reason": str(exc.reason), "message": exc.message}
    else:
        answer |= {"answered": result.status == 0, "status": result.status, "seconds": result.seconds}
    desk.store.trail.append(
        "peer.echoed", data={"peer": name, "actor": actor, "answered": answer["answered"]}
    )
    return answer
