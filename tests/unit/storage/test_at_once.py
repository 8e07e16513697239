"""Several at once, on both databases: whoever comes second finds what the first did."""

from __future__ import annotations

import threading
from collections.abc import Callable

from storage.errors import LostClaimError
from storage.records import NewDeliveryJob
from storage.states import JobState, SeriesState


def _at_once(works: list[Callable[[], object]]) -> list[object]:
    """Run every work in a thread of its own, started together; what each returned or raised."""
    start, results = threading.Barrier(len(works)), [None] * len(works)

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = works[number]()
        except LostClaimError as lost:
            results[number] = lost

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_equal_sends_at_once_store_one_row(scene):
    drafts = [scene.draft("1.2.3.1", association=scene.associate()) for _ in range(20)]

    added = _at_once([lambda draft=draft: scene.store.index.add_instance(draft) for draft in drafts])

    assert sorted(result.outcome for result in added) == ["duplicate"] * 19 + ["stored"]


def test_first_instances_of_one_series_at_once_open_it_once(scene):
    drafts = [scene.draft(f"1.2.3.{n}", association=scene.associate()) for n in range(20)]

    _at_once([lambda draft=draft: scene.store.index.add_instance(draft) for draft in drafts])

    (series,) = scene.store.index.list_series()
    assert series.instance_count == len(scene.store.index.instances(series.id)) == 20


def test_one_uid_with_two_contents_in_two_series_at_once_is_seen_as_a_conflict(scene):
    drafts = [scene.draft("1.2.3.1", content=str(n), series=f"1.2.{n}") for n in (3, 4)]

    added = _at_once([lambda draft=draft: scene.store.index.add_instance(draft) for draft in drafts])

    assert sorted(result.outcome for result in added) == ["conflict", "stored"]


def test_workers_that_claim_at_once_get_different_jobs(scene):
    jobs = {scene.enqueue(number).id for number in range(4)}

    claimed = _at_once([lambda n=n: scene.claim(f"worker-{n}").id for n in range(4)])

    assert set(claimed) == jobs


def test_senders_that_claim_at_once_keep_the_order_of_a_destination(scene):
    (first,) = scene.commit(1)
    scene.commit(2)

    claimed = _at_once([lambda n=n: scene.claim_delivery(worker=f"sender-{n}") for n in range(4)])

    assert [job.id for job in claimed if job is not None] == [first.id]


def test_a_late_instance_and_a_manifest_commit_at_once_agree_on_who_was_first(scene):
    scene.enqueue()
    job = scene.claim()
    late, derived = scene.draft("1.2.3.1.9", series="1.2.3.1"), scene.derive(job)

    _, committed = _at_once(
        [
            lambda: scene.store.index.add_instance(late),
            lambda: scene.store.jobs.commit_manifest(job, derived, [NewDeliveryJob("pacs")]),
        ]
    )

    state = scene.store.jobs.get(job.id).state
    assert scene.store.index.get_series("1.2.3.1").state is SeriesState.RECEIVING
    if isinstance(committed, LostClaimError):
        assert (state, scene.store.index.derived(job.id)) == (JobState.CANCELED, [])
    else:
        assert (state, len(scene.store.index.derived(job.id))) == (JobState.SUCCEEDED, 2)
