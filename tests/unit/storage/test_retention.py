"""Deleting: only what every destination has, tombstone first, whatever happens in between."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import integers, sampled_from
from sqlalchemy import select

from storage.delivery_records import NewAnswer
from storage.errors import IllegalTransitionError
from storage.records import NewDeliveryJob
from storage.retention import Ages
from storage.states import DeliveryState, JobKind, JobState, SeriesState
from storage.store import open_store
from storage.tables import DeliveryRow, DerivedRow, InstanceRow, JobRow, TombstoneRow

WEEK = Ages(delivered=timedelta(days=7))


def deliver(scene, *, ask_to_keep: bool = False, destination: str = "pacs"):
    """Send everything that waits for a destination, with success."""
    job = scene.claim_delivery(destination)
    for row, _ in scene.store.deliveries.for_job(job.id, only_pending=True):
        answer = NewAnswer(row.id, DeliveryState.DELIVERED, 0, ask_to_keep=ask_to_keep)
        scene.store.deliveries.record(job, [answer])
    return scene.store.jobs.succeed(job)


def finished(scene, number: int = 1, **how):
    """A series that is delivered, and old."""
    scene.commit(number, **how)
    deliver(scene)
    scene.clock.move(days=8)
    return scene.store.index.get_series(f"1.2.3.{number}")


def files(scene) -> int:
    root = scene.store.spool.directory
    return sum(1 for tree in ("incoming", "derived") for path in (root / tree).rglob("*") if path.is_file())


def test_what_is_delivered_and_old_is_deleted_with_its_derived_files(scene):
    series = finished(scene)
    assert files(scene) == 3

    (done,) = scene.store.retention.run(WEEK)

    assert (done.series_id, done.files) == (series.id, 3)
    assert files(scene) == 0
    after = scene.store.index.get_series(series.id)
    assert (after.state, after.purged_at) == (SeriesState.STABLE, scene.clock.at)
    assert scene.store.index.instances(series.id) == []
    assert scene.names(series=series.id)[-1] == "series.purged"


def test_a_plan_deletes_nothing(scene):
    finished(scene)

    (planned,) = scene.store.retention.plan(WEEK)

    assert planned.files == files(scene) == 3
    assert planned.size > 0


def test_nothing_is_deleted_unless_an_age_is_given(scene):
    finished(scene)

    assert scene.store.retention.plan(Ages()) == ()


def _young(scene):
    scene.commit()
    deliver(scene)
    scene.clock.move(days=6)


def _undelivered(scene):
    scene.commit()
    scene.clock.move(days=80)


def _one_of_two_destinations(scene):
    scene.commit(destinations=("pacs", "archive"))
    deliver(scene)
    scene.clock.move(days=80)


def _not_committed(scene):
    scene.commit()
    deliver(scene, ask_to_keep=True)
    scene.clock.move(days=80)


def _not_enhanced(scene):
    scene.enqueue()
    scene.clock.move(days=80)


def _held(scene):
    scene.close(scene.add("1.1.1", series="1.1").series.id, event="hold", reason="MISSING_SLICE")
    scene.clock.move(days=80)


def _skipped(scene):
    scene.close(scene.add("1.1.1", series="1.1").series.id, event="skip", reason="NO_ROUTE")
    scene.clock.move(days=80)


def _receiving(scene):
    scene.add("1.1.1", series="1.1")
    scene.clock.move(days=80)


def _reopened(scene):
    finished(scene)
    scene.add("1.2.3.1.9", series="1.2.3.1")
    scene.clock.move(days=80)


@pytest.mark.parametrize(
    "case",
    [
        _young,
        _undelivered,
        _one_of_two_destinations,
        _not_committed,
        _not_enhanced,
        _held,
        _skipped,
        _receiving,
        _reopened,
    ],
)
def test_what_somebody_still_needs_stays(scene, case):
    case(scene)
    before = files(scene)

    assert scene.store.retention.run(WEEK) == ()

    assert files(scene) == before > 0


def test_a_skipped_series_goes_when_that_is_wanted(scene):
    _skipped(scene)

    assert len(scene.store.retention.run(Ages(skipped=timedelta(days=30)))) == 1
    assert files(scene) == 0


def test_a_plan_that_is_out_of_date_buries_nothing(scene):
    series = finished(scene)
    assert scene.store.retention.plan(WEEK)
    scene.add("1.2.3.1.9", series="1.2.3.1")

    assert scene.store.retention.bury(series.id, WEEK) == 0


def test_a_crash_after_the_tombstone_is_made_good(scene):
    series = finished(scene)
    assert scene.store.retention.bury(series.id, WEEK) == 3
    assert files(scene) == 3

    assert scene.store.retention.finish() == 3

    assert files(scene) == 0
    assert scene.store.retention.finish() == 0


def test_a_crash_after_the_unlink_is_made_good(scene):
    series = finished(scene)
    paths = [copy.path for copy in scene.store.index.instances(series.id)]
    scene.store.retention.bury(series.id, WEEK)
    for path in paths:
        path.unlink()

    assert scene.store.retention.finish() == 3


def test_an_instance_sent_again_while_its_file_waits_to_go_is_stored_anew(scene):
    series = finished(scene)
    scene.store.retention.bury(series.id, WEEK)

    again = scene.add("1.2.3.1.1", series="1.2.3.1")
    scene.store.retention.finish()

    assert again.outcome == "stored"
    assert again.instance.path.exists()
    assert (again.series.state, again.series.generation) == (SeriesState.RECEIVING, 2)


def test_a_deleted_series_is_still_known_as_ours_and_cannot_be_enhanced_again(scene):
    series = finished(scene)
    job = next(j for j in scene.store.jobs.list(series_id=series.id) if j.kind is JobKind.ENHANCE)
    uid = scene.store.index.derived(job.id)[0].series_instance_uid
    scene.store.retention.run(WEEK)

    assert scene.store.index.derived_series_known(uid)
    with pytest.raises(IllegalTransitionError, match="retention"):
        scene.store.jobs.resubmit(job.id, "alice")


def test_deletion_stops_when_there_is_enough_room(scene):
    for number in (1, 2, 3):
        scene.commit(number)
        deliver(scene)
    scene.clock.move(days=8)
    rounds = iter([False, True, True])

    done = scene.store.retention.run(WEEK, why="space", enough=lambda: next(rounds))

    assert [candidate.series_id for candidate in done] == [1]


class Life(RuleBasedStateMachine):
    """Anything that can happen to a few series, in any order."""

    make = None
    deleted: ClassVar[list[str]] = []

    @initialize()
    def begin(self):
        self.scene, self.close_store = type(self).make()
        self.uids = 0

    def teardown(self):
        if hasattr(self, "close_store"):
            self.close_store()

    @rule(series=integers(1, 2))
    def receive(self, series):
        self.uids += 1
        self.scene.add(f"1.{series}.{self.uids}", series=f"1.{series}")

    @rule(
        series=integers(1, 2),
        policy=sampled_from(["hold", "supersede", "ignore"]),
        event=sampled_from(["close", "hold", "skip"]),
    )
    def close(self, series, policy, event):
        for found in self.scene.store.index.list_series(state=SeriesState.RECEIVING):
            if found.series_instance_uid == f"1.{series}":
                key = f"{series}-{found.instance_count}"
                self.scene.close(found.id, key, event=event, late_policy=policy)

    @rule()
    def enhance(self):
        job = self.scene.store.jobs.claim(JobKind.ENHANCE, "worker", self.scene.lease)
        if job is not None:
            deliveries = [NewDeliveryJob("pacs"), NewDeliveryJob("archive")]
            self.scene.store.jobs.commit_manifest(job, self.scene.derive(job), deliveries)

    @rule(series=integers(1, 2), policy=sampled_from(["hold", "supersede", "ignore"]))
    def go_all_the_way(self, series, policy):
        """The usual life, which chance alone would seldom find."""
        self.receive(series)
        self.close(series, policy, "close")
        self.enhance()
        for destination in ("pacs", "archive"):
            self.send(destination, 2, well=True)

    @rule(
        destination=sampled_from(["pacs", "archive"]),
        answers=integers(0, 2),
        well=sampled_from([True, True, False]),
    )
    def send(self, destination, answers, well):
        store = self.scene.store
        job = self.scene.claim_delivery(destination)
        if job is None:
            return
        rows = store.deliveries.for_job(job.id, only_pending=True)
        for row, _ in rows[:answers]:
            state = DeliveryState.DELIVERED if well else DeliveryState.REFUSED
            store.deliveries.record(job, [NewAnswer(row.id, state, 0)])
        if (
            well
            and answers >= len(rows)
            and all(row.state is DeliveryState.DELIVERED for row, _ in store.deliveries.for_job(job.id))
        ):
            store.jobs.succeed(job)
        else:
            store.jobs.fail(job, reason="X", message="", retry_at=self.scene.clock.at if well else None)

    @rule(number=integers(1, 8), verb=sampled_from(["cancel", "resubmit"]))
    def operate(self, number, verb):
        jobs = {job.id: job for job in self.scene.store.jobs.list()}
        if number in jobs:
            try:
                getattr(self.scene.store.jobs, verb)(number, "alice")
            except IllegalTransitionError:
                return

    @rule(days=integers(1, 10))
    def wait(self, days):
        self.scene.clock.move(days=days)

    @rule(finish=sampled_from([True, False]))
    def delete(self, finish):
        store = self.scene.store
        for candidate in store.retention.plan(Ages(delivered=timedelta(days=2), skipped=timedelta(days=2))):
            ages = Ages(timedelta(days=2), timedelta(days=2))
            assert store.retention.bury(candidate.series_id, ages)
            type(self).deleted.append(candidate.state)
        if finish:
            store.retention.finish()

    @precondition(lambda self: hasattr(self, "scene"))
    @invariant()
    def nothing_is_deleted_that_somebody_lacks(self):
        root = self.scene.store.spool.directory
        with self.scene.store._database.reading() as session:
            for row in session.scalars(select(InstanceRow)):
                assert (root / row.path).exists()
            for row in session.scalars(select(DerivedRow).where(DerivedRow.purged_at.is_(None))):
                assert (root / row.path).exists()
            buried = {row.path for row in session.scalars(select(TombstoneRow).where(TombstoneRow.derived))}
            lacking = (
                select(DerivedRow.path)
                .join(DeliveryRow, DeliveryRow.derived_id == DerivedRow.id)
                .join(JobRow, JobRow.id == DeliveryRow.job_id)
                .where(
                    DeliveryRow.state != DeliveryState.DELIVERED,
                    ~((JobRow.state == JobState.CANCELED) & (JobRow.reason == "SUPERSEDED")),
                )
            )
            assert not buried & set(session.scalars(lacking))


@pytest.fixture
def life(tmp_path, make_scene, clock):
    """The state machine on stores of its own."""
    numbers = iter(range(10**6))

    def make():
        home = tmp_path / str(next(numbers))
        home.mkdir()
        store = open_store(f"sqlite:///{home / 'node.db'}", home / "data", now=clock)
        return make_scene(store), store.close

    return type("OfThisTest", (Life,), {"make": staticmethod(make), "deleted": []})


def test_no_reachable_state_has_something_deleted_that_is_not_delivered(life):
    case = life.TestCase
    case.settings = settings(
        max_examples=10, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()


def test_the_machine_of_lives_can_reach_a_deletion(life):
    """Chance alone may never delete anything; without this walk the test above could pass in vain."""
    walk = life()
    walk.begin()
    try:
        walk.go_all_the_way(1, "hold")
        walk.delete(finish=True)
        assert life.deleted == []
        walk.wait(10)
        walk.delete(finish=True)
        walk.nothing_is_deleted_that_somebody_lacks()
    finally:
        walk.teardown()

    assert life.deleted == ["STABLE"]
