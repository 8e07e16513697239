"""What is wrong with the files that the settings name, and with the settings file itself as a file."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from config.key_paths import KeyPath
from config.tls import TlsSection
from config.tls_files import find_tls_faults

if TYPE_CHECKING:
    from config.settings import Settings


@dataclass(frozen=True)
class FileFault:
    """One fault; `path` is the key of the configuration that it is about."""

    path: KeyPath
    message: str


def tls_sections(settings: Settings) -> Iterator[tuple[KeyPath, TlsSection]]:
    """Every TLS section in use, with its key."""
    if settings.node.tls is not None:
        yield ("node", "tls"), settings.node.tls
    for position, peer in enumerate(settings.peers):
        if peer.tls is not None and peer.enabled:
            yield ("peers", position, "tls"), peer.tls
    if settings.audit.syslog is not None:
        yield ("audit", "syslog", "tls"), settings.audit.syslog.tls


def find_file_faults(settings: Settings) -> list[FileFault]:
    """Return what is wrong with certificates and keys; none when the node may start with them."""
    return [
        FileFault((*path, fault.key), fault.message)
        for path, section in tls_sections(settings)
        for fault in find_tls_faults(section)
    ]


def find_exposed_password(settings: Settings, file: Path) -> list[FileFault]:
    """Return a fault when the settings hold a password and other users of the machine can read them."""
    url = settings.storage.database_url
    if url is None or urlsplit(url).password is None:
        return []
    mode = stat.S_IMODE(file.stat().st_mode)
    if not mode & stat.S_IRWXO:
        return []
    return [
        FileFault(
            ("storage", "database_url"),
            f"the password can be read by every user of this machine (mode {mode:04o}); chmod 640 the file, "
            "or keep the password in ~/.pgpass of the node's user",
        )
    ]
