"""The audit trail as the operator writes it: what the node calls itself there, and who keeps the records."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from config.names import Host, LongText, Port
from config.sections import PositiveDuration, Section, Timeout
from config.tls import PeerTls


class SyslogSection(Section):
    """A log server that takes syslog over TLS (RFC 5424 and 5425; PS3.15 A.6)."""

    host: Host
    port: Port = 6514
    tls: PeerTls
    timeout: Timeout = timedelta(seconds=10)

    def below(self, folder: Path) -> SyslogSection:
        """Return the section with relative paths starting from `folder`."""
        return self.model_copy(update={"tls": self.tls.below(folder)})


class AuditSection(Section):
    """Records are always kept and chained; with `syslog` they are sent as well.

    `source_id` None means the first AE title at the name of this machine. Records that could not be sent
    for `alarm_after` are an error in the log.
    """

    source_id: LongText | None = None
    enterprise_site: LongText | None = None
    alarm_after: PositiveDuration = timedelta(hours=1)
    syslog: SyslogSection | None = None

    def below(self, folder: Path) -> AuditSection:
        """Return the section with relative paths starting from `folder`."""
        if self.syslog is None:
            return self
        return self.model_copy(update={"syslog": self.syslog.below(folder)})
