"""When a series is complete, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydicom import dcmread
from structlog.testing import capture_logs

from dicom_node.intake import stability
from storage.records import NewDerived
from storage.states import JobKind, JobState, SeriesState


def sweep_after(sweeper, clock, seconds):
    """Let the sweeper see the series, wait, and sweep again."""
    sweeper.sweep()
    clock.advance(seconds)
    return sweeper.sweep()


def rewrite(path, target, **elements):
    dataset = dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
        if keyword == "SOPInstanceUID":
            dataset.file_meta.MediaStorageSOPInstanceUID = value
    dataset.save_as(target)
    return target


def commit_as_output(store, path):
    """Make the file an instance of a derived series that the node has committed."""
    header = dcmread(path, stop_before_pixels=True)
    job = store.jobs.claim(JobKind.ENHANCE, "worker", timedelta(minutes=1))
    derived = NewDerived(
        sop_class_uid=header.SOPClassUID,
        sop_instance_uid=header.SOPInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
        path=store.spool.derived_dir(job.id, job.token) / "1.dcm",
        digest="0" * 64,
        size=1,
        position=0,
    )
    store.jobs.commit_manifest(job, [derived], [], {})


def test_quiet_series_is_closed_with_a_job(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series())

    report = sweep_after(make_sweeper(), clock, 30.1)

    series = store.index.get_series(number)
    (job,) = store.jobs.list(kind=JobKind.ENHANCE)
    assert (report.open, report.closed) == (0, 1)
    assert (series.state, series.route, series.reason) == (SeriesState.STABLE, "all", None)
    assert (job.series_id, job.state) == (number, JobState.PENDING)


def test_series_stays_open_until_the_quiet_period_is_over(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series())

    sweep_after(make_sweeper(), clock, 29.9)

    assert store.index.get_series(number).state is SeriesState.RECEIVING


def test_new_instance_starts_the_quiet_period_again(store, deliver, write_series, make_sweeper, clock):
    paths = write_series()
    sweeper = make_sweeper()
    number = deliver(paths[:-1])
    sweep_after(sweeper, clock, 20)
    deliver(paths[-1:])

    sweep_after(sweeper, clock, 20)
    early = store.index.get_series(number).state
    clock.advance(10.1)
    sweeper.sweep()

    assert early is SeriesState.RECEIVING
    assert store.index.get_series(number).state is SeriesState.STABLE


def test_restart_never_shortens_the_quiet_period(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series())
    sweep_after(make_sweeper(), clock, 20)

    sweep_after(make_sweeper(), clock, 20)

    assert store.index.get_series(number).state is SeriesState.RECEIVING


def test_open_association_keeps_the_series_open(store, deliver, write_series, make_sweeper, clock):
    paths = write_series()
    number = deliver(paths, keep_open=True)
    sweeper = make_sweeper()

    sweep_after(sweeper, clock, 3600)
    while_open = store.index.get_series(number).state
    store.index.close_association(1, "released")
    sweeper.sweep()
    just_closed = store.index.get_series(number).state
    clock.advance(30.1)
    sweeper.sweep()

    assert (while_open, just_closed) == (SeriesState.RECEIVING, SeriesState.RECEIVING)
    assert store.index.get_series(number).state is SeriesState.STABLE


@pytest.mark.parametrize(("quiet", "seconds"), [("5 s", 5.1), ("2 min", 120.1)])
def test_route_decides_the_quiet_period(store, deliver, write_series, make_sweeper, clock, quiet, seconds):
    number = deliver(write_series())
    sweeper = make_sweeper({"name": "own", "quiet_period": quiet, "send_to": ["pacs"]})

    sweep_after(sweeper, clock, seconds - 0.2)
    early = store.index.get_series(number).state
    clock.advance(0.2)
    sweeper.sweep()

    assert early is SeriesState.RECEIVING
    assert store.index.get_series(number).state is SeriesState.STABLE


def test_short_period_of_a_route_that_does_not_match_is_not_used(
    store, deliver, write_series, make_sweeper, clock
):
    number = deliver(write_series())
    hasty = {"name": "mr", "when": {"modality": "MR"}, "quiet_period": "1 s", "send_to": ["pacs"]}

    sweep_after(make_sweeper(hasty, {"name": "rest", "send_to": ["pacs"]}), clock, 29)

    assert store.index.get_series(number).state is SeriesState.RECEIVING


def test_series_without_a_route_is_skipped_and_says_why(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series())

    sweep_after(make_sweeper({"name": "mr", "when": {"modality": "MR"}, "send_to": ["pacs"]}), clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.reason) == (SeriesState.SKIPPED, "NO_ROUTE")
    assert series.evidence["rejected_routes"] == [{"route": "mr", "clause": "modality is CT, rule wants MR"}]
    assert store.jobs.list() == []


def test_ignoring_route_skips_the_series(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series())

    sweep_after(make_sweeper({"name": "quiet", "action": "ignore"}), clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.reason, series.route) == (SeriesState.SKIPPED, "ROUTE_IGNORES", "quiet")


def test_unsuitable_series_is_skipped_with_its_reason(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series(attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}))

    sweep_after(make_sweeper(), clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.reason) == (SeriesState.SKIPPED, "LOCALIZER")


def test_missing_slice_holds_the_series(store, deliver, write_series, make_sweeper, clock):
    paths = write_series()
    number = deliver(paths[:5] + paths[6:])

    sweep_after(make_sweeper(), clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.reason) == (SeriesState.HELD, "MISSING_SLICE")
    assert store.jobs.list() == []


def test_released_series_is_not_held_again_for_its_gap(store, deliver, write_series, make_sweeper, clock):
    paths = write_series()
    number = deliver(paths[:5] + paths[6:])
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 31)

    store.index.release_series(number, "operator")
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert series.state is SeriesState.STABLE
    assert series.evidence["notes"] == ["GAP", "BLOCKS"]
    assert [volume["slices"] for volume in series.evidence["volumes"]] == [5, 6]
    assert len(store.jobs.list()[0].spec["source"]) == 11


def test_late_slice_opens_the_next_generation(store, deliver, write_series, make_sweeper, clock):
    paths = write_series()
    number = deliver(paths[:5] + paths[6:])
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 31)

    deliver(paths[5:6])
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.generation) == (SeriesState.STABLE, 2)
    assert len(store.jobs.list()[0].spec["source"]) == 12


def test_two_contents_under_one_uid_hold_the_series_and_a_release_uses_the_first(
    store, deliver, write_series, make_sweeper, clock, tmp_path
):
    paths = write_series()
    number = deliver(paths)
    deliver([rewrite(paths[3], tmp_path / "other.dcm", WindowWidth="123")])
    sweeper = make_sweeper()

    sweep_after(sweeper, clock, 31)
    held = store.index.get_series(number)
    store.index.release_series(number, "operator")
    sweep_after(sweeper, clock, 31)

    assert (held.state, held.reason) == (SeriesState.HELD, "UID_CONFLICT")
    assert held.evidence["conflicts"] == 1
    source = store.jobs.list()[0].spec["source"]
    first = {copy.digest for copy in store.index.instances(number)[:12]}
    assert {copy["digest"] for copy in source} == first


def test_unreadable_instance_holds_its_series_and_no_other(store, deliver, write_series, make_sweeper, clock):
    broken, good = deliver(write_series("a", seed=1)), deliver(write_series("b", seed=2))
    store.index.instances(broken)[0].path.write_bytes(b"not DICOM any more")

    sweep_after(make_sweeper(), clock, 31)

    assert store.index.get_series(broken).reason == "UNREADABLE"
    assert store.index.get_series(good).state is SeriesState.STABLE


def test_series_that_makes_the_node_stumble_is_held_and_the_others_go_on(
    store, deliver, write_series, make_sweeper, clock, monkeypatch
):
    hostile, good = deliver(write_series("a", seed=1)), deliver(write_series("b", seed=2))
    assess = stability.assess

    def stumble(series, *args, **kwargs):
        if series.id == hostile:
            raise RecursionError("DOE^JANE")
        return assess(series, *args, **kwargs)

    monkeypatch.setattr(stability, "assess", stumble)
    with capture_logs() as lines:
        sweep_after(make_sweeper(), clock, 31)

    series = store.index.get_series(hostile)
    assert (series.state, series.reason) == (SeriesState.HELD, "INTERNAL_ERROR")
    assert store.index.get_series(good).state is SeriesState.STABLE
    assert "DOE" not in f"{lines} {series}"


def test_series_that_never_comes_to_rest_is_held(store, deliver, write_series, make_sweeper, clock):
    sweeper = make_sweeper(completion={"longest_open": "1 min"})
    states = []
    for path in write_series()[:4]:
        number = deliver([path])
        sweeper.sweep()
        states.append(store.index.get_series(number).state)
        clock.advance(20)

    assert states == [SeriesState.RECEIVING] * 3 + [SeriesState.HELD]
    assert store.index.get_series(number).reason == "OPEN_TOO_LONG"


def test_output_of_the_node_that_comes_back_is_left_alone(
    store, deliver, write_series, make_sweeper, clock, tmp_path
):
    deliver(write_series("source", seed=1))
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 31)
    output = write_series("output", seed=2)
    commit_as_output(store, output[0])

    number = deliver(output)
    sweep_after(sweeper, clock, 31)

    series = store.index.get_series(number)
    assert (series.state, series.reason) == (SeriesState.SKIPPED, "ALREADY_PROCESSED")


def test_job_says_everything_the_enhancement_needs(store, deliver, write_series, make_sweeper, clock):
    number = deliver(write_series(), calling="PACS")
    route = {
        "name": "ct",
        "priority": 3,
        "send_to": ["return-to-sender", "pacs"],
        "enhancement": {"strength": 0.5, "enhancer": "identity", "options": {"mode": "soft"}},
        "derivation": {"description_suffix": "[QUIET]"},
        "assembly": {"diffusion": "leave_alone"},
    }

    sweep_after(make_sweeper(route), clock, 31)

    (job,) = store.jobs.list()
    copies = {copy.sop_instance_uid: copy for copy in store.index.instances(number)}
    assert job.priority == 3
    assert (job.spec["enhancer"], job.spec["strength"], job.spec["options"]) == (
        "identity",
        0.5,
        {"mode": "soft"},
    )
    assert job.spec["destinations"] == ["pacs"]
    assert job.spec["route"]["name"] == "ct"
    assert job.spec["derivation"]["description_suffix"] == "[QUIET]"
    assert job.spec["derivation"]["manufacturer"] == "DICOM Enhancement Node"
    assert (job.spec["assembly"]["diffusion"], job.spec["assembly"]["minimum_slices"]) == ("leave_alone", 8)
    assert job.spec["source"] == [
        {"path": str(copies[uid].path), "sop_instance_uid": uid, "digest": copies[uid].digest}
        for uid in sorted(copies)
    ]


def test_unknown_sender_stays_literal_in_the_destinations(store, deliver, write_series, make_sweeper, clock):
    deliver(write_series(), calling="NOBODY")

    sweep_after(make_sweeper({"name": "back", "send_to": ["return-to-sender"]}), clock, 31)

    assert store.jobs.list()[0].spec["destinations"] == ["return-to-sender"]


def test_same_content_by_the_same_rule_is_one_job(
    store, deliver, write_series, make_sweeper, clock, tmp_path
):
    paths = write_series()
    number = deliver(paths)
    sweeper = make_sweeper()
    sweep_after(sweeper, clock, 31)
    deliver([rewrite(paths[0], tmp_path / "other.dcm", WindowWidth="123")])
    sweep_after(sweeper, clock, 31)
    store.index.release_series(number, "operator")

    sweep_after(sweeper, clock, 31)

    assert len(store.jobs.list()) == 1


def test_other_rule_is_another_job(store, deliver, write_series, make_sweeper, clock, tmp_path):
    paths = write_series()
    number = deliver(paths)
    sweep_after(make_sweeper(), clock, 31)
    deliver([rewrite(paths[0], tmp_path / "other.dcm", WindowWidth="123")])
    changed = make_sweeper({"name": "all", "send_to": ["pacs"], "enhancement": {"strength": 0.2}})
    sweep_after(changed, clock, 31)
    store.index.release_series(number, "operator")

    sweep_after(changed, clock, 31)

    assert len({job.key for job in store.jobs.list()}) == 2


def test_nothing_of_the_patient_is_in_the_log_or_the_database(
    store, deliver, write_series, make_sweeper, clock
):
    canary = {"patient_name": "CANARY^NAME", "patient_id": "CANARY-ID", "series_description": "CANARY TEXT"}
    wanted = {"name": "x", "when": {"series_description": "*ABDOMEN*"}, "send_to": ["pacs"]}
    with capture_logs() as lines:
        number = deliver(write_series(**canary))
        sweep_after(make_sweeper(wanted), clock, 31)

    database = (store.spool.directory / "node.db").read_bytes() + (
        store.spool.directory / "node.db-wal"
    ).read_bytes()
    assert store.index.get_series(number).reason == "NO_ROUTE"
    assert "CANARY" not in str(lines)
    assert b"CANARY" not in database
