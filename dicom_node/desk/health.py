"""Can the node take and keep images right now?"""

from __future__ import annotations

import socket

from dicom_node.desk.desk import Desk
from dicom_node.desk.overview import disk_figures
from storage.errors import StorageError

_CONNECT_S = 2.0


def readiness(desk: Desk) -> dict[str, str]:
    """The checks by name: "ok", or what is wrong in words without addresses of others."""
    return {"database": _database(desk), "disk": _disk(desk), "receiver": _receiver(desk)}


def _database(desk: Desk) -> str:
    try:
        desk.store.pauses.all()
    except StorageError as exc:
        return str(exc)
    return "ok"


def _disk(desk: Desk) -> str:
    figures = disk_figures(desk.settings)
    if figures["used_percent"] >= figures["hard_percent"]:
        return "the file system is fuller than the hard watermark"
    return "ok"


def _receiver(desk: Desk) -> str:
    """Whether the DICOM port takes connections; opening one and closing it again is all that is done."""
    node = desk.settings.node
    host = "127.0.0.1" if node.host in ("0.0.0.0", "") else "::1" if node.host == "::" else node.host  # noqa: S104
    try:
        socket.create_connection((host, node.port), timeout=_CONNECT_S).close()
    except OSError:
        return "the DICOM port takes no connections"
    return "ok"
