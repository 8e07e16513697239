"""Turns the events that have no audit message yet into links of the chain."""

from __future__ import annotations

import socket
from collections import deque

from config.settings import Settings
from dicom_node.audit.message import Source, to_xml
from dicom_node.audit.translate import TOLD_EVENTS, Identity, Translator
from storage.audit_chain import NewAuditRecord
from storage.records import EventRecord
from storage.store import Store

# Where events may be seen out of order, those without a message would be looked at again and again.
_REMEMBERED = 20_000


class Recorder:
    """Records what the trail tells, in its order. Several processes may run one each."""

    def __init__(self, store: Store, settings: Settings) -> None:
        host = socket.gethostname()
        section = settings.audit
        name = section.source_id or f"{settings.node.ae_titles[0]} at {host}"
        peers = {peer.name: (peer.ae_title, peer.host) for peer in settings.peers}
        self._audit = store.audit
        self._source = Source(name, section.enterprise_site)
        self._translator = Translator(store.audit_facts, Identity(name, settings.node.ae_titles, host, peers))
        self._silent: deque[int] = deque(maxlen=_REMEMBERED)

    def record(self) -> int:
        """Record everything there is; how many records were added. Raises `StorageError`."""
        added = 0
        while True:
            found = self._audit.unrecorded(TOLD_EVENTS, passed_over=self._silent)
            drafts = [draft for event in found.events for draft in self._drafts(event)]
            if not drafts and found.upto == found.state.event_cursor:
                return added
            if self._audit.record(found, drafts):
                added += len(drafts)
            if not found.events:
                return added

    def _drafts(self, event: EventRecord) -> list[NewAuditRecord]:
        """The records of one event."""
        messages = self._translator.messages(event)
        if not messages:
            self._silent.append(event.id)
        return [
            NewAuditRecord(
                event_id=event.id,
                at=event.at,
                kind=message.event.value,
                outcome=int(message.outcome),
                message=to_xml(message, self._source),
            )
            for message in messages
        ]
