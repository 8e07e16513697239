"""The whole configuration as one frozen value, and how it is read from the operator's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError, model_validator

from config.alerts import AlertsSection
from config.api import ApiSection
from config.audit import AuditSection
from config.conflicts import Conflict, find_conflicts
from config.errors import ConfigError, Problem, refusal
from config.file_faults import find_exposed_password, find_file_faults
from config.imaging import AssemblySection, DerivationSection
from config.key_paths import KeyPath, key_path_text, line_of
from config.problems import in_file_order, list_problems
from config.quantities import WRITTEN
from config.receiving import ReceivingSection
from config.retention import RetentionSection
from config.sections import (
    CompletionSection,
    DeliverySection,
    EnhancementSection,
    LoggingSection,
    NodeSection,
    Peer,
    Route,
    Section,
    StorageSection,
)
from config.yaml_loader import Document, read_document

_CONFLICT = "conflict"


class Settings(Section):
    """What the operator decided. Safe by construction: an unsafe combination raises."""

    node: NodeSection = NodeSection()
    storage: StorageSection = StorageSection()
    peers: tuple[Peer, ...] = ()
    routes: tuple[Route, ...] = ()
    completion: CompletionSection = CompletionSection()
    enhancement: EnhancementSection = EnhancementSection()
    assembly: AssemblySection = AssemblySection()
    derivation: DerivationSection = DerivationSection()
    delivery: DeliverySection = DeliverySection()
    receiving: ReceivingSection = ReceivingSection()
    audit: AuditSection = AuditSection()
    retention: RetentionSection = RetentionSection()
    api: ApiSection = ApiSection()
    alerts: AlertsSection = AlertsSection()
    logging: LoggingSection = LoggingSection()

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Settings:
        found = find_conflicts(self.model_dump())
        if found:
            reasons = "; ".join(conflict.message for conflict in found)
            raise refusal(reasons, kind=_CONFLICT)
        return self

    def peer(self, name: str) -> Peer | None:
        """Return the peer of that name, ready to be called: with our AE title filled in. None if unknown."""
        for peer in self.peers:
            if peer.name == name:
                return peer.model_copy(update={"calling_ae_title": self.calling_title(peer)})
        return None

    def return_peer(self, calling_ae: str) -> Peer | None:
        """Return the peer that `return-to-sender` means for a series from `calling_ae`, or None."""
        return next((peer for peer in self.peers if peer.ae_title == calling_ae.strip()), None)

    def asking_peer(self, calling_ae: str) -> Peer | None:
        """Return the peer that asks to keep images under this AE title, or None when nobody may."""
        asked = ((peer, peer.safekeeping) for peer in self.peers)
        return next(
            (p for p, own in asked if own and (own.ae_title or p.ae_title) == calling_ae.strip()), None
        )

    @property
    def promises(self) -> bool:
        """Whether any sender may ask to keep its images, and so lists what it has sent."""
        return any(peer.safekeeping is not None for peer in self.peers)

    def calling_title(self, peer: Peer) -> str:
        """Return the AE title under which we call a peer."""
        return peer.calling_ae_title or self.node.ae_titles[0]


def load_settings(path: Path) -> Settings:
    """Read, check and freeze the configuration file. Raises `ConfigError` with every problem at once.

    Relative paths start from the folder of the file. The result depends on the file alone, never on the
    environment.
    """
    document = read_document(path)
    problems = list(document.problems)
    settings = None
    try:
        settings = Settings.model_validate(document.data, context={WRITTEN: True})
    except ValidationError as exc:
        problems += list_problems(
            exc,
            model=Settings,
            lines=document.lines,
            known_faulty=document.faulty,
            skip_types={_CONFLICT},
        )
        problems += _conflict_problems(document)
    if settings is None or problems:
        raise ConfigError(in_file_order(problems), source=path.name)
    return _below(settings, path.resolve().parent)


def load_for_start(path: Path) -> Settings:
    """Read the configuration as `load_settings` does, and refuse files it names that cannot be used today.

    For whoever is about to start the node. A command that only looks at the store asks `load_settings`: an
    expired certificate must not hide the jobs. Raises `ConfigError`.
    """
    settings = load_settings(path)
    lines = read_document(path).lines
    problems = [
        Problem(key_path_text(fault.path), line_of(lines, fault.path), fault.message)
        for fault in (*find_file_faults(settings), *find_exposed_password(settings, path))
    ]
    if problems:
        raise ConfigError(in_file_order(problems), source=path.name)
    return settings


def _below(settings: Settings, folder: Path) -> Settings:
    """The settings with every relative path starting from `folder`."""
    node, peers = settings.node, settings.peers
    if node.tls is not None:
        node = node.model_copy(update={"tls": node.tls.below(folder)})
    peers = tuple(
        peer if peer.tls is None else peer.model_copy(update={"tls": peer.tls.below(folder)})
        for peer in peers
    )
    return settings.model_copy(
        update={
            "storage": settings.storage.below(folder),
            "node": node,
            "peers": peers,
            "audit": settings.audit.below(folder),
            "api": settings.api.below(folder),
            "alerts": settings.alerts.below(folder),
        }
    )


def _conflict_problems(document: Document) -> list[Problem]:
    return [
        Problem(
            key_path_text(conflict.path),
            line_of(document.lines, conflict.path),
            conflict.message + _earlier_line(conflict, document.lines),
        )
        for conflict in find_conflicts(document.data if isinstance(document.data, dict) else {})
    ]


def _earlier_line(conflict: Conflict, lines: Mapping[KeyPath, int]) -> str:
    line = line_of(lines, conflict.earlier) if conflict.earlier is not None else None
    return f" (line {line})" if line is not None else ""
