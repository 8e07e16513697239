"""What is unsafe although every part of it works: open doors, readable keys, certificates about to end.

Half of it does not start at all: what `find_file_faults` and `refuse_unsafe` find keeps `serve` from running.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from config.file_faults import find_exposed_password, find_file_faults, tls_sections
from config.key_paths import key_path_text
from config.names import is_loopback
from config.settings import Settings
from config.tls_files import TlsFilesError, expiry
from dicom_node.doctor.disk import check_disk_kind, check_privacy, check_shared_sqlite
from dicom_node.doctor.findings import Area, Finding, Level
from dicom_node.errors import NodeError
from dicom_node.observability import events

log = structlog.get_logger(__name__)

_SOON = timedelta(days=30)
_AREA = "configuration"


class UnsafeError(NodeError):
    """The node would run, but not safely; each line says what to change."""

    def __init__(self, findings: list[Finding]) -> None:
        lines = [f"  {found.subject}: {found.seen} {found.meaning} {found.fix}" for found in findings]
        super().__init__("\n".join(["This is not safe, so the node does not start:", *lines]))
        self.findings = tuple(findings)


def refuse_unsafe(settings: Settings) -> None:
    """Raise `UnsafeError` for a store that is not safe to use; log what is merely unwise."""
    section = settings.storage
    found = [*check_privacy(section), *check_shared_sqlite(section), *check_disk_kind(section)]
    problems = [finding for finding in found if finding.level is Level.PROBLEM]
    if problems:
        raise UnsafeError(problems)
    for finding in found:
        if finding.level is Level.WARNING:
            log.warning(events.UNSAFE, check=finding.check, seen=finding.seen, meaning=finding.meaning)


def check_safety(settings: Settings, file: Path, now: datetime | None = None) -> list[Finding]:
    """Examine what the configuration opens to others; `file` is the configuration itself."""
    found = [
        *_files(settings, file),
        *_ending_certificates(settings, now or datetime.now(UTC)),
        *_open_port(settings),
        *_clear_peers(settings),
        *_process(),
    ]
    return found or [Area(_AREA, file.name).ok("Nothing in it is unsafe.")]


def _files(settings: Settings, file: Path) -> Iterator[Finding]:
    for fault in (*find_file_faults(settings), *find_exposed_password(settings, file)):
        yield Area(_AREA, key_path_text(fault.path)).problem(
            f"{fault.message}.",
            meaning="The node does not start like this.",
            fix="Correct the file, or the key that names it.",
        )


def _ending_certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    for path, section in tls_sections(settings):
        try:
            end = expiry(section)
        except TlsFilesError:  # told by `_files`
            continue
        except OSError:
            continue
        if end is not None and end - now < _SOON:
            yield Area(_AREA, f"{key_path_text(path)}.certificate").warning(
                f"The certificate ends on {end:%Y-%m-%d}.",
                meaning="From then on peers refuse it and nothing is received or sent with it.",
                fix="Renew it and replace the file; the next association uses it without a restart.",
            )


def _open_port(settings: Settings) -> Iterator[Finding]:
    node = settings.node
    if is_loopback(node.host):
        return
    if node.tls is None:
        yield Area(_AREA, "node.host").warning(
            f"The node listens on {node.host} in the clear.",
            meaning="Whoever sees the network sees patients' images, and AE titles are no passwords.",
            fix="Set node.tls, or keep the node in a network of its own.",
        )
    if node.tls is None or not node.tls.mutual:
        anywhere = [caller.ae_title for caller in node.accept_from if caller.network is None]
        if anywhere:
            yield Area(_AREA, "node.accept_from").warning(
                f"{', '.join(anywhere)} may call from any address.",
                meaning="Anyone who knows the title can send images.",
                fix="Add the network: {ae_title: ..., network: 192.0.2.10}, or use mutual TLS.",
            )


def _clear_peers(settings: Settings) -> Iterator[Finding]:
    for position, peer in enumerate(settings.peers):
        if peer.enabled and peer.tls is None and not is_loopback(peer.host):
            yield Area(_AREA, f"peers[{position}]").warning(
                f"{peer.name} is called in the clear.",
                meaning="Whoever sees the network sees patients' images.",
                fix="Set tls for the peer where it can, or keep both in a network of their own.",
            )
        elif peer.tls is not None and not peer.tls.check_name:
            yield Area(_AREA, f"peers[{position}].tls.check_name").warning(
                f"Any certificate of that authority passes for {peer.name}.",
                meaning="Another machine of the hospital could take its place.",
                fix="Remove check_name: false; set server_name to what its certificate names.",
            )


def _process() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Area(_AREA, "user").warning(
            "This runs as root.",
            meaning="A fault in a decoder would have the whole machine.",
            fix="Run the node, and this command, as a user of its own.",
        )
    if resource.getrlimit(resource.RLIMIT_CORE)[0] != 0:
        yield Area(_AREA, "core dumps").warning(
            "Core dumps are on.",
            meaning="A crash may write patients' images to a file outside of the store.",
            fix="ulimit -c 0, or LimitCORE=0 in the service.",
        )
