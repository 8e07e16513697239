"""A web process over a real store, Chromium in front of it, and a line of series, jobs and images behind it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.settings import Settings, load_settings
from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import free_port
from dicom_node.desk.access import SECRET_FILE, AccessControl
from dicom_node.desk.desk import utc_now
from dicom_node.desk.roles import Role
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.operations import open_node_store
from dicom_node.pipeline.delivery import DeliverySender
from engine.volume import IntensityUnit, Volume
from storage.records import NewDeliveryJob, NewDerived, NewInstance, NewJob
from storage.states import JobKind
from storage.store import Store

PASSWORD = "correct horse battery staple"
_LIMIT_MS = 60_000
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}}}
api: {{port: {page}}}
storage: {{directory: {directory}, watermarks: {{soft: 99 %, hard: 100 %, reserve: 1 MB}}}}
enhancement: {{enhancer: classical}}
peers:
  - {{name: archive, ae_title: ARCHIVE, host: 127.0.0.1, port: {archive}}}
  - {{name: absent, ae_title: ABSENT, host: 127.0.0.1, port: {absent}}}
routes:
  - {{name: head-ct, when: {{modality: CT}}, send_to: [archive]}}
"""


def eventually(condition: Callable[[], Any], *, within: float = 60.0) -> Any:
    """Wait until the condition holds; returns what it gave."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
    return found


class Line:
    """Puts series, jobs and images into the store as the line would."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self._folder = folder
        self._count = 0

    def series(
        self, *, calling: str = "SCANNER", modality: str | None = None, slices: int = 12, side: int = 96
    ) -> int:
        """A CT series that is still being received; its number."""
        self._count += 1
        style = PhantomStyle(study_key=f"study-{self._count}")
        files = write_ct_series(
            _volume(self._count, slices, 25.0, side), self._folder / f"in-{self._count}", style=style
        )
        for path in files:
            header, content = read_header(path), path.read_bytes()
            start = 144 + int.from_bytes(content[140:144], "little")  # where the data set begins (PS3.10 7.1)
            staged = self.store.spool.write(content[:start], [content[start:]])
            added = self.store.index.add_instance(
                NewInstance(
                    study_uid=header.study_instance_uid,
                    series_uid=header.series_instance_uid,
                    modality=modality or header.modality,
                    sop_class=header.sop_class_uid,
                    sop_instance=header.sop_instance_uid,
                    transfer_syntax="1.2.840.10008.1.2.1",
                    digest=staged.digest,
                    path=self.store.spool.commit(staged),
                    size=staged.size,
                    association_id=None,
                    calling_ae=calling,
                    called_ae="ENHANCE",
                )
            )
        return added.series.id

    def close(self, series: int, event: str = "close", **why: Any) -> None:
        """Close a series; with a job when it is complete."""
        record = self.store.index.get_series(series)
        source = [
            {"path": str(found.path), "sop_instance_uid": found.sop_instance_uid, "digest": found.digest}
            for found in self.store.index.instances(series)
        ]
        spec = {"enhancer": "classical", "strength": 0.9, "options": {}, "destinations": [], "source": source}
        job = NewJob(f"key-{series}", spec=spec) if event == "close" else None
        why.setdefault("evidence", {"slices": record.instance_count, "gaps": 0, "quiet_s": 30.0})
        assert self.store.index.close_series(series, record.revision, event=event, job=job, **why)

    def job(self, **how: Any) -> int:
        """A pending enhancement; its number."""
        series = self.series(**how)
        self.close(series, route="head-ct")
        return self.store.jobs.list(series_id=series)[0].id

    def claim(self, kind: JobKind = JobKind.ENHANCE, destination: str | None = None) -> Any:
        """The next job of a kind, as a worker takes it."""
        job = self.store.jobs.claim(kind, "worker-1@test", timedelta(seconds=600), destination=destination)
        assert job is not None
        return job

    def failed(self, **how: Any) -> int:
        """An enhancement that failed for good; its number."""
        self.job(**how)
        job = self.claim()
        self.store.jobs.fail(
            job, reason="UNSAFE_OUTPUT", message="A guard refused the output.", retry_at=None
        )
        return job.id

    def enhanced(self, *, destination: str = "archive", slices: int = 12, side: int = 96) -> int:
        """A finished enhancement with its delivery pending; its number."""
        number = self.job(slices=slices, side=side)
        job = self.claim()
        assert job.id == number
        folder = self.store.spool.derived_dir(job.id, job.token)
        style = PhantomStyle(
            study_key=f"study-{self._count}", series_number=902, series_description="DENOISED"
        )
        derived = []
        for position, path in enumerate(
            write_ct_series(_volume(self._count, slices, 6.0, side), folder, style=style)
        ):
            header = read_header(path)
            derived.append(
                NewDerived(
                    sop_class_uid=header.sop_class_uid,
                    sop_instance_uid=header.sop_instance_uid,
                    series_instance_uid=header.series_instance_uid,
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    path=path,
                    digest=hashlib.sha256(path.read_bytes()).hexdigest(),
                    size=path.stat().st_size,
                    position=position,
                )
            )
        self.store.jobs.commit_manifest(job, derived, [NewDeliveryJob(destination)], FACTS)
        return number


