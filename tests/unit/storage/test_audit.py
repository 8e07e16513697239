"""The audit chain: no number twice, none missing, no change unseen; on SQLite here, on PostgreSQL beside it."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text

from storage.audit_chain import GENESIS, NewAuditRecord, link, walk
from storage.store import open_store

NAMES = {"told"}


def tell(store, count: int) -> None:
    for number in range(count):
        store.trail.append("told", data={"n": number})
        store.trail.append("untold")


def drafts_of(found):
    return [NewAuditRecord(e.id, e.at, "110100", 0, f"<m n='{e.data['n']}'/>") for e in found.events]


def record_all(store) -> int:
    added = 0
    while True:
        found = store.audit.unrecorded(NAMES, limit=3)
        if not found.events:
            return added
        if store.audit.record(found, drafts_of(found)):
            added += len(found.events)


def test_events_are_recorded_once_in_their_order(store):
    tell(store, 7)

    assert (record_all(store), record_all(store)) == (7, 0)

    records = store.audit.list()[::-1]
    assert [record.seq for record in records] == list(range(1, 8))
    assert [record.message for record in records] == [f"<m n='{n}'/>" for n in range(7)]
    report = store.audit.verify()
    assert (report.fault, report.records, report.head_seq) == (None, 7, 7)


def test_who_was_overtaken_writes_nothing(store):
    tell(store, 2)
    late, early = store.audit.unrecorded(NAMES), store.audit.unrecorded(NAMES)

    assert store.audit.record(early, drafts_of(early))
    assert not store.audit.record(late, drafts_of(late))
    assert store.audit.verify().records == 2


def test_recorders_at_once_share_the_work(store):
    tell(store, 30)
    added: list[int] = []
    threads = [threading.Thread(target=lambda: added.append(record_all(store))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    report = store.audit.verify()
    assert (sum(added), report.records, report.fault) == (30, 30, None)
    assert len({record.event_id for record in store.audit.list()}) == 30


def test_sent_marks_only_move_on(store):
    tell(store, 4)
    record_all(store)

    store.audit.mark_sent(3)
    store.audit.mark_sent(2)

    assert [record.seq for record in store.audit.unsent()] == [4]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE audit_records SET message = '<m/>' WHERE seq = 3", (3, "content")),
        ("UPDATE audit_records SET outcome = 8 WHERE seq = 3", (3, "content")),
        ("UPDATE audit_records SET at = '2030-01-01 00:00:00.000000' WHERE seq = 3", (3, "content")),
        ("UPDATE audit_records SET event_id = 99 WHERE seq = 3", (3, "content")),
        ("DELETE FROM audit_records WHERE seq = 3", (3, "record 3 is missing")),
        ("DELETE FROM audit_records WHERE seq >= 4", (4, "missing at the end")),
        ("DELETE FROM audit_records", (1, "missing at the end")),
        ("UPDATE audit_records SET previous = digest WHERE seq = 3", (3, "does not follow")),
    ],
)
def test_a_change_behind_the_stores_back_is_found_where_it_is(store, database_url, change, fault):
    tell(store, 5)
    record_all(store)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text(change))
    engine.dispose()

    report = store.audit.verify()

    assert report.fault_seq == fault[0]
    assert fault[1] in report.fault


def test_a_chain_written_anew_is_told_by_a_digest_that_was_noted(store):
    tell(store, 3)
    record_all(store)
    honest = store.audit.list()[::-1]
    noted = (honest[1].seq, honest[1].digest)
    forged, digest = [], GENESIS
    for record in honest:
        draft = NewAuditRecord(record.event_id, record.at, record.kind, record.outcome, "<other/>")
        forged.append(link(draft, seq=record.seq, previous=digest))
        digest = forged[-1].digest

    assert walk(forged, head_seq=3, head_digest=digest).fault is None
    assert walk(forged, head_seq=3, head_digest=digest, noted=noted).fault_seq == 2
    assert walk(honest, head_seq=3, head_digest=honest[-1].digest, noted=noted).fault is None
    shortened = walk(honest[:1], head_seq=1, head_digest=honest[0].digest, noted=noted)
    assert (shortened.fault_seq, shortened.fault) == (2, "the chain ends before the noted record")


def test_the_digest_covers_every_field():
    record = link(NewAuditRecord(1, _at(), "110100", 0, "<m/>"), seq=1, previous=GENESIS)

    for field, other in (("kind", "110101"), ("outcome", 4), ("event_id", 2), ("message", "<n/>")):
        changed = replace(record, **{field: other})
        assert walk([changed], head_seq=1, head_digest=record.digest).fault_seq == 1


def test_an_event_that_appears_behind_later_ones_is_recorded_all_the_same(tmp_path, postgres_url):
    with open_store(postgres_url, tmp_path / "data") as store:
        engine = create_engine(postgres_url)
        with engine.connect() as late:  # takes its number now and shows itself when all others are recorded
            late.execute(text("INSERT INTO events (at, name, data) VALUES (now(), 'told', '{\"n\": 0}')"))
            tell(store, 8)
            assert record_all(store) == 8
            late.commit()
        engine.dispose()

        assert (record_all(store), record_all(store)) == (1, 0)
        report = store.audit.verify()
        assert (report.records, report.fault) == (9, None)
        assert len({record.event_id for record in store.audit.list()}) == 9


def _at() -> datetime:
    return datetime(2031, 5, 6, tzinfo=UTC)
