"""`dicom-node demo`: send a noisy series to a real node, get a derived one back, check it, show it.

Nothing is simulated but the patient: the node runs as `serve` runs it, in its own processes on SQLite,
and the series travels by C-STORE over loopback in both directions.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.demo.picture import write_picture
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.imaging.series_reader import read_series
from dicom_node.imaging.verify import verify_series
from dicom_node.operations import SeriesStory, dicom_files, send_folder
from engine.phantom import head_phantom, noisy_ct
from storage.states import JobKind, JobState

_PHANTOM_NOISE_HU = 22.0
_LIMIT = timedelta(minutes=15)

_CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}}}
api: {{enabled: false}}
storage: {{directory: node-data, watermarks: {{soft: 99 %, hard: 100 %, reserve: 100 MB}}}}
completion: {{quiet_period: 2 s, quiet_period_by_modality: {{CT: 2 s, MR: 2 s}}}}
peers:
  - {{name: archive, ae_title: ARCHIVE, host: 127.0.0.1, port: {archive_port}}}
routes:
  - {{name: demo, when: {{modality: [CT, MR]}}, action: enhance, send_to: [archive]}}
logging: {{format: json}}
"""


@dataclass(frozen=True)
class Stage:
    """The pieces of one demo run."""

    node: RunningNode
    archive: Archive
    console: Console


def run_demo(*, source: Path | None, picture: Path, keep: Path | None) -> int:
    """Run the demo; returns 0 when a derived series arrived and passed every assertion, else 1."""
    console = Console(highlight=False)
    begin = time.monotonic()
    with _workspace(keep) as folder:
        series = source if source is not None else _make_phantom(folder / "scanner", console)
        with _stage(folder, console) as stage:
            uids = _send(stage, series)
            stories = _await(stage, uids)
            ok = _report(stage, series, stories, picture)
    console.print(
        f"Done in {time.monotonic() - begin:.0f} s. Research use only. Not a cleared medical device."
    )
    return 0 if ok else 1


@contextmanager
def _workspace(keep: Path | None) -> Iterator[Path]:
    """A folder for everything the demo writes: temporary, or the one the user wants to keep."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=False)
        yield keep
        return
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_phantom(folder: Path, console: Console) -> Path:
    """Write the noisy head phantom as a CT series."""
    clean = head_phantom()
    noisy = noisy_ct(clean, _PHANTOM_NOISE_HU, seed=1)
    write_ct_series(noisy, folder)
    slices, rows, columns = clean.array.shape
    console.print(f"Made a CT head phantom: {slices} slices of {rows}x{columns}, coloured noise.")
    return folder


@contextmanager
def _stage(folder: Path, console: Console) -> Iterator[Stage]:
    """Start archive and node, wait until the node answers a C-ECHO, stop both at the end."""
    with Archive(folder / "archive") as archive:
        config = folder / "node.yaml"
        config.write_text(_CONFIG.format(port=free_port(), archive_port=archive.port))
        node = RunningNode(config)
        try:
            node.start()
            where = f"ports {node.peer.port} and {archive.port}"
            console.print(f"Node and archive are up on {node.peer.host}, {where}.")
            yield Stage(node, archive, console)
        finally:
            node.stop()


def _send(stage: Stage, folder: Path) -> list[str]:
    """Send every DICOM file of the folder as a scanner would; returns the Series Instance UIDs sent."""
    uids = sorted({read_header(path).series_instance_uid for path in dicom_files(folder)})
    statuses: list[int] = []

    def on_result(_uid: str, status: int, _comment: str) -> bool:
        statuses.append(status)
        return True

    begin = time.monotonic()
    total = send_folder(stage.node.peer, folder, on_result)
    stored = statuses.count(0)
    stage.console.print(f"Sent {total} instances in {time.monotonic() - begin:.1f} s; {stored} acknowledged.")
    return uids


def _await(stage: Stage, uids: list[str]) -> list[SeriesStory]:
    """Wait until every series has come to its end, one way or the other."""
    with stage.console.status("Waiting for the derived series"):
        return [stage.node.await_end(uid, _LIMIT) for uid in uids]


def _report(stage: Stage, source: Path, stories: list[SeriesStory], picture: Path) -> bool:
    """Print the job log, verify and show what came back; True when something did and all of it is right."""
    _print_job_log(stage.console, stories)
    results = [_check(stage, source, story, picture) for story in stories]
    arrived = [result for result in results if result is not None]
    return bool(arrived) and all(arrived)


def _check(stage: Stage, source: Path, story: SeriesStory, picture: Path) -> bool | None:
    """Verify one derived series as it lies in the archive; None when the series was left alone."""
    done = [job for job in story.jobs if job.kind is JobKind.ENHANCE and job.state is JobState.SUCCEEDED]
    if not done:
        stage.console.print(f"Series {story.series.id}: {story.verdict}")
        failed = any(job.state is JobState.FAILED for job in story.jobs)
        return False if failed else None
    uid = {delivery.sop_instance_uid for delivery in story.deliveries}
    derived = [
        path
        for series in stage.archive.series()
        for path in dicom_files(stage.archive.folder(series))
        if path.stem in uid
    ]
    sources = [
        path
        for path in dicom_files(source)
        if read_header(path).series_instance_uid == story.series.series_instance_uid
    ]
    policy = DerivationPolicy(**stage.node.settings.derivation.model_dump(mode="json"))
    report = verify_series(sources, derived, policy=policy)
    passed = sum(check.passed for check in report.checks)
    facts = done[0].result
    stage.console.print(
        f"Verify: {passed} of {len(report.checks)} assertions passed on {len(derived)} derived instances."
    )
    for check in report.checks:
        if not check.passed:
            stage.console.print(f"  failed {check.number} {check.title}: {check.detail}")
    unit = facts["unit"] if facts["unit"] == "HU" else ""
    before, after = facts["noise_before"], facts["noise_after"]
    stage.console.print(
        f"Noise: {before:.1f} {unit} before, {after:.1f} {unit} after; bias {facts['bias']:+.2f} {unit}"
    )
    write_picture(picture, read_series(sources).volume, read_series(derived).volume, noise=(before, after))
    stage.console.print(f"Wrote {os.fspath(picture)}")
    return bool(report.passed)


def _print_job_log(console: Console, stories: list[SeriesStory]) -> None:
    """The job log as a table: one row per job, with the seconds of each stage."""
    table = Table(title="Job log", title_justify="left", box=None, pad_edge=False)
    for column in ("job", "kind", "state", "tries", "destination", "instances", "seconds by stage"):
        table.add_column(column)
    for story in stories:
        for job in sorted(story.jobs, key=lambda job: job.id):
            stages = job.result.get("seconds", {})
            instances = job.result.get("slices", job.result.get("delivered", ""))
            words = ", ".join(f"{stage.lower()} {seconds:.1f}" for stage, seconds in stages.items())
            table.add_row(
                str(job.id),
                str(job.kind),
                str(job.state),
                str(job.attempts),
                job.destination or "",
                str(instances),
                words,
            )
    console.print(table)
