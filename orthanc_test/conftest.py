"""A real Orthanc as the PACS, started here on free ports, or a site's own one named by the environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.imaging.phantom_series import write_ct_series, write_mr_series
from engine.phantom import head_phantom, noisy_ct, noisy_mr
from tests.nursery import ForkedNode

NODE_CONFIG = """\
node:
  ae_titles: [ENHANCE]
  host: {host}
  port: {port}
  accept_from: [{{ae_title: "{pacs_ae}"}}, {{ae_title: SCANNER}}]
api: {{enabled: false}}
storage: {{directory: node-data, watermarks: {{soft: 99 %, hard: 100 %, reserve: 1 MB}}}}
completion: {{quiet_period: 2 s, quiet_period_by_modality: {{CT: 2 s, MR: 2 s}}}}
enhancement: {{enhancer: classical}}
peers:
  - {{name: pacs, ae_title: "{pacs_ae}", host: {pacs_host}, port: {pacs_port}}}
routes:
  - {{name: back, when: {{calling_ae: "{pacs_ae}"}}, action: enhance, send_to: [return-to-sender]}}
  - {{name: scanner, when: {{modality: [CT, MR]}}, action: enhance, send_to: [pacs]}}
logging: {{format: json}}
"""


@dataclass(frozen=True)
class Orthanc:
    """What the tests need of an Orthanc: its REST API and its DICOM side."""

    url: str
    ae_title: str
    host: str
    port: int

    def get(self, path: str) -> Any:
        """GET a JSON answer."""
        return json.loads(self.raw("GET", path))

    def post(self, path: str, body: Any) -> Any:
        """POST JSON and read the JSON answer."""
        return json.loads(self.raw("POST", path, json.dumps(body).encode()))

    def raw(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One request; HTTP errors raise."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            content: bytes = answer.read()
        return content

    def upload(self, paths: list[Path]) -> None:
        """Store files through the REST API."""
        for path in paths:
            self.raw("POST", "/instances", path.read_bytes())

    def find(self, level: str, **query: str) -> list[str]:
        """Orthanc identifiers of what matches."""
        return list(self.post("/tools/find", {"Level": level, "Query": query}))

    def download_series(self, orthanc_id: str, folder: Path) -> list[Path]:
        """Write every instance of a series as Orthanc holds it."""
        folder.mkdir(parents=True)
        paths = []
        for instance in self.get(f"/series/{orthanc_id}")["Instances"]:
            path = folder / f"{instance}.dcm"
            path.write_bytes(self.raw("GET", f"/instances/{instance}/file"))
            paths.append(path)
        return paths


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A site's own Orthanc when ORTHANC_URL is set, otherwise one of ours on free ports."""
    if "ORTHANC_URL" in os.environ:
        yield Orthanc(
            url=os.environ["ORTHANC_URL"].rstrip("/"),
            ae_title=os.environ.get("ORTHANC_AE", "ORTHANC"),
            host=os.environ.get("ORTHANC_HOST", "127.0.0.1"),
            port=int(os.environ.get("ORTHANC_DICOM_PORT", "4242")),
        )
        return
    with _running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Start one more Orthanc of ours, with settings of its own."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Orthanc:
            folder = tmp_path / "orthanc"
            folder.mkdir()
            return stack.enter_context(_running(folder, **settings))

        yield start


@contextmanager
def _running(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """An Orthanc on free ports, with its files in a folder."""
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    http, dicom = free_port(), free_port()
    configuration = {
        "Name": "PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": True,
        "OverwriteInstances": False,
        "Plugins": [],
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
        server = Orthanc(f"http://127.0.0.1:{http}", "ORTHANC", "127.0.0.1", dicom)
        try:
            _await_answer(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(20)


def _await_answer(server: Orthanc, process: subprocess.Popen[bytes]) -> None:
    for _ in range(150):
        assert process.poll() is None, "Orthanc ended before it answered"
        try:
            server.get("/system")
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("Orthanc did not answer within 30 s")


@pytest.fixture
def node(orthanc: Orthanc, tmp_path: Path) -> Iterator[RunningNode]:
    """A node that knows this Orthanc, and is known to it as the modality `enhance`."""
    config = tmp_path / "node.yaml"
    host = os.environ.get("NODE_HOST", "127.0.0.1")
    port = int(os.environ.get("NODE_PORT", "0")) or free_port()
    config.write_text(
        NODE_CONFIG.format(
            host=host, port=port, pacs_ae=orthanc.ae_title, pacs_host=orthanc.host, pacs_port=orthanc.port
        )
    )
    running = ForkedNode(config)
    orthanc.raw("PUT", "/modalities/enhance", json.dumps(["ENHANCE", host, port]).encode())
    running.start()
    yield running
    running.kill()  # how it drains is asked elsewhere, and takes seconds


def _data(folder: str) -> list[Path]:
    root = Path(os.environ.get("DICOM_NODE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    return sorted((root / "dicom" / folder).glob("*.dcm"))


_WHOLE = pytest.mark.drill
"""Whole scans: minutes each, so by their own command (`pytest -m drill orthanc_test`)."""


@pytest.fixture(
    scope="session",
    params=["ct", "mr", pytest.param("ct-whole", marks=_WHOLE), pytest.param("mr-whole", marks=_WHOLE)],
)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The middle of a real CT or MR series, or the whole (64 and 192 slices); generated where scans are absent."""
    kind, _, whole = request.param.partition("-")
    folder = {"ct": "ct-chest-5mm-soft", "mr": "mr-t1-sagittal"}[kind]
    real = _data(folder)
    target = tmp_path_factory.mktemp(f"source-{request.param}")
    if real:
        return real if whole else _middle(real, {"ct": 16, "mr": 48}[kind], target)
    clean = head_phantom()
    if kind == "ct":
        return write_ct_series(noisy_ct(clean, 20.0, seed=5), target)
    return write_mr_series(noisy_mr(clean, 20.0, seed=5), target)


def _middle(paths: list[Path], count: int, target: Path) -> list[Path]:
    """Copy the slices around the middle of a series into a folder of their own."""

    def position(path: Path) -> float:
        return float(dcmread(path, stop_before_pixels=True).InstanceNumber)

    ordered = sorted(paths, key=position)
    first = (len(ordered) - count) // 2
    return [Path(shutil.copy(path, target)) for path in ordered[first : first + count]]
