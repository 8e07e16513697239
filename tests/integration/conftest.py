"""The receiver of the node on a free port, and DCMTK as the other side."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.intake.receiver import build_scp
from dicom_node.network.scp import StorageScp
from dicom_node.operations import open_node_store
from engine.phantom import head_phantom
from storage.store import Store, open_store


@pytest.fixture
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a DCMTK tool; the test is skipped where it is not installed."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [require(tool), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
        )

    return run


def require(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"DCMTK's {tool} is not installed")
    return found


@pytest.fixture
def store(tmp_path: Path, make_database: Callable[[Path], str]) -> Iterator[Store]:
    directory = tmp_path / "node-data"
    with open_store(make_database(directory / "node.db"), directory) as opened:
        yield opened


@pytest.fixture
def start_node(store: Store, tmp_path: Path) -> Iterator[Callable[..., StorageScp]]:
    """A receiver on the test's store; with watermarks, on a store of its own that keeps them."""
    started: list[StorageScp] = []
    opened = ExitStack()

    def start(*, watermarks: dict[str, str] | None = None, **node: Any) -> StorageScp:
        place = {"directory": str(tmp_path / "marked"), "watermarks": watermarks} if watermarks else {}
        settings = Settings.model_validate({"node": {"port": 0, **node}, "storage": place})
        kept = opened.enter_context(open_node_store(settings)) if watermarks else store
        scp = build_scp(kept, settings, run_id="run")
        scp.start()
        started.append(scp)
        return scp

    yield start
    for scp in started:
        scp.stop()
    opened.close()


@pytest.fixture
def write_series(tmp_path: Path) -> Callable[..., list[Path]]:
    def write(name: str = "scan", *, slices: int = 12, **style: Any) -> list[Path]:
        return write_ct_series(
            head_phantom(shape=(slices, 48, 48)), tmp_path / name, style=PhantomStyle(**style)
        )

    return write


@pytest.fixture
def start_storescp(tmp_path: Path) -> Iterator[Callable[..., tuple[int, Path]]]:
    """DCMTK's storescp as an archive; the port and the folder it writes to."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> tuple[int, Path]:
        folder = tmp_path / f"archive-{len(running)}"
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [require("storescp"), *options, "-od", str(folder), "-aet", "ARCHIVE", str(port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, **quiet))
        wait_until_listening(port)
        return port, folder

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"nothing listens on port {port}")
