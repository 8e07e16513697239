"""By what a series counts as complete: interrupted senders, counts of the source, late instances, equal contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt

from dicom_node.errors import AssociationRejectedError
from dicom_node.intake.content import content_digests
from dicom_node.network.count import FIND, count_instances
from storage.records import NewDeliveryJob
from storage.safekeeping_records import NewKeepRequest
from storage.states import JobKind, SeriesState


def sweep_after(sweeper, clock, seconds: float) -> None:
    sweeper.sweep()
    clock.advance(seconds)
    sweeper.sweep()


def wait_in_vain(sweeper, clock):
    """The series is quiet, and what is missing does not come for as long as it is waited for."""
    sweep_after(sweeper, clock, 31)
    clock.advance(301)
    sweeper.sweep()


@pytest.fixture
def source(make_settings) -> Iterator[Callable[..., dict]]:
    """Start a peer that answers C-FIND; `count` None makes it know images only, 0 nothing at all."""
    servers = []

    def start(count: int | None, *, images: int = 0) -> dict:
        def answer(event: evt.Event):
            series_level = event.identifier.QueryRetrieveLevel == "SERIES"
            for number in range(images if not series_level else int(count != 0)):
                match = Dataset()
                match.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
                if series_level and count is not None:
                    match.NumberOfSeriesRelatedInstances = count
                if not series_level:
                    match.SOPInstanceUID = f"1.2.{number}"
                yield 0xFF00, match
            yield 0x0000, None

        entity = AE(ae_title="PACS")
        entity.add_supported_context(FIND)
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])
        servers.append(server)
        return {
            "name": "pacs",
            "ae_title": "PACS",
            "host": "127.0.0.1",
            "port": server.socket.getsockname()[1],
        }

    yield start
    for server in servers:
        server.shutdown()


ROUTE = {"name": "all", "send_to": ["pacs"], "count_from": "pacs"}


@pytest.mark.parametrize("ending", ["aborted", "lost"])
def test_an_interrupted_series_is_never_closed_on_time_and_geometry_alone(
    store, deliver, write_series, make_sweeper, clock, ending
):
    number = deliver(write_series(), ending=ending)
    sweeper = make_sweeper()

    sweep_after(sweeper, clock, 299)
    early = store.index.get_series(number).state
    clock.advance(2)
    sweeper.sweep()

    assert early is SeriesState.RECEIVING
    series = store.index.get_series(number)
    assert (series.state, series.reason) == (SeriesState.HELD, "INTERRUPTED")


def test_an_interrupted_series_goes_on_by_itself_when_it_is_sent_again(
    store, deliver, write_series, make_sweeper, clock
):
    paths = write_series()
    number = deliver(paths[:7], ending="aborted")
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 301)

    deliver(paths)
    sweep_after(sweeper, clock, 31)

    assert store.index.get_series(number).state is SeriesState.STABLE
    assert len(store.jobs.list()) == 1


def test_an_interrupted_series_whose_last_association_was_whole_again_goes_on_too(
    store, deliver, write_series, make_sweeper, clock
):
    paths = write_series()
    number = deliver(paths, ending="aborted")
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 301)

    deliver(paths)
    sweep_after(sweeper, clock, 31)

    assert store.index.get_series(number).state is SeriesState.STABLE


def test_a_count_by_the_source_closes_an_interrupted_series(
    store, deliver, write_series, make_sweeper, clock, source
):
    number = deliver(write_series(), ending="aborted")

    sweep_after(make_sweeper(ROUTE, peers=[source(12)]), clock, 301)

    series = store.index.get_series(number)
    assert (series.state, series.completeness) == (SeriesState.STABLE, "query")
    assert series.evidence["source_count"] == 12


def test_geometry_is_shown_where_nothing_better_is_known(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series())

    sweep_after(make_sweeper(), clock, 31)

    assert store.index.get_series(number).completeness == "geometry"


def test_slices_missing_at_the_end_are_seen_by_the_count_of_the_source(
    store, deliver, write_series, make_sweeper, clock, source
):
    number = deliver(write_series()[:10])
    sweeper = make_sweeper(ROUTE, peers=[source(12)])

    sweep_after(sweeper, clock, 31)
    waiting = store.index.get_series(number).state
    for _ in range(11):
        clock.advance(30)
        sweeper.sweep()

    series = store.index.get_series(number)
    assert waiting is SeriesState.RECEIVING
    assert (series.state, series.reason) == (SeriesState.HELD, "MISSING_SLICE")
    assert "10 of 12" in series.message


@pytest.mark.parametrize("needed", ["geometry", "query"])
def test_a_source_that_is_away_delays_and_then_counts_as_silent(
    store, deliver, write_series, make_sweeper, clock, needed
):
    number = deliver(write_series())
    peers = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}]
    sweeper = make_sweeper({**ROUTE, "completeness": needed}, peers=peers)

    for _ in range(13):
        sweeper.sweep()
        clock.advance(30)

    series = store.index.get_series(number)
    if needed == "geometry":
        assert (series.state, series.completeness) == (SeriesState.STABLE, "geometry")
        assert series.evidence["source_problem"] == "PeerUnreachableError"
    else:
        assert (series.state, series.reason) == (SeriesState.HELD, "UNPROVEN")


@pytest.mark.parametrize(
    ("count", "images", "told"), [(9, 0, 9), (None, 7, 7), (None, 0, None), (0, 0, None)]
)
def test_a_source_is_asked_for_its_count_and_else_for_its_images(make_settings, source, count, images, told):
    peer = make_settings(peers=[source(count, images=images)]).peer("pacs")

    assert count_instances(peer, "1.2", "1.2.3") == told


def test_a_source_without_query_service_is_a_peer_error(make_settings):
    entity = AE(ae_title="PACS")
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False)
    port = server.socket.getsockname()[1]
    peer = make_settings(peers=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}])

    with pytest.raises(AssociationRejectedError):
        count_instances(peer.peer("pacs"), "1.2", "1.2.3")
    server.shutdown()


def _commit_the_job(store, tmp_path: Path) -> None:
    """Let the derived series exist, without an image in it."""
    job = store.jobs.claim(JobKind.ENHANCE, "worker", timedelta(seconds=60))
    store.jobs.commit_manifest(job, [], [NewDeliveryJob("pacs")])


@pytest.mark.parametrize(("policy", "state"), [("hold", SeriesState.HELD), ("supersede", SeriesState.STABLE)])
def test_a_late_instance_is_held_or_enhanced_again_as_the_route_says(
    store, deliver, write_series, make_sweeper, clock, tmp_path, policy, state
):
    paths = write_series()
    number = deliver(paths[:11])
    sweeper = make_sweeper({"name": "all", "send_to": ["pacs"], "late_instances": policy})
    sweep_after(sweeper, clock, 31)
    _commit_the_job(store, tmp_path)

    deliver(paths[11:])
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.generation) == (state, 2)
    assert series.reason == ("LATE_INSTANCE" if policy == "hold" else None)


def test_a_late_instance_that_is_ignored_is_no_part_of_a_later_look_unless_taken_in(
    store, deliver, write_series, make_sweeper, clock, tmp_path
):
    paths = write_series()
    number = deliver(paths[:11])
    sweeper = make_sweeper(completion={"late_instances": "ignore"})
    sweep_after(sweeper, clock, 31)
    _commit_the_job(store, tmp_path)

    deliver(paths[11:])
    sweep_after(sweeper, clock, 31)
    ignored = store.index.get_series(number)
    store.index.reopen_series(number, "alice")
    sweep_after(sweeper, clock, 31)

    assert (ignored.state, ignored.generation) == (SeriesState.STABLE, 1)
    assert [len(job.spec["source"]) for job in store.jobs.list() if job.spec] == [12, 11]


def _rewritten(path: Path, target: Path, change: Callable[[Dataset], None]) -> Path:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(target, enforce_file_format=True)
    return target


def _implicit(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _compressed(dataset: Dataset) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)


def _other_pixels(dataset: Dataset) -> None:
    dataset.PixelData = bytes(2) + dataset.PixelData[2:]


def _other_tag(dataset: Dataset) -> None:
    dataset.WindowWidth = "123"


@pytest.mark.parametrize(
    ("change", "same"), [(_implicit, True), (_compressed, True), (_other_pixels, False), (_other_tag, False)]
)
def test_the_meaning_of_an_object_does_not_depend_on_its_encoding(write_series, tmp_path, change, same):
    path = write_series()[3]
    other = _rewritten(path, tmp_path / "other.dcm", change)
    if change is _other_pixels:
        assert dcmread(path).PixelData[:2] != bytes(2)

    first, second = content_digests([path, other])

    assert first is not None
    assert second is not None
    assert (first == second) is same


def test_an_object_that_cannot_be_read_has_no_meaning_and_harms_no_other(write_series, tmp_path):
    path, broken = write_series()[3], tmp_path / "broken.dcm"
    broken.write_bytes(path.read_bytes()[:5000])

    first, nothing, third = content_digests([path, broken, path])

    assert nothing is None
    assert first == third


def test_a_series_sent_again_without_loss_in_another_encoding_is_no_conflict(
    store, deliver, write_series, make_sweeper, clock, tmp_path
):
    paths = write_series()
    number = deliver(paths)
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 31)
    deliver([_rewritten(paths[3], tmp_path / "rle.dcm", _compressed)])

    sweep_after(sweeper, clock, 31)
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.instance_count) == (SeriesState.STABLE, 13)
    assert [(job.generation, job.state) for job in store.jobs.list()] == [(2, "PENDING")]


# --- what the sender lists when it asks us to keep its images

ASKER = {"name": "pacs", "ae_title": "SCANNER", "host": "127.0.0.1", "port": 1, "safekeeping": {}}


def list_sent(store, paths: list[Path], transaction: str = "2.25.1") -> None:
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    pairs = tuple((str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in headers)
    request = NewKeepRequest(transaction, "SCANNER", "ENHANCE", pairs)
    assert store.safekeeping.take(request, most_open=9) == "taken"


@pytest.mark.parametrize("ending", ["released", "aborted"])
def test_the_list_of_the_sender_is_the_strongest_proof(
    store, deliver, write_series, make_sweeper, clock, ending
):
    paths = write_series()
    number = deliver(paths, ending=ending)
    list_sent(store, paths)

    sweep_after(make_sweeper(peers=[ASKER]), clock, 301)

    series = store.index.get_series(number)
    assert (series.state, series.completeness) == (SeriesState.STABLE, "commitment")
    assert (series.evidence["listed"], series.evidence["listed_missing"]) == (12, 0)


def test_slices_missing_at_the_end_are_named_by_the_list_and_the_series_goes_on_when_they_come(
    store, deliver, write_series, make_sweeper, clock
):
    paths = write_series()
    number = deliver(paths[:10])
    list_sent(store, paths)
    sweeper = make_sweeper(peers=[ASKER])

    sweep_after(sweeper, clock, 31)
    waiting = store.index.get_series(number).state
    clock.advance(301)
    sweeper.sweep()

    held = store.index.get_series(number)
    assert waiting is SeriesState.RECEIVING
    assert (held.state, held.reason) == (SeriesState.HELD, "LISTED_MISSING")
    assert "2 of 12" in held.message
    left = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths[10:]}
    assert set(held.evidence["missing_sop_instance_uids"]) == left

    deliver(paths[10:])
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.completeness) == (SeriesState.STABLE, "commitment")


def test_a_hole_that_the_list_explains_is_told_by_the_list(store, deliver, write_series, make_sweeper, clock):
    paths = write_series()
    number = deliver(paths[:5] + paths[6:])
    list_sent(store, paths)
    sweeper = make_sweeper(peers=[ASKER])

    wait_in_vain(sweeper, clock)

    assert "1 of 12" in store.index.get_series(number).message


def test_a_person_may_let_a_series_pass_although_the_list_names_more(
    store, deliver, write_series, make_sweeper, clock
):
    paths = write_series()
    number = deliver(paths[:10])
    list_sent(store, paths)
    sweeper = make_sweeper(peers=[ASKER])
    wait_in_vain(sweeper, clock)

    store.index.release_series(number, "operator")
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.completeness) == (SeriesState.STABLE, "geometry")


def test_a_route_that_wants_the_list_waits_for_it_holds_without_it_and_goes_on_with_it(
    store, deliver, write_series, make_sweeper, clock
):
    paths = write_series()
    number = deliver(paths)
    sweeper = make_sweeper({"name": "all", "send_to": ["pacs"], "completeness": "commitment"}, peers=[ASKER])

    sweep_after(sweeper, clock, 31)
    waiting = store.index.get_series(number).state
    clock.advance(301)
    sweeper.sweep()
    held = store.index.get_series(number)
    list_sent(store, paths)
    sweep_after(sweeper, clock, 31)
    sweep_after(sweeper, clock, 31)

    assert waiting is SeriesState.RECEIVING
    assert (held.state, held.reason) == (SeriesState.HELD, "UNPROVEN")
    series = store.index.get_series(number)
    assert (series.state, series.completeness) == (SeriesState.STABLE, "commitment")


def test_what_may_be_missing_from_either_of_two_series_only_delays_both(
    store, deliver, write_series, make_sweeper, clock
):
    one, other = write_series(), write_series("other", seed=1)
    numbers = [deliver(one[:11]), deliver(other[:11])]
    list_sent(store, [*one, *other[:11]])
    sweeper = make_sweeper(peers=[ASKER])

    sweep_after(sweeper, clock, 31)
    waiting = {store.index.get_series(number).state for number in numbers}
    clock.advance(301)
    sweeper.sweep()

    assert waiting == {SeriesState.RECEIVING}
    for number in numbers:
        series = store.index.get_series(number)
        assert (series.state, series.completeness) == (SeriesState.STABLE, "geometry")
        assert series.evidence["listed_unplaced"] == 1
