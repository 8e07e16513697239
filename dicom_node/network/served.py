"""The other end of `dispatch`: a process that serves the connections it is handed and asks for each slot."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import timedelta
from typing import Any

from dicom_node.network.channel import Channel
from dicom_node.network.gate import Gate, Ticket
from dicom_node.network.limits import ScpSettings
from dicom_node.network.scp import StorageScp
from dicom_node.network.status import Rejection

_ANSWER_S = 5.0  # the parent has nothing else to do than to answer


class RemoteGate(Gate):
    """A gate that counts here and lets the parent decide, which counts for every process."""

    def __init__(self, settings: ScpSettings, channel: Channel) -> None:
        super().__init__(settings)
        self._channel = channel
        self._answered = threading.Condition()
        self._answers: defaultdict[int, list[bool]] = defaultdict(list)

    def associate(self, ticket: Ticket, calling_ae: str) -> Rejection | None:
        """Ask the parent for a slot."""
        self._channel.send({"associate": ticket.number, "ae": calling_ae})
        with self._answered:
            self._answered.wait_for(lambda: self._answers[ticket.number], _ANSWER_S)
            granted = self._answers.pop(ticket.number, [])
        if not granted or not granted[0] or not self.take_slot(ticket, calling_ae):
            return Rejection.LOCAL_LIMIT
        return None

    def answer(self, number: int, *, granted: bool) -> None:
        """The parent has decided."""
        with self._answered:
            self._answers[number].append(granted)
            self._answered.notify_all()

    def leave(self, ticket: Ticket) -> None:
        """The connection has ended: the parent is told once."""
        if self.forget(ticket):
            self._channel.send({"leave": ticket.number})


def serve_channel(scp: StorageScp, gate: RemoteGate, channel: Channel) -> None:
    """Serve connections until the parent says stop or is gone; the latter leaves no time to drain."""
    server = scp.prepare(listen=False)
    channel.send({"ready": True})
    stopping: threading.Thread | None = None
    while (received := channel.receive()) is not None:
        message, connection = received
        if connection is not None:
            ticket = Ticket(str(message["address"][0]), connection, number=int(message["take"]))
            ticket.crowded = bool(message["crowded"])
            gate.hold(ticket)
            server.take(connection, tuple(message["address"]), ticket)
        elif "answer" in message:
            gate.answer(int(message["answer"]), granted=bool(message["granted"]))
        elif "stop" in message and stopping is None:
            stopping = threading.Thread(target=_drain, args=(scp, channel, message), daemon=True)
            stopping.start()
    if stopping is None:
        scp.stop()
    else:
        stopping.join()


def _drain(scp: StorageScp, channel: Channel, message: dict[str, Any]) -> None:
    """Finish what is open, then hang up."""
    scp.stop(timedelta(seconds=float(message["stop"])))
    channel.close()
