"""The C-STORE sink: a series to a destination over one or two associations, an answer per instance."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from config.sections import Peer
from dicom_node.errors import AssociationRejectedError, PeerError, Reason
from dicom_node.network import scu
from dicom_node.network.pace import Pace
from dicom_node.network.stored_file import Outgoing
from dicom_node.network.transmission import transmit
from dicom_node.sinks.outcome import Verdict, judge

_WORTH_A_SECOND: Final = 16  # instances; below that another association costs more than it brings
_LAST_WORDS: Final = frozenset({Verdict.BUSY, Verdict.PAUSE})


@dataclass(frozen=True)
class Parcel:
    """One stored instance on its way: `delivery_id` is handed back with its answer."""

    delivery_id: int
    item: Outgoing


@dataclass(frozen=True)
class Answer:
    """What became of one instance. Without a `status` the destination said nothing; `reason` tells why."""

    delivery_id: int
    verdict: Verdict
    status: int | None
    comment: str
    reason: Reason | None = None


Heard = Callable[[Answer], None]


def deliver(
    peer: Peer,
    parcels: Sequence[Parcel],
    heard: Heard,
    *,
    go_on: Callable[[], bool],
    pace: Pace | None = None,
) -> Pace:
    """Send `parcels` in order; `heard` is called once per instance that was answered or cannot be sent.

    It is called from one thread at a time, and never with RENEGOTIATE: such an instance is tried once more
    on an association of its own, and then refused. Stops early, and releases, when an answer asks for
    patience or when `go_on` says no. Raises `PeerError` when an association could not be made or broke;
    what was heard by then stands. Returns the pace as measured.
    """
    round_ = _Round(heard, go_on)
    pace = _send(peer, parcels, round_, pace or Pace())
    again, round_.again = round_.again, []
    if again and not round_.over:
        round_.is_second = True
        pace = _send(peer, again, round_, pace)
    return pace


def probe(peer: Peer) -> None:
    """Ask by C-ECHO whether a peer works. Raises `PeerError` when it does not.

    A peer that knows no Verification has answered by saying so.
    """
    try:
        status = scu.echo(peer).status
    except AssociationRejectedError as exc:
        if exc.reason is Reason.NO_CONTEXT:
            return
        raise
    if status != 0x0000:
        raise PeerError(Reason.PEER_BUSY, f"C-ECHO was answered with 0x{status:04X}.")


@dataclass
class _Round:
    """What the associations of one delivery share."""

    heard: Heard
    go_on: Callable[[], bool]
    again: list[Parcel] = field(default_factory=list)
    is_second: bool = False
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, parcel: Parcel, answer: Answer) -> bool:
        """Tell of one answer; False when nothing more is to be sent."""
        with self.lock:
            if answer.verdict is Verdict.RENEGOTIATE and not self.is_second:
                self.again.append(parcel)
            else:
                final = Verdict.REFUSED if answer.verdict is Verdict.RENEGOTIATE else answer.verdict
                self.heard(replace(answer, verdict=final))
            self.over = self.over or answer.verdict in _LAST_WORDS or not self.go_on()
            return not self.over


def _send(peer: Peer, parcels: Sequence[Parcel], round_: _Round, pace: Pace) -> Pace:
    """Over as many associations as the peer may have and the series is worth."""
    count = peer.max_associations if len(parcels) >= _WORTH_A_SECOND else 1
    if count == 1:
        return _share(peer, parcels, round_, pace)
    paces: list[Pace] = []
    troubles: list[BaseException] = []

    def run(share: Sequence[Parcel]) -> None:
        try:
            paces.append(_share(peer, share, round_, pace))
        except BaseException as exc:  # carried over to the caller's thread
            troubles.append(exc)

    others = [
        threading.Thread(target=run, args=(parcels[number::count],), daemon=True)
        for number in range(1, count)
    ]
    for thread in others:
        thread.start()
    run(parcels[0::count])
    for thread in others:
        thread.join()
    if troubles:
        raise troubles[0]
    return paces[0]


def _share(peer: Peer, parcels: Sequence[Parcel], round_: _Round, pace: Pace) -> Pace:
    """Over one association."""

    def heard(answer: scu.Answer) -> bool:
        parcel = parcels[answer.position]
        verdict = Verdict.REFUSED if answer.status is None else judge(answer.status)
        return round_.take(
            parcel, Answer(parcel.delivery_id, verdict, answer.status, answer.comment, answer.reason)
        )

    try:
        return transmit(peer, [parcel.item for parcel in parcels], heard, pace=pace)
    except AssociationRejectedError as exc:
        if exc.reason is not Reason.NO_CONTEXT:
            raise
        for parcel in parcels:
            nothing = Answer(parcel.delivery_id, Verdict.REFUSED, None, str(exc.reason), exc.reason)
            round_.take(parcel, nothing)
        return pace
