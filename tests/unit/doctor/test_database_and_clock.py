"""The database looked at without a change; the clock compared with it."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.doctor.clock import check_clock
from dicom_node.doctor.database import check_database
from dicom_node.doctor.findings import Level
from storage.store import head_revision, upgrade

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "node.db"


@pytest.fixture
def url(file):
    return f"sqlite:///{file}"


def test_a_database_that_is_not_there_yet_is_fine_and_is_not_made(file, url):
    (finding,), facts = check_database(url)

    assert finding.level is Level.OK
    assert facts.revision is None
    assert not file.exists()


def test_a_current_schema_is_fine(url):
    upgrade(url)
    (finding,), facts = check_database(url)
    assert finding.level is Level.OK
    assert facts.revision == facts.head == head_revision()


@pytest.mark.parametrize(
    ("revision", "level"), [("9999", Level.PROBLEM), (None, Level.OK)], ids=["newer", "empty"]
)
def test_a_schema_of_another_version_is_told(file, url, revision, level):
    upgrade(url)
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM alembic_version")
        if revision:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    connection.close()
    (finding,), _ = check_database(url)
    assert finding.level is level


def test_a_damaged_file_is_a_problem(file, url):
    file.write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 64)
    (finding,), facts = check_database(url)
    assert (finding.level, facts) == (Level.PROBLEM, None)
    assert finding.fix


def test_a_server_that_is_down_is_a_problem_without_the_password():
    (finding,), facts = check_database("postgresql+psycopg://node:secret@127.0.0.1:1/node")
    assert (finding.level, facts) == (Level.PROBLEM, None)
    assert "secret" not in str(finding)


def test_a_driver_that_does_not_exist_is_a_problem():
    (finding,), _ = check_database("postgresql+nothing://node@127.0.0.1:1/node")
    assert finding.level is Level.PROBLEM
    assert "driver" in finding.seen


@pytest.mark.parametrize(
    ("off_s", "error_s", "level"),
    [(0.1, 0.0, Level.OK), (3.0, 2.0, Level.OK), (-5.0, 0.1, Level.WARNING), (60.0, 1.0, Level.PROBLEM)],
)
def test_the_difference_of_the_clocks_counts_less_what_is_uncertain(off_s, error_s, level):
    findings = check_clock(NOW, database=NOW + timedelta(seconds=off_s), error_s=error_s, environ={})
    assert [finding.level for finding in findings if finding.subject == "database"] == [level]


def test_a_clock_before_this_release_is_a_problem():
    findings = check_clock(datetime(1980, 1, 1, tzinfo=UTC), database=None, error_s=0.0, environ={})
    assert findings[0].level is Level.PROBLEM


@pytest.mark.parametrize(
    ("zone", "level"),
    [("Europe/Berlin", Level.OK), ("UTC", Level.OK), ("Europe/Atlantis", Level.PROBLEM), ("", Level.OK)],
)
def test_a_zone_that_does_not_exist_is_a_problem(zone, level):
    (finding,) = check_clock(NOW, database=None, error_s=0.0, environ={"TZ": zone})
    assert finding.level is level
