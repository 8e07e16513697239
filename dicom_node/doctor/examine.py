"""The whole examination in one order: what is cheap and fundamental first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from config.errors import ConfigError
from config.settings import Settings, load_settings
from dicom_node.doctor.clock import check_clock
from dicom_node.doctor.database import check_database
from dicom_node.doctor.device import check_device
from dicom_node.doctor.disk import check_disk
from dicom_node.doctor.entries import Entry, entries
from dicom_node.doctor.exchange import check_exchange
from dicom_node.doctor.findings import Area, Finding
from dicom_node.doctor.keeping import check_commitment, check_safekeeping
from dicom_node.doctor.model import check_bundle, check_enhancer, enhancers_in_use, shipped_bundles
from dicom_node.doctor.peers import check_peer
from dicom_node.doctor.ports import check_port
from dicom_node.doctor.unsafe import check_safety


@dataclass(frozen=True)
class Examination:
    """Every finding, and what to enter on the other side (nothing when the configuration does not load)."""

    findings: tuple[Finding, ...]
    entries: tuple[Entry, ...]


def examine(
    file: Path, *, store: bool = False, heard: Callable[[Finding], None] = lambda _finding: None
) -> Examination:
    """Examine the installation that a configuration file describes.

    store  send a test object to each peer and ask for it back
    heard  called with each finding as soon as it is there; peers that do not answer take their time
    """
    findings = []
    settings, problems = _load(file)
    for finding in problems if settings is None else _all(settings, file, store=store):
        findings.append(finding)
        heard(finding)
    return Examination(tuple(findings), tuple(entries(settings)) if settings is not None else ())


def _load(file: Path) -> tuple[Settings | None, list[Finding]]:
    """The settings, or a finding for each problem of the file."""
    try:
        return load_settings(file), []
    except ConfigError as exc:
        return None, [
            Area("configuration", file.name).problem(
                f"{problem}.",
                meaning="The node does not start.",
                fix="Correct the line; `dicom-node init` writes a commented example.",
            )
            for problem in exc.problems
        ]


def _all(settings: Settings, file: Path, *, store: bool) -> Iterator[Finding]:
    yield from check_safety(settings, file)
    yield from check_disk(settings.storage)
    database, facts = check_database(settings.storage.resolved_database_url)
    yield from database
    yield from check_clock(
        datetime.now(UTC),
        database=facts.clock if facts is not None else None,
        error_s=facts.clock_error_s if facts is not None else 0.0,
        environ=os.environ,
    )
    yield from check_port(settings.node)
    yield from _peers(settings, store=store)
    uses = enhancers_in_use(settings)
    yield from check_device(uses, workers=settings.enhancement.workers)
    for folder in shipped_bundles():
        yield from check_bundle(folder)
    for use in uses:
        yield from check_enhancer(use, strength=settings.enhancement.strength)


def _peers(settings: Settings, *, store: bool) -> Iterator[Finding]:
    for written in settings.peers:
        peer = settings.peer(written.name) or written
        yield from check_peer(peer)
        if peer.enabled:
            yield from check_commitment(peer)
            yield from check_safekeeping(settings, peer)
        if store and peer.enabled:
            yield from check_exchange(settings, peer)