FACTS = {
    "seconds": {"READ": 0.8, "ENHANCE": 8.3, "GUARD": 2.4, "DERIVE": 0.6, "VERIFY": 0.9},
    "enhancer": {"name": "classical", "version": "1.0.0", "digest": "sha256:0f" + "ab" * 15},
    "noise_before": 25.0,
    "noise_after": 6.0,
    "bias": 0.12,
    "guards": {
        "largest_move_sigma": 2.1,
        "bias": 0.12,
        "edges": 0.03,
        "padding_touched": False,
        "passed": True,
    },
}


def _volume(seed: int, slices: int, noise: float, side: int = 96) -> Volume:
    """A head of sorts: ellipses of a few tissues, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    array = np.full((slices, side, side), -1000.0, np.float32)
    for place, z in enumerate(np.linspace(-1, 1, slices)):
        plane = array[place]
        radius = np.hypot(x / 0.72, y / 0.9) + 0.25 * z**2
        plane[radius < 1] = 900.0
        plane[radius < 0.92] = 35.0
        plane[np.hypot((x + 0.2) / 0.13, y / 0.3) + z**2 < 1] = 8.0
        plane[np.hypot((x - 0.2) / 0.13, y / 0.3) + z**2 < 1] = 8.0
        plane[np.hypot(x - 0.25, y - 0.45) + abs(z) < 0.14] = 75.0
        array[place] += rng.normal(0, noise, plane.shape).astype(np.float32)
    affine = np.array([[0, 0, 2, 0], [0, 2, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    return Volume(array, affine, IntensityUnit.HU)


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("port", "page", "archive", "absent")}


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Path:
    folder = tmp_path_factory.mktemp("node")
    path = folder / "node.yaml"
    path.write_text(CONFIG.format(directory=folder / "data", **ports))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="session")
def settings(config: Path) -> Settings:
    return load_settings(config)


@pytest.fixture(scope="session")
def store(settings: Settings) -> Iterator[Store]:
    with open_node_store(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def line(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(store, tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Archive]:
    with Archive(tmp_path_factory.mktemp("archive"), port=ports["archive"]) as running:
        yield running


@pytest.fixture(scope="session")
def page_address(config: Path, store: Store, ports: dict[str, int]) -> Iterator[str]:
    """The address of a web process of its own."""
    address = f"http://127.0.0.1:{ports['page']}"
    command = [sys.executable, "-m", "dicom_node", "role", "web", "--config", str(config)]
    with (config.parent / "web.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or _answers(f"{address}/login"), within=120)
        assert process.poll() is None, (config.parent / "web.log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(30)
        if process.stdin is not None:
            process.stdin.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def first_administrator(chromium: Any, page_address: str, settings: Settings, store: Store) -> str:
    """The first administrator, made on the page with the secret of the first run; where the page went then."""
    assert not store.access.any_user()
    page = chromium.new_page(base_url=page_address)
    page.set_default_timeout(_LIMIT_MS)
    page.goto("/login")
    page.get_by_label("Secret").fill((settings.storage.directory / SECRET_FILE).read_text().strip())
    page.get_by_label("Name").fill(f"{Role.ADMIN.value}-1")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Make the administrator").click()
    page.wait_for_url("**/login")
    arrived: str = page.url
    page.close()
    return arrived


@pytest.fixture(scope="session")
def people(store: Store, settings: Settings, first_administrator: str) -> Callable[[Role], str]:
    """Make sure that there is a user of that role; its name."""
    access = AccessControl(store.access, store.trail, settings.api, now=utc_now)

    def person(role: Role) -> str:
        name = f"{role.value}-1"
        if store.access.find_user(name) is None:
            access.add_user(name, role, PASSWORD, actor="test")
        return name

    return person


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium with a fresh profile; skipped where there is none."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=list(_ARGUMENTS))
        yield browser
        browser.close()


class Browser:
    """Opens pages as a person of some role; whatever the console complains of fails the test."""

    def __init__(self, chromium: Any, address: str, person: Callable[[Role], str]) -> None:
        self._chromium = chromium
        self.address = address
        self.person = person
        self.password = PASSWORD
        self._contexts: dict[tuple[Role, str], Any] = {}
        self.complaints: list[str] = []

    def page(
        self, role: Role | None, path: str, *, scheme: str = "light", width: int = 1440, height: int = 900
    ) -> Any:
        """A page that is open at `path`, signed in unless `role` is None."""
        context = self._fresh(scheme) if role is None else self._signed_in(role, scheme)
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.on("pageerror", lambda error: self.complaints.append(f"{path}: {error}"))
        page.on(
            "console",
            lambda said: said.type in ("error", "warning") and self.complaints.append(f"{path}: {said.text}"),
        )
        page.goto(path)
        return page

    @contextmanager
    def expecting_complaints(self, part: str) -> Iterator[None]:
        """Within, refusals of the node may show in the console: the browser tells of each failed request."""
        before = len(self.complaints)
        yield
        self.complaints[before:] = [told for told in self.complaints[before:] if part not in told]

    def forget(self, role: Role) -> None:
        """Sign in anew next time: the sessions of this role have ended."""
        for key in [key for key in self._contexts if key[0] is role]:
            self._contexts.pop(key).close()

    def _fresh(self, scheme: str) -> Any:
        context = self._chromium.new_context(
            base_url=self.address, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(_LIMIT_MS)
        return context

    def _signed_in(self, role: Role, scheme: str) -> Any:
        if (role, scheme) not in self._contexts:
            context = self._fresh(scheme)
            answer = context.request.post(
                "/api/v1/session",
                data={"name": self.person(role), "password": PASSWORD},
                headers={"Origin": self.address},
            )
            assert answer.ok, answer.text()
            self._contexts[(role, scheme)] = context
        return self._contexts[(role, scheme)]


@pytest.fixture(scope="session")
def _browser(chromium: Any, page_address: str, people: Callable[[Role], str]) -> Browser:
    return Browser(chromium, page_address, people)


@pytest.fixture
def browser(_browser: Browser) -> Iterator[Browser]:
    _browser.complaints.clear()
    yield _browser
    assert _browser.complaints == []


@pytest.fixture
def sender(store: Store, settings: Settings, archive: Archive) -> Iterator[DeliverySender]:
    """What delivers to the archive when a test says so."""
    running = DeliverySender(store, settings, name="sender@test", now=utc_now)
    yield running
    running.stop(10)


@pytest.fixture(scope="session")
def numbers(line: Line, archive: Archive, store: Store) -> dict[str, int]:
    """A line in which something is in every state; the numbers of a job and of series to look at."""
    done = line.enhanced()
    line.failed()
    held = line.series(calling="MR_TWO")
    line.close(held, "hold", reason="SLICES_MISSING", message="Slice 7 of 12 is missing.")
    left = line.series(calling="CT_ONE", slices=8)
    line.close(left, "skip", reason="NO_ROUTE", message="No route matches this series.")
    line.series(calling="CT_ONE", slices=8)
    return {"job": done, "series": store.jobs.get(done).series_id, "held": held}
