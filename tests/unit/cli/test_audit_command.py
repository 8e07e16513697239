"""`dicom-node audit`: an unbroken chain, a broken one, and a note of a head that is not there any more."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from storage.store import open_store
from tests.nursery import dicom_node


def audit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return dicom_node("audit", *arguments, cwd=cwd)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A node that was started once."""
    (tmp_path / "node.yaml").write_text("node: {ae_titles: [ENHANCE]}\n")
    directory = tmp_path / "node-data"
    with open_store(f"sqlite:///{directory / 'node.db'}", directory) as store:
        store.trail.append("node.started", data={"actor": "account:node"})
    return tmp_path


def test_the_trail_is_listed_verified_and_found_broken(site: Path) -> None:
    listed = audit("list", "--json", cwd=site)
    assert [record["kind"] for record in json.loads(listed.stdout)] == ["110100"]

    verified = audit("verify", "--json", cwd=site)  # which records that the list was read
    report = json.loads(verified.stdout)
    assert (verified.returncode, report["records"], report["fault"]) == (0, 2, None)

    noted = f"{report['head_seq']}:{report['head_digest']}"
    assert "unbroken" in audit("verify", "--noted", noted, cwd=site).stdout

    with sqlite3.connect(site / "node-data" / "node.db") as connection:
        connection.execute("UPDATE audit_records SET message = 'nobody was here' WHERE seq = 2")
    connection.close()
    broken = audit("verify", cwd=site)
    assert broken.returncode == 1
    assert "broken at record 2" in broken.stderr


def test_a_note_that_cannot_be_read_is_refused(site: Path) -> None:
    assert audit("verify", "--noted", "7", cwd=site).returncode == 2
