"""Lists: filtered, page by page, in a steady order, and answered from an index."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import insert, text

from storage.filters import DeliveryFilter, EventFilter, JobFilter, SeriesFilter
from storage.listing import LARGEST_PAGE, job_clauses, series_clauses
from storage.searching import Searching, jobs_looked_up, series_looked_up
from storage.states import DeliveryState, JobKind, JobState, SeriesState
from storage.tables import SeriesRow


def _every_page(ask, **how) -> list[int]:
    """The numbers of all rows, page by page."""
    found, cursor = [], None
    while True:
        page = ask(after=cursor, **how)
        found += [item.id for item in page.items]
        cursor = page.cursor
        if cursor is None:
            return found


def test_pages_hold_every_row_once_and_newest_first(scene):
    for number in range(7):
        scene.add(f"1.{number}.1", series=f"1.{number}")

    assert _every_page(scene.store.listing.series, limit=3) == [7, 6, 5, 4, 3, 2, 1]
    assert _every_page(scene.store.listing.series, limit=3, order="oldest") == [1, 2, 3, 4, 5, 6, 7]


def test_a_row_that_arrives_meanwhile_shifts_no_page(scene):
    for number in range(4):
        scene.add(f"1.{number}.1", series=f"1.{number}")
    first = scene.store.listing.series(limit=2)
    scene.add("1.9.1", series="1.9")

    second = scene.store.listing.series(limit=2, after=first.cursor)

    assert [item.id for item in first.items + second.items] == [4, 3, 2, 1]


def test_a_full_last_page_says_that_it_is_the_last(scene):
    scene.add("1.1.1", series="1.1")

    page = scene.store.listing.series(limit=1)

    assert (len(page.items), page.cursor) == (1, None)


@pytest.mark.parametrize("limit", [-5, 0, 1, 10**9])
def test_any_limit_is_held_within_bounds(scene, limit):
    scene.add("1.1.1", series="1.1")

    assert len(scene.store.listing.series(limit=limit).items) == 1 <= LARGEST_PAGE


@pytest.mark.parametrize("cursor", [-1, 0, 2**70])
def test_any_cursor_is_answered(scene, cursor):
    scene.add("1.1.1", series="1.1")

    assert len(scene.store.listing.series(after=cursor).items) in (0, 1)


def test_series_are_found_by_each_filter(scene):
    first = scene.add("1.1.1", series="1.77.1").series
    scene.close(first.id, event="hold", reason="MISSING_SLICE")
    scene.clock.move(hours=1)
    second = scene.add("1.2.1", series="1.88.1").series
    at = scene.clock.at
    asked = {
        SeriesFilter(states=(SeriesState.HELD,)): [first.id],
        SeriesFilter(states=(SeriesState.HELD, SeriesState.RECEIVING)): [second.id, first.id],
        SeriesFilter(modalities=("CT",), reasons=("MISSING_SLICE",)): [first.id],
        SeriesFilter(modalities=("MR",)): [],
        SeriesFilter(calling_ae="SCANNER", called_ae="ENHANCE", interrupted=False): [second.id, first.id],
        SeriesFilter(received_from=at): [second.id],
        SeriesFilter(received_before=at, received_from=at - timedelta(days=1)): [first.id],
        SeriesFilter(text="1.77"): [first.id],
        SeriesFilter(text="SCAN"): [second.id, first.id],
        SeriesFilter(text=str(second.id)): [second.id, first.id] if second.id == 1 else [second.id],
        SeriesFilter(study_instance_uid="1.2", text="1.88"): [second.id],
    }

    for wanted, expected in asked.items():
        assert [item.id for item in scene.store.listing.series(wanted).items] == expected, wanted


@pytest.mark.parametrize("typed", ["%", "_", "'", "1.77%", "\x00", "\\", "1.77.1\U0010ffff", "a" * 5000])
def test_no_character_of_a_search_has_a_meaning_of_its_own(scene, typed):
    scene.add("1.1.1", series="1.77.1")

    assert scene.store.listing.series(SeriesFilter(text=typed)).items in ((), ()) or typed == "\x00"


def test_jobs_are_found_by_each_filter(scene):
    (delivery,) = scene.commit(1)
    enhance = scene.store.jobs.get(delivery.parent_id)
    waiting = scene.enqueue(2)
    asked = {
        JobFilter(kinds=(JobKind.DELIVER,)): [delivery.id],
        JobFilter(states=(JobState.SUCCEEDED,)): [enhance.id],
        JobFilter(series_id=waiting.series_id): [waiting.id],
        JobFilter(parent_id=enhance.id): [delivery.id],
        JobFilter(destination="pacs"): [delivery.id],
        JobFilter(modalities=("CT",), calling_ae="SCANNER"): [waiting.id, delivery.id, enhance.id],
        JobFilter(modalities=("MR",)): [],
        JobFilter(text="1.2.3.2"): [waiting.id],
        JobFilter(text="key-2"): [waiting.id],
        JobFilter(text="pac"): [delivery.id],
        JobFilter(created_from=scene.clock.at, kinds=(JobKind.ENHANCE,)): [waiting.id, enhance.id],
        JobFilter(created_before=scene.clock.at): [],
    }

    for wanted, expected in asked.items():
        assert [item.id for item in scene.store.listing.jobs(wanted).items] == expected, wanted


def test_deliveries_and_events_are_found_by_each_filter(scene):
    (job,) = scene.commit(1)
    listing = scene.store.listing

    assert len(listing.deliveries(DeliveryFilter(states=(DeliveryState.PENDING,))).items) == 2
    assert len(listing.deliveries(DeliveryFilter(destination="pacs", job_id=job.id)).items) == 2
    assert len(listing.deliveries(DeliveryFilter(series_id=job.series_id)).items) == 2
    assert listing.deliveries(DeliveryFilter(series_id=999)).items == ()
    assert len(listing.deliveries(DeliveryFilter(text="2.25.1.1")).items) == 1
    assert {e.name for e in listing.events(EventFilter(name="job.")).items} >= {"job.claimed", "job.enqueued"}
    assert {e.name for e in listing.events(EventFilter(name="job.claimed")).items} == {"job.claimed"}
    assert listing.events(EventFilter(series_id=job.series_id, at_before=scene.clock.at)).items == ()


def test_a_follower_reads_only_what_was_added_since(scene):
    scene.add("1.1.1", series="1.1")
    seen = scene.store.listing.latest_event_id()
    scene.store.trail.append("process.started")

    page = scene.store.listing.events(after=seen, order="oldest")

    assert [event.name for event in page.items] == ["process.started"]


def test_the_counts_say_how_many_stand_where(scene):
    scene.commit(1)
    scene.enqueue(2)

    counts = scene.store.listing.counts()

    assert counts.series == {"STABLE": 2}
    assert counts.jobs == {("ENHANCE", "PENDING"): 1, ("ENHANCE", "SUCCEEDED"): 1, ("DELIVER", "PENDING"): 1}
    assert counts.deliveries == {("pacs", "PENDING"): 2}


def test_instances_of_a_series_come_in_the_order_of_arrival(scene):
    for number in range(5):
        added = scene.add(f"1.1.{number}", series="1.1")

    page = scene.store.listing.instances(added.series.id, limit=2)

    assert [item.sop_instance_uid for item in page.items] == ["1.1.0", "1.1.1"]
    assert len(_every_page(lambda **how: scene.store.listing.instances(added.series.id, **how), limit=2)) == 5


def test_series_of_a_page_of_jobs_are_read_at_once(scene):
    ids = [scene.enqueue(number).series_id for number in (1, 2)]

    assert set(scene.store.listing.series_by_id([*ids, ids[0], 999])) == set(ids)


SERIES_PLANS = [
    (SeriesFilter(states=(SeriesState.HELD,)), "ix_series_state"),
    (SeriesFilter(modalities=("MR",)), "ix_series_modality"),
    (SeriesFilter(text="2.25.77"), "ix_series_uid_prefix"),
    (SeriesFilter(text="2.25.77"), "ix_series_study_prefix"),
    # Both begin with the sender.
    (SeriesFilter(text="2.25.77"), "ix_series_calling_prefix|ix_series_figures"),
]
JOB_PLANS = [
    (JobFilter(states=(JobState.FAILED,)), "ix_jobs_state"),
    (JobFilter(destination="pacs", states=(JobState.FAILED,)), "ix_jobs_destination"),
    (JobFilter(text="2.25.77"), "ix_jobs_key_prefix"),
]


@pytest.mark.parametrize(("wanted", "index"), SERIES_PLANS + JOB_PLANS)
def test_a_list_is_answered_from_an_index(scene, wanted, index):
    database = scene.store._database
    if isinstance(wanted, SeriesFilter):
        search = partial(series_looked_up, dialect=database.dialect)
        table, clauses = "series", series_clauses(wanted, search)
    else:
        search = partial(jobs_looked_up, dialect=database.dialect)
        table, clauses = "jobs", job_clauses(wanted, search)
    with database.writing() as session:
        if database.dialect == "postgresql":
            session.execute(text("SET LOCAL enable_seqscan = off"))
            session.execute(text("SET LOCAL enable_indexscan = off"))
        where = " AND ".join(
            str(clause.compile(session.get_bind(), compile_kwargs={"literal_binds": True}))
            for clause in clauses
        )
        explain = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
        plan = (
            session.connection()
            .exec_driver_sql(
                f"{explain} SELECT * FROM {table} WHERE {where} ORDER BY {table}.id DESC LIMIT 51"
            )
            .all()
        )

    assert any(name in str(plan) for name in index.split("|"))


def _copied(scene, count: int) -> str:
    """Write that many series with UIDs of one beginning, which is returned."""
    added = scene.add("1.1.1", series="1.1").series
    with scene.store._database.writing() as session:
        row = session.get(SeriesRow, added.id)
        plain = {c.name: getattr(row, c.name) for c in SeriesRow.__table__.columns if c.name != "id"}
        session.execute(
            insert(SeriesRow), [{**plain, "series_instance_uid": f"1.5.{n}"} for n in range(count)]
        )
    return "1.5."


def test_a_long_list_is_read_from_its_end(scene):
    page = scene.store.listing.series(SeriesFilter(text=_copied(scene, 3000)), limit=10)

    assert [item.series_instance_uid for item in page.items] == [f"1.5.{n}" for n in range(2999, 2989, -1)]


TYPED = [
    "1.2",
    "1.2.3.1",
    "SCAN",
    "key-",
    "pacs",
    "%",
    "_ey",
    "\\",
    "zzz",
    "KEY",
    "2",
    "1.2.3.2\x00",
    "a" * 300,
]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_list_that_is_walked_holds_what_one_that_is_looked_up_holds(scene, monkeypatch, order):
    scene.commit(1)
    scene.enqueue(2)
    scene.enqueue(3)
    listing = scene.store.listing

    def asked() -> list[list[int]]:
        found = []
        for typed in TYPED:
            found += [
                _every_page(partial(listing.jobs, JobFilter(text=typed)), limit=2, order=order),
                _every_page(partial(listing.series, SeriesFilter(text=typed)), limit=2, order=order),
                _every_page(partial(listing.deliveries, DeliveryFilter(text=typed)), limit=1, order=order),
                _every_page(partial(listing.events, EventFilter(name=f"{typed}.")), limit=2, order=order),
            ]
        return found

    looked_up = asked()
    monkeypatch.setattr("storage.searching.FEW", 0)
    walked = asked()

    assert sum(map(len, looked_up)) > 10
    assert walked == looked_up


def test_a_list_is_walked_only_when_many_rows_match(scene, monkeypatch):
    monkeypatch.setattr("storage.searching.FEW", 50)
    template = _copied(scene, 51)
    with scene.store._database.reading() as session:
        searching = Searching(session, scene.store._database.dialect)

        assert "substr" in str(searching.series(template))
        assert "substr" not in str(searching.series(f"{template}4"))
