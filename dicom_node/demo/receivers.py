"""The receivers that `bench receive` compares, each fresh in a folder of its own: this node, Orthanc, storescp."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from config.sections import Peer
from config.settings import load_settings
from dicom_node.demo.bench import BenchError, free_port
from dicom_node.operations import open_node_store

_TICKS: Final = os.sysconf("SC_CLK_TCK")
PROGRAMS: Final = {"ours": None, "orthanc": "Orthanc", "storescp": "storescp"}


@dataclass(frozen=True)
class Running:
    """A receiver at work: where to send to, and its process with all those below it."""

    name: str
    peer: Peer
    folder: Path
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds used so far, of the whole tree."""
        return sum(_cpu_s(pid) for pid in _tree(self.pid))

    def peak_bytes(self) -> int:
        """The greatest resident memory of each process of the tree, added up."""
        return sum(_peak_bytes(pid) for pid in _tree(self.pid))


def is_installed(name: str) -> bool:
    """Whether this receiver can be started here."""
    program = PROGRAMS[name]
    return program is None or shutil.which(program) is not None


@contextmanager
def running(name: str, folder: Path, *, associations: int) -> Iterator[Running]:
    """Start a receiver with its defaults, and stop it; `associations` may be open at once."""
    folder.mkdir(parents=True)
    port = free_port()
    command = {"ours": _ours, "orthanc": _orthanc, "storescp": _storescp}[name](folder, port, associations)
    with (folder / "log.txt").open("wb") as log:
        environ = {**os.environ, "TCP_NODELAY": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environ
        )
    try:
        _await_port(port, process, name)
        peer = Peer(name="bench", ae_title="BENCH", host="127.0.0.1", port=port, calling_ae_title="BENCHSCU")
        yield Running(name, peer, folder, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _ours(folder: Path, port: int, associations: int) -> list[str]:
    """The receiver role of a node, limits aside with its defaults."""
    written: dict[str, Any] = {
        "node": {"ae_titles": ["BENCH"], "port": port, "max_associations": max(50, associations)},
        "receiving": {"max_per_ae": max(50, associations), "max_per_host": max(50, associations) + 5},
        "storage": {"directory": "data", "watermarks": {"soft": "98 %", "hard": "99 %"}},
        "logging": {"format": "json"},
    }
    config = folder / "node.yaml"
    config.write_text(yaml.safe_dump(written), encoding="utf-8")
    open_node_store(load_settings(config)).close()
    return [sys.executable, "-m", "dicom_node", "role", "receiver", "--config", str(config)]


def _orthanc(folder: Path, port: int, _associations: int) -> list[str]:
    """Orthanc with its defaults, which sync every file, and without its web server."""
    config = folder / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "Name": "BENCH",
                "DicomAet": "BENCH",
                "DicomPort": port,
                "HttpServerEnabled": False,
                "StorageDirectory": str(folder / "data"),
                "IndexDirectory": str(folder / "data"),
                "Plugins": [],
            }
        ),
        encoding="utf-8",
    )
    return ["Orthanc", str(config)]


def _storescp(folder: Path, port: int, _associations: int) -> list[str]:
    """DCMTK's storescp, a process for each association, which syncs nothing."""
    (folder / "data").mkdir()
    return ["storescp", "--fork", "-od", str(folder / "data"), "-aet", "BENCH", str(port)]


def _await_port(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    """Return when something listens."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"{name} did not start")


def _tree(pid: int) -> list[int]:
    """A process and those below it."""
    found = [pid]
    for parent in found:
        tasks = Path(f"/proc/{parent}/task")
        for task in tasks.glob("*/children") if tasks.exists() else ():
            with suppress(OSError):  # a thread or a process may end while it is asked
                found += [int(word) for word in task.read_text().split()]
    return found


def _cpu_s(pid: int) -> float:
    """Of one process and of those below it that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
