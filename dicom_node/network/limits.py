"""How much an acceptor puts up with: sizes, times and numbers, all measured by the monotonic clock.

The defaults are those of a small hospital node: 50 associations, of which one sender may hold ten, and a
peer that does not speak DICOM is gone after ten seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.receiving import ReceivingSection
from config.sections import NodeSection
from config.tls import ListenerTls

ASSOCIATE_PDU_CAP = 1 << 20  # bytes; a request with 128 contexts and every extension stays far below


@dataclass(frozen=True)
class ScpSettings:
    """What the acceptor needs to know; times in seconds, `max_pdu` in bytes, port 0 takes a free one.

    With `tls` the port speaks TLS and nothing else. `association_timeout_s`: from the connection to the
    end of the request. `network_timeout_s`: silence between PDUs. `pdu_deadline_s`: from the first to the
    last byte of one PDU. A message takes at most `message_s`, or the time its bytes need at `slowest_rate`
    bytes per second, whichever is longer.
    """

    ae_titles: tuple[str, ...]
    host: str
    port: int
    max_pdu: int = 131072
    max_associations: int = 50
    max_waiting: int = 25
    max_per_ae: int = 10
    max_per_host: int = 20
    association_timeout_s: float = 10.0
    dimse_timeout_s: float = 60.0
    network_timeout_s: float = 60.0
    pdu_deadline_s: float = 30.0
    message_s: float = 60.0
    slowest_rate: int = 64_000
    lifetime_s: float = 4 * 3600.0
    tls: ListenerTls | None = None
    tls_handshake_s: float = 10.0

    @classmethod
    def of(cls, node: NodeSection, receiving: ReceivingSection | None = None) -> ScpSettings:
        """The settings of the node's own AE."""
        receiving = receiving or ReceivingSection()
        return cls(
            ae_titles=node.ae_titles,
            host=node.host,
            port=node.port,
            max_pdu=node.max_pdu,
            max_associations=node.max_associations,
            max_waiting=receiving.max_waiting,
            max_per_ae=receiving.max_per_ae,
            max_per_host=receiving.max_per_host,
            association_timeout_s=receiving.first_pdu.total_seconds(),
            dimse_timeout_s=node.timeouts.dimse.total_seconds(),
            network_timeout_s=node.timeouts.network.total_seconds(),
            pdu_deadline_s=receiving.pdu.total_seconds(),
            message_s=receiving.message.total_seconds(),
            slowest_rate=receiving.slowest_rate,
            lifetime_s=receiving.longest_association.total_seconds(),
            tls=node.tls,
            tls_handshake_s=receiving.first_pdu.total_seconds(),
        )

    @property
    def tick_s(self) -> float:
        """How often a blocked read looks at its deadlines: a fraction of the shortest of them."""
        shortest = min(
            self.association_timeout_s, self.network_timeout_s, self.pdu_deadline_s, self.message_s
        )
        return min(1.0, max(shortest / 4, 0.02))
