"""Who may hold a connection or an association at the moment: numbers only, no sockets are read here.

A connection that has not asked for an association yet is never worth more than a newer one: when there are
too many, the one that has been silent longest is cut. So a flood of silent peers costs itself its own
connections, and a sender that speaks gets in.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field

from dicom_node.network.limits import ScpSettings
from dicom_node.network.status import Rejection
from dicom_node.network.wire import cut

_NUMBERS = itertools.count(1)


@dataclass(eq=False)
class Ticket:
    """One connection. `crowded`: its address holds as many as it may, so its request will be rejected."""

    host: str
    raw: socket.socket
    number: int = field(default_factory=lambda: next(_NUMBERS))
    crowded: bool = False
    calling_ae: str | None = None


class Gate:
    """Counts connections and associations. Safe for several threads."""

    def __init__(self, settings: ScpSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waiting: dict[int, Ticket] = {}  # in the order of arrival
        self._open: dict[int, Ticket] = {}
        self._hosts: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many connections have not asked for an association yet."""
        with self._lock:
            return len(self._waiting)

    def enter(self, host: str, raw: socket.socket) -> Ticket:
        """Let a connection in; another that waits too long already may be cut for it."""
        ticket = Ticket(host, raw)
        with self._lock:
            victim = None
            if self._hosts[host] >= self._settings.max_per_host:
                victim = next((one for one in self._waiting.values() if one.host == host), None)
                ticket.crowded = victim is None
            if victim is None and len(self._waiting) >= self._settings.max_waiting:
                victim = next(iter(self._waiting.values()))
            if victim is not None:
                self._forget(victim)
                cut(victim.raw)
            self._waiting[ticket.number] = ticket
            self._hosts[host] += 1
        return ticket

    def hold(self, ticket: Ticket) -> None:
        """Count a connection that was let in elsewhere."""
        with self._lock:
            self._waiting[ticket.number] = ticket
            self._hosts[ticket.host] += 1

    def associate(self, ticket: Ticket, calling_ae: str) -> Rejection | None:
        """Give an association its slot, or say which limit forbids it."""
        settings = self._settings
        with self._lock:
            same = sum(one.calling_ae == calling_ae for one in self._open.values())
            full = len(self._open) >= settings.max_associations or same >= settings.max_per_ae
            if ticket.crowded or full or not self._move(ticket, calling_ae):
                return Rejection.LOCAL_LIMIT
        return None

    def take_slot(self, ticket: Ticket, calling_ae: str) -> bool:
        """Count an association whose slot was granted elsewhere; False when it has been cut meanwhile."""
        with self._lock:
            return self._move(ticket, calling_ae)

    def leave(self, ticket: Ticket) -> None:
        """The connection has ended. Any number of calls count once."""
        self.forget(ticket)

    def forget(self, ticket: Ticket) -> bool:
        """Take a ticket out of every count; False when it was in none."""
        with self._lock:
            return self._forget(ticket)

    def cut_waiting(self) -> None:
        """Cut every connection without an association."""
        with self._lock:
            tickets = list(self._waiting.values())
            for ticket in tickets:
                cut(ticket.raw)

    def _move(self, ticket: Ticket, calling_ae: str) -> bool:
        """From waiting to open."""
        if self._waiting.pop(ticket.number, None) is None:
            return False
        ticket.calling_ae = calling_ae
        self._open[ticket.number] = ticket
        return True

    def _forget(self, ticket: Ticket) -> bool:
        known = self._waiting.pop(ticket.number, None) or self._open.pop(ticket.number, None)
        if known is None:
            return False
        self._hosts[known.host] -= 1
        if not self._hosts[known.host]:
            del self._hosts[known.host]
        return True
