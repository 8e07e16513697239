"""A desk over a real store, the whole site in front of it, and people of every role who are signed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom import dcmread

from config.imaging import AssemblySection, DerivationSection
from config.sections import Peer, Route, StorageSection
from config.settings import Settings
from dicom_node.api.security import CSRF_HEADER
from dicom_node.desk.desk import Desk, open_desk
from dicom_node.desk.metrics import Metrics
from dicom_node.desk.roles import Role
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.phantom_series import CT_STYLE, PhantomStyle, write_ct_series
from dicom_node.web.site import build_site
from engine.volume import IntensityUnit, Volume
from storage.records import NewDeliveryJob, NewDerived, NewInstance, NewJob
from storage.states import JobKind
from storage.store import Store, open_store

ORIGIN = "https://node.test"
PASSWORD = "correct horse battery staple"


class People:
    """Signs people in; each gets a browser of their own."""

    password = PASSWORD
    origin = ORIGIN

    def __init__(self, desk: Desk, app: FastAPI) -> None:
        self.desk = desk
        self.app = app

    def nobody(self, peer: str = "127.0.0.1") -> TestClient:
        """A browser that is not signed in."""
        return TestClient(
            self.app,
            base_url=ORIGIN,
            headers={"Origin": ORIGIN},
            raise_server_exceptions=False,
            client=(peer, 50000),
        )

    def sign_in(self, role: Role, name: str | None = None) -> TestClient:
        """A browser in which a user of that role is signed in; its writes carry the CSRF token."""
        name = name or f"{role.value}-1"
        if self.desk.store.access.find_user(name) is None:
            self.desk.access.add_user(name, role, PASSWORD, actor="test")
        client = self.nobody()
        answer = client.post("/api/v1/session", json={"name": name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers[CSRF_HEADER] = answer.json()["csrf"]
        return client


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        storage=StorageSection(directory=tmp_path / "data"),
        peers=(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=11113),),
        routes=(Route(name="everything", send_to=("pacs",)),),
    )


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(settings: Settings, clock: HandClock, make_database: Callable[[Path], str]) -> Iterator[Store]:
    directory = settings.storage.directory
    with open_store(make_database(directory / "node.db"), directory, now=clock) as opened:
        yield opened


@pytest.fixture
def desk(store: Store, settings: Settings, clock: HandClock) -> Desk:
    opened = open_desk(store, settings, now=clock)
    # The library's own cheapest profile: what is tested here is not how long a hash takes.
    opened.access._hasher = PasswordHasher.from_parameters(CHEAPEST)
    return opened


@pytest.fixture(scope="session")
def sites() -> list[FastAPI]:
    """The site, once it is built: its routes are the same for every desk, and putting them together takes long."""
    return []


@pytest.fixture
def people(desk: Desk, sites: list[FastAPI]) -> People:
    if not sites:
        sites.append(build_site(desk))
    (app,) = sites
    # All that it knows of a node.
    app.state.desk, app.state.metrics = desk, Metrics(desk)
    return People(desk, app)


@pytest.fixture
def viewer(people: People) -> TestClient:
    return people.sign_in(Role.VIEWER)


@pytest.fixture
def operator(people: People) -> TestClient:
    return people.sign_in(Role.OPERATOR)


@pytest.fixture
def admin(people: People) -> TestClient:
    return people.sign_in(Role.ADMIN)


class Line:
    """Puts series, jobs and deliveries into the store as the line would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.count = 0

    def series(self, *, modality: str = "CT", calling: str = "SCANNER", instances: int = 1) -> int:
        """One open series; its number."""
        self.count += 1
        for number in range(instances):
            staged = self.store.spool.write(b"", [f"{self.count}.{number}".encode()])
            added = self.store.index.add_instance(
                NewInstance(
                    study_uid=f"1.2.{self.count}",
                    series_uid=f"1.2.3.{self.count}",
                    modality=modality,
                    sop_class="1.2.840.10008.5.1.4.1.1.2",
                    sop_instance=f"1.2.3.{self.count}.{number}",
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

    def close(self, series: int, event: str = "close", **why: str) -> None:
        """Close the series; with a job when it is stable."""
        revision = self.store.index.get_series(series).revision
        spec = {"enhancer": "classical", "strength": 0.9, "destinations": ["pacs"], "source": []}
        job = NewJob(f"key-{series}", spec=spec) if event == "close" else None
        assert self.store.index.close_series(series, revision, event=event, job=job, **why)

    def job(self, **how: str) -> int:
        """A pending enhancement; its number."""
        series = self.series(**how)
        self.close(series)
        return self.store.jobs.list(series_id=series)[0].id

    def derived(self, count: int = 2, **how: str) -> tuple[int, int]:
        """A finished enhancement with its delivery pending; the numbers of both jobs."""
        self.job(**how)
        job = self.store.jobs.claim(JobKind.ENHANCE, "worker", timedelta(seconds=60))
        assert job is not None
        folder = self.store.spool.derived_dir(job.id, job.token)
        derived = []
        for position in range(count):
            path = folder / f"{position}"
            path.write_bytes(b"derived")
            derived.append(
                NewDerived(
                    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                    sop_instance_uid=f"2.25.{job.id}.{position}",
                    series_instance_uid=f"2.25.{job.id}",
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    path=path,
                    digest="0" * 64,
                    size=7,
                    position=position,
                )
            )
        facts = {"seconds": {"READ": 1.0, "ENHANCE": 5.0}, "enhancer": {"name": "classical", "version": "1"}}
        (delivery,) = self.store.jobs.commit_manifest(job, derived, [NewDeliveryJob("pacs")], facts)
        return job.id, delivery.id


@pytest.fixture
def line(store: Store) -> Line:
    return Line(store)


class Scans:
    """Stores phantom series as the line would: real objects, with a derived series beside them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.count = 0

    def volume(self, *, slices: int = 8, side: int = 32, level: float = 0.0) -> Volume:
        rng = np.random.default_rng(self.count)
        rows = np.linspace(-200, 200, side, dtype=np.float32)
        array = np.broadcast_to(rows, (slices, side, side)).astype(np.float32)
        array = array + rng.normal(0, 20, array.shape).astype(np.float32) * (1 - level)
        # (slice, row, column) to LPS: axial, 2 mm apart, head last.
        affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
        return Volume(array.astype(np.float32), affine, IntensityUnit.HU)

    def series(self, *, calling: str = "SCANNER", style: PhantomStyle = CT_STYLE, **shape: int) -> int:
        """One received CT series, closed with a job; its number."""
        self.count += 1
        files = write_ct_series(self.volume(**shape), self.folder / f"in-{self.count}", style=style)
        numbers = set()
        # Not in the order of the stack: that is the viewer's business.
        for path in sorted(files, key=lambda p: hash(p.name)):
            header, content = read_header(path), path.read_bytes()
            start = 144 + int.from_bytes(content[140:144], "little")  # the digest is over the data set
            staged = self.store.spool.write(content[:start], [content[start:]])
            added = self.store.index.add_instance(
                NewInstance(
                    study_uid=header.study_instance_uid,
                    series_uid=header.series_instance_uid,
                    modality=header.modality,
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
            numbers.add(added.series.id)
        (number,) = numbers
        return number

    def close(self, series: int) -> int:
        """Close the series; the number of its pending job."""
        record = self.store.index.get_series(series)
        sources = [
            {"path": str(i.path), "sop_instance_uid": i.sop_instance_uid, "digest": i.digest}
            for i in self.store.index.instances(series)
        ]
        spec = {
            "enhancer": "classical",
            "strength": 0.9,
            "options": {},
            "destinations": ["pacs"],
            "source": sources,
            "derivation": DerivationSection().model_dump(mode="json"),
            "assembly": {
                **AssemblySection().model_dump(mode="json"),
                "minimum_slices": 2,
                "allow_lossy": True,
                "released": False,
            },
        }
        job = NewJob(f"key-{series}", spec=spec)
        assert self.store.index.close_series(series, record.revision, event="close", job=job)
        return self.store.jobs.list(series_id=series)[0].id

    def enhanced(self, *, accompany: Callable[[list[Path]], Path] | None = None, **how) -> int:
        """A received series with a derived one that is less noisy; the number of its enhancement.

        `accompany` makes one more file from the derived ones, to be committed behind them.
        """
        series = self.series(**how)
        shape = {name: how[name] for name in ("slices", "side") if name in how}
        number = self.close(series)
        job = self.store.jobs.claim(JobKind.ENHANCE, "worker", timedelta(seconds=60))
        assert job is not None
        assert job.id == number
        folder = self.store.spool.derived_dir(job.id, job.token)
        files = write_ct_series(
            self.volume(level=0.8, **shape), folder, style=PhantomStyle(study_key=f"derived-{number}")
        )
        derived = []
        companions = [accompany(files)] if accompany else []
        for position, path in enumerate([*sorted(files), *companions]):
            header = dcmread(path, stop_before_pixels=True)
            derived.append(
                NewDerived(
                    sop_class_uid=header.SOPClassUID,
                    sop_instance_uid=header.SOPInstanceUID,
                    series_instance_uid=header.SeriesInstanceUID,
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    path=path,
                    digest="0" * 64,
                    size=path.stat().st_size,
                    position=position,
                )
            )
        facts = {
            "seconds": {"ENHANCE": 5.0},
            "enhancer": {"name": "classical", "version": "1"},
            "noise_before": 20.0,
            "noise_after": 4.0,
            "bias": 0.1,
        }
        self.store.jobs.commit_manifest(job, derived, [NewDeliveryJob("pacs")], facts)
        return number


@pytest.fixture
def scans(store: Store, tmp_path: Path) -> Scans:
    return Scans(store, tmp_path / "scans")
