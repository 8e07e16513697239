"""Our port: free, or held by a node of ours; who else holds it is named."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from config.sections import NodeSection
from dicom_node.doctor.findings import Area, Finding

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp, proc(5)
_OURS = ("dicom_node", "dicom-node")


def check_port(section: NodeSection) -> list[Finding]:
    """Try to bind where `serve` would, and let go at once."""
    area = Area("ports", f"{section.host}:{section.port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            section.host, section.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        return [_unbindable(area, "The host name is unknown.")]
    except OSError as exc:
        return [_refused(area, section.port, exc)]
    return [area.ok("The port is free.")]


def _refused(area: Area, port: int, exc: OSError) -> Finding:
    if exc.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        if holder is not None and any(word in holder[1] for word in _OURS):
            return area.ok(f"A dicom-node is listening (process {holder[0]}).")
        who = f"process {holder[0]} ({_program(holder[1])})" if holder else "a program of another user"
        return area.problem(
            f"The port is held by {who}.",
            meaning="The node cannot listen, so no image comes in.",
            fix="Stop that program, or set node.port to another port and tell the senders.",
        )
    if exc.errno == errno.EACCES:
        return area.problem(
            "This user may not open the port.",
            meaning="Ports below 1024 belong to root on most systems; the node cannot listen.",
            fix="Use 11112 (2762 with TLS), or allow it: sysctl net.ipv4.ip_unprivileged_port_start=104.",
        )
    return _unbindable(area, f"The address cannot be opened: {exc.strerror}.")


def _unbindable(area: Area, seen: str) -> Finding:
    return area.problem(
        seen,
        meaning="The node cannot listen, so no image comes in.",
        fix="Set node.host to an address of this machine (`ip addr` lists them), or to 0.0.0.0 for all.",
    )


def holder_of(port: int) -> tuple[int, str] | None:
    """The process that listens on a TCP port and its command line; None where we may not see it."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for handle in (process / "fd").iterdir():
                if os.readlink(handle) in wanted:  # noqa: PTH115 - no file, and no path to resolve
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    return int(process.name), line.strip()
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _program(command_line: str) -> str:
    """The program alone: arguments may hold secrets."""
    return Path(command_line.split(" ", maxsplit=1)[0]).name or "unknown"
