"""A store with a whole line's events in it, and the schema of PS3.15."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree

from config.settings import Settings
from storage.delivery_records import NewAnswer
from storage.records import NewDeliveryJob, NewDerived, NewInstance, NewJob
from storage.states import DeliveryState, JobKind
from storage.store import Store, open_store

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
LEASE = timedelta(seconds=60)


@pytest.fixture
def store(tmp_path: Path, make_database: Callable[[Path], str]) -> Iterator[Store]:
    with open_store(make_database(tmp_path / "node.db"), tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate(
        {
            "peers": [{"name": "pacs", "ae_title": "PACS", "host": "192.0.2.9", "port": 104}],
            "routes": [{"name": "all", "when": "always", "send_to": ["pacs"]}],
            "audit": {"source_id": "enhance-1", "enterprise_site": "Radiology"},
        }
    )


def receive(store: Store, count: int = 3, *, study: str = "1.2", ending: str = "released") -> int:
    """An association that stores a series of `count` slices; returns the number of the series."""
    association = store.index.open_association("SCANNER", "ENHANCE", "192.0.2.1", "run-1")
    series = 0
    for number in range(count):
        staged = store.spool.write(b"header", [f"{study} {number}".encode()])
        added = store.index.add_instance(
            NewInstance(
                study_uid=study,
                series_uid=f"{study}.7",
                modality="CT",
                sop_class=CT_IMAGE,
                sop_instance=f"{study}.7.{number}",
                transfer_syntax=EXPLICIT_LITTLE_ENDIAN,
                digest=staged.digest,
                path=store.spool.commit(staged),
                size=staged.size,
                association_id=association,
                calling_ae="SCANNER",
                called_ae="ENHANCE",
            )
        )
        series = added.series.id
    store.index.close_association(association, ending)
    return series


def enhance_and_deliver(store: Store, series: int) -> None:
    """Close the series, derive two instances, deliver them at the second try."""
    revision = store.index.get_series(series).revision
    assert store.index.close_series(series, revision, event="close", job=NewJob(f"key-{series}"))
    job = store.jobs.claim(JobKind.ENHANCE, "worker", LEASE)
    assert job is not None
    folder, derived = store.spool.derived_dir(job.id, job.token), []
    for position in range(2):
        path, content = folder / str(position), f"{job.id} {position}".encode()
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
    store.jobs.commit_manifest(job, derived, [NewDeliveryJob("pacs")])
    first = store.jobs.claim(JobKind.DELIVER, "sender", LEASE, destination="pacs")
    assert first is not None
    store.jobs.fail(first, reason="PEER_BUSY", message="", retry_at=first.created_at)
    again = store.jobs.claim(JobKind.DELIVER, "sender", LEASE, destination="pacs")
    assert again is not None
    for delivery, _ in store.deliveries.for_job(again.id):
        store.deliveries.record(again, [NewAnswer(delivery.id, DeliveryState.DELIVERED, 0)])
    store.jobs.succeed(again, {})


@pytest.fixture
def line(store: Store) -> Callable[[], int]:
    """Take one series through the whole line; returns its number."""

    def run() -> int:
        series = receive(store)
        enhance_and_deliver(store, series)
        return series

    return run


@pytest.fixture
def receive_series(store: Store) -> Callable[..., int]:
    """Receive one series and no more."""
    return lambda count=3, **how: receive(store, count, **how)


@pytest.fixture(scope="session")
def faults_of() -> Callable[[str], list[str]]:
    """What the schema has against a message; none when it is valid."""
    schema = etree.RelaxNG(file=str(Path(__file__).with_name("audit_message.rng")))

    def check(message: str) -> list[str]:
        schema.validate(etree.fromstring(message))
        return [str(error.message) for error in schema.error_log]

    return check
