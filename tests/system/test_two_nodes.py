"""Two nodes on one PostgreSQL share the work and do no step twice; on SQLite the second one does not start."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode
from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.network import scu
from engine.phantom import head_phantom, noisy_ct
from storage.states import JobState
from storage.store import open_store

LIMIT = timedelta(seconds=400)


@pytest.fixture
def short_series(tmp_path: Path) -> list[list[Path]]:
    """Four series of ten small slices."""
    volume = head_phantom(shape=(10, 64, 64), spacing_mm=(3.0, 3.6, 3.6))
    return [
        write_ct_series(noisy_ct(volume, 20.0, seed=seed), tmp_path / f"scanner-{seed}", seed=seed)
        for seed in range(4)
    ]


@pytest.mark.timeout(900)
def test_two_nodes_on_one_database_make_and_send_each_series_once(
    start_node: Callable[..., RunningNode],
    start_archive: Callable[..., Archive],
    short_series: list[list[Path]],
    postgres,
    tmp_path: Path,
) -> None:
    archive, url, shared = start_archive(), postgres.create(), tmp_path / "shared"
    nodes = [start_node(name=name, database=url, directory=shared) for name in ("one", "two")]

    def send(node: RunningNode, paths: list[Path]) -> None:
        scu.send(node.peer, [scu.outgoing(path) for path in paths], lambda *_: True)

    # Each node gets half of every series, at once.
    halves = [
        threading.Thread(target=send, args=(nodes[number % 2], half))
        for number, half in enumerate(part for paths in short_series for part in (paths[:5], paths[5:]))
    ]
    for half in halves:
        half.start()
    for half in halves:
        half.join()

    with open_store(url, shared) as store:
        nodes[0].wait_for(
            lambda: [job.state for job in store.jobs.list()].count(JobState.SUCCEEDED) == 8,
            LIMIT,
            "eight jobs",
        )
        claims = Counter(event.job_id for event in store.trail.list(100_000) if event.name == "job.claimed")
        attempts = {job.id: job.attempts for job in store.jobs.list()}
        assert set(claims.values()) == {1} == set(attempts.values())
        assert not any(series.interrupted for series in store.index.list_series())
        workers = {job.claimed_by for job in store.jobs.list()}
        assert workers == {None}
    assert sorted(archive.instances(uid) for uid in archive.series()) == [10] * 4
    sources = {str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID) for paths in short_series}
    assert not sources & set(archive.series())


def test_a_second_node_on_one_sqlite_file_does_not_start(start_node: Callable[..., RunningNode]) -> None:
    node = start_node()

    second = subprocess.run(
        [sys.executable, "-m", "dicom_node", "serve", "--config", str(node.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert second.returncode == 2
    assert "another node" in second.stderr
    assert node.answers()
