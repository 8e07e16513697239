"""A real store on SQLite in a temporary folder, a clock moved by hand, and short ways to say the usual."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.records import AddResult, JobRecord, NewDeliveryJob, NewDerived, NewInstance, NewJob
from storage.states import JobKind
from storage.store import Store, open_store, upgrade
from tests.disks import small_disk as small_disk_at

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# A header of known length, as the receiver writes it.
HEAD = bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + (10).to_bytes(4, "little") + b"0123456789"


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)


@dataclass
class Scene:
    """A store and what the tests keep doing with it."""

    store: Store
    clock: HandClock
    lease: timedelta = timedelta(seconds=60)

    def associate(self, run_id: str = "run-1") -> int:
        """Open an association."""
        return self.store.index.open_association("SCANNER", "ENHANCE", "192.0.2.1", run_id)

    def draft(self, uid: str, *, content: str = "a", series: str = "1.2.3", association: int | None = None):
        """A new instance with its file in place."""
        staged = self.store.spool.write(HEAD, [content.encode(), uid.encode()])
        return NewInstance(
            study_uid="1.2",
            series_uid=series,
            modality="CT",
            sop_class=CT_IMAGE,
            sop_instance=uid,
            transfer_syntax=EXPLICIT_LITTLE_ENDIAN,
            digest=staged.digest,
            path=self.store.spool.commit(staged),
            size=staged.size,
            association_id=association,
            calling_ae="SCANNER",
            called_ae="ENHANCE",
        )

    def add(self, uid: str, **how) -> AddResult:
        """Store one instance."""
        return self.store.index.add_instance(self.draft(uid, **how))

    def close(self, series_id: int, key: str = "key-1", *, event="close", priority: int = 0, **why) -> bool:
        """Close a series as it is now; with a job when it is closed as stable."""
        revision = self.store.index.get_series(series_id).revision
        job = NewJob(key, spec={"strength": 0.9}, priority=priority) if event == "close" else None
        return self.store.index.close_series(series_id, revision, event=event, job=job, **why)

    def enqueue(self, number: int = 1, priority: int = 0, **how) -> JobRecord:
        """One more closed series with its PENDING job."""
        added = self.add(f"1.2.3.{number}.1", series=f"1.2.3.{number}")
        assert self.close(added.series.id, f"key-{number}", priority=priority, **how)
        return self.store.jobs.list(series_id=added.series.id)[0]

    def claim(self, worker: str = "worker-1") -> JobRecord:
        """Claim the next ENHANCE job, which has to be there."""
        job = self.store.jobs.claim(JobKind.ENHANCE, worker, self.lease)
        assert job is not None
        return job

    def claim_delivery(self, destination: str = "pacs", worker: str = "sender-1") -> JobRecord | None:
        """Claim the next DELIVER job of a destination."""
        return self.store.jobs.claim(JobKind.DELIVER, worker, self.lease, destination=destination)

    def derive(self, job: JobRecord, count: int = 2) -> list[NewDerived]:
        """Derived files of a claim, as a manifest wants them."""
        folder = self.store.spool.derived_dir(job.id, job.token)
        derived = []
        for position in range(count):
            content = f"{job.key} {position}".encode()
            path = folder / f"{position}"
            path.write_bytes(content)
            derived.append(
                NewDerived(
                    sop_class_uid=CT_IMAGE,
                    sop_instance_uid=f"2.25.{job.id}.{position}",
                    series_instance_uid=f"2.25.{job.id}",
                    transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
                    path=path,
                    digest=hashlib.sha256(content).hexdigest(),
                    size=len(content),
                    position=position,
                )
            )
        return derived

    def commit(
        self, number: int = 1, destinations: tuple[str, ...] = ("pacs",), **how
    ) -> tuple[JobRecord, ...]:
        """Take one series from its first instance to its DELIVER jobs."""
        self.enqueue(number, **how)
        job = self.claim()
        deliveries = [NewDeliveryJob(name) for name in destinations]
        return self.store.jobs.commit_manifest(job, self.derive(job), deliveries)

    def names(self, *, job: int | None = None, series: int | None = None) -> list[str]:
        """The names in the trail of a job or a series, oldest first."""
        events = self.store.trail.for_job(job) if job else self.store.trail.for_series(series or 0)
        return [event.name for event in events]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'node.db'}"


@pytest.fixture(scope="session")
def postgres_template(postgres) -> str:
    """The name of a database at the head of the migrations, to be copied."""
    url = postgres.create()
    upgrade(url)
    return url.rsplit("/", 1)[1]


@pytest.fixture
def postgres_url(postgres, postgres_template: str) -> Iterator[str]:
    """A migrated database of its own."""
    url = postgres.create(postgres_template)
    yield url
    postgres.drop(url)


@pytest.fixture
def migrated_url(tmp_path: Path, make_database: Callable[[Path], str]) -> str:
    """A migrated SQLite database of its own."""
    return make_database(tmp_path / "node.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Every test of the store runs on both databases."""
    url: str = request.getfixturevalue("migrated_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database without a table."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
        return url
    server = request.getfixturevalue("postgres")
    return str(server.create())


@pytest.fixture
def store(tmp_path: Path, database_url: str, clock: HandClock) -> Iterator[Store]:
    with open_store(database_url, tmp_path / "data", now=clock) as opened:
        yield opened


@pytest.fixture
def scene(store: Store, clock: HandClock) -> Scene:
    return Scene(store, clock)


@pytest.fixture
def make_scene(clock: HandClock) -> Callable[[Store], Scene]:
    """A scene on a store that a test opened by itself."""
    return lambda store: Scene(store, clock)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 2 MiB; skipped where mounting is not allowed."""
    with small_disk_at(tmp_path / "disk", mebibytes=2) as mounted:
        if not mounted:
            pytest.skip("no small file system can be mounted here (needs root)")
        yield tmp_path / "disk"
