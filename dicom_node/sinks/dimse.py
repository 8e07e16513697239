"""The C-STORE sink: one association per series and destination, an answer per instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.sections import Peer
from dicom_node.network.scu import Outgoing, send
from dicom_node.sinks.outcome import Verdict, judge


@dataclass(frozen=True)
class Parcel:
    """One derived instance on its way: `delivery_id` is handed back with its answer."""

    delivery_id: int
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Answer:
    """What the destination said about one instance."""

    delivery_id: int
    verdict: Verdict
    status: int
    comment: str


def deliver(
    peer: Peer, parcels: Sequence[Parcel], heard: Callable[[Answer], None], *, go_on: Callable[[], bool]
) -> None:
    """Send `parcels` in order over one association; `heard` is called once per answered instance.

    Stops early, and releases, when an instance is answered with LATER (the destination asked for
    patience) or when `go_on` says no. Raises `PeerError` when the association could not be made or broke;
    what was heard by then stands.
    """
    if not parcels:
        return
    by_uid = {parcel.sop_instance_uid: parcel for parcel in parcels}

    def on_result(sop_instance_uid: str, status: int, comment: str) -> bool:
        verdict = judge(status)
        heard(Answer(by_uid[sop_instance_uid].delivery_id, verdict, status, comment))
        return verdict is not Verdict.LATER and go_on()

    files = [
        Outgoing(
            path=parcel.path,
            sop_class_uid=parcel.sop_class_uid,
            sop_instance_uid=parcel.sop_instance_uid,
            transfer_syntax_uid=parcel.transfer_syntax_uid,
        )
        for parcel in parcels
    ]
    send(peer, files, on_result)
