"""Pauses, routes, models and reviews from the command line: what it says is in force in the database."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config.settings import load_settings
from dicom_node.cli.main import app
from dicom_node.operations import local_account, open_node_store
from storage.errors import IllegalTransitionError
from storage.records import JobRecord, NewInstance, NewJob
from storage.reviews import NewReview, Verdict
from storage.store import Store

CONFIG = """\
node: {ae_titles: [ENHANCE], host: 127.0.0.1, port: 11112}
storage: {directory: data}
peers: [{name: pacs, ae_title: PACS, host: 127.0.0.1, port: 11113}]
routes: [{name: everything, send_to: [pacs]}]
"""
DRAFT = """\
routes:
  - name: thick-only
    when: {modality: CT, slice_count: {at_least: 500}}
    send_to: [pacs]
"""
ACTOR = f"cli:{local_account()}"
Run = Callable[..., Result]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "node.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(site: Path) -> Iterator[Store]:
    with open_node_store(load_settings(site / "node.yaml")) as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> Run:
    """Run a command in this process; anything but success raises."""
    return lambda *words, **how: CliRunner().invoke(app, list(words), catch_exceptions=False, **how)


@pytest.fixture
def job(store: Store) -> JobRecord:
    """A series of one instance, closed with a job."""
    staged = store.spool.write(b"header", [b"content"])
    instance = NewInstance(
        study_uid="1.2",
        series_uid="1.2.3",
        modality="CT",
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        sop_instance="1.2.3.4",
        transfer_syntax="1.2.840.10008.1.2.1",
        digest=staged.digest,
        path=store.spool.commit(staged),
        size=staged.size,
        association_id=None,
        calling_ae="SCANNER",
        called_ae="ENHANCE",
    )
    series = store.index.add_instance(instance).series
    assert store.index.close_series(series.id, series.revision, event="close", job=NewJob("key", spec={}))
    return store.jobs.list()[0]


def test_a_part_of_the_line_is_paused_and_resumed(run, store):
    assert run("line", "pause", "sending").output == "sending is paused.\n"
    assert json.loads(run("line", "status", "--json").output) == {
        "intake": False, "processing": False, "sending": True
    }  # fmt: skip
    (record,) = store.pauses.records()
    assert (record.paused, record.actor) == (True, ACTOR)

    run("line", "resume", "sending")
    assert store.pauses.all()["sending"] is False


def test_routes_are_applied_listed_and_taken_back(run, site, store):
    (site / "draft.yaml").write_text(DRAFT)
    before = run("routes", "show").output
    assert "everything" in before

    run("routes", "apply", "draft.yaml", "--comment", "only thick series")
    latest = store.route_versions.latest()
    assert (latest.author, latest.comment) == (ACTOR, "only thick series")
    assert "thick-only" in run("routes", "show").output

    run("routes", "rollback", "--to-file")
    assert run("routes", "show").output == before
    run("routes", "rollback", "--to", str(latest.id))
    assert store.route_versions.latest().restored_from == latest.id
    run("routes", "apply", "-", input=before)
    shown = json.loads(run("routes", "versions", "--json").output)
    assert [version["id"] for version in shown] == [4, 3, 2, 1]


def test_routes_that_were_changed_meanwhile_are_not_overwritten(run, site, store):
    (site / "draft.yaml").write_text(DRAFT)
    run("routes", "apply", "draft.yaml", "--expected", "0")

    with pytest.raises(IllegalTransitionError):
        run("routes", "apply", "draft.yaml", "--expected", "0")
    assert run("routes", "rollback").exit_code == 2
    assert len(store.route_versions.list()) == 1


def test_a_model_is_tried_compared_and_decided_about(run, store, job):
    assert run("models", "try", "identity").output == "Trial 1 of identity runs.\n"
    figures = {"noise_after": 6.0, "seconds": 13.0}
    store.shadow.record(store.shadow.running(), job.id, figures, {**figures, "noise_after": 3.0})

    found = json.loads(run("models", "compare", "1", "--json").output)
    assert (found["primary"]["noise_after"], found["shadow"]["noise_after"]) == (6.0, 3.0)
    assert "noise after" in run("models", "compare", "1").output

    run("models", "promote", "1")
    assert json.loads(run("models", "list", "--json").output)["in_use"] == "identity"
    run("models", "withdraw", "1")
    assert store.shadow.promoted() is None
    run("models", "try", "classical")
    run("models", "drop", "2")
    assert store.shadow.running() is None
    assert {event.data["actor"] for event in store.trail.list() if event.name.startswith("shadow.")} == {
        ACTOR
    }


def test_reviews_are_counted_and_exported_once_into_a_new_file(run, store, job):
    review = NewReview(
        job.id, 1, "ann", Verdict.APPROVE, False, None, "=fine", "classical 1", "CT", "SCANNER"
    )
    store.reviews.keep(review)

    assert json.loads(run("reviews", "rates", "--json").output)[0]["approved"] == 1
    assert "100%" in run("reviews", "rates").output
    (row,) = csv.DictReader(io.StringIO(run("reviews", "export").output))
    assert (row["reviewer"], row["comment"]) == ("ann", "'=fine")
    run("reviews", "export", "--output", "reviews.csv")
    with pytest.raises(FileExistsError):
        run("reviews", "export", "--output", "reviews.csv")
    told = [event.data for event in store.trail.list() if event.name == "reviews.exported"]
    assert told[0] == {"actor": ACTOR}
