"""The verbs an operator has. Command line, and later API and page, call these and nothing below them."""

from __future__ import annotations

import getpass
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from config.rules import RouteChoice, SeriesSummary, choose_route
from config.sections import Peer
from config.settings import Settings
from dicom_node.audit.recorder import Recorder
from dicom_node.errors import NodeError, PeerError, UnreadableInstanceError
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.multiframe import read_headers
from dicom_node.imaging.summary import summarise
from dicom_node.network import scu
from dicom_node.network.sender_pool import SenderPool
from dicom_node.observability import events
from engine.registry import enhancer_names
from storage.audit_chain import AuditRecord, ChainReport
from storage.delivery_records import CommitmentRecord
from storage.records import (
    AlarmRecord,
    DeliveryRecord,
    DestinationStatus,
    EventRecord,
    JobRecord,
    SeriesRecord,
)
from storage.safekeeping_records import KeepRequestRecord
from storage.space import CRITICAL_PERCENT, Marks
from storage.states import JobState, SeriesState
from storage.store import Store, open_store


def open_node_store(settings: Settings) -> Store:
    """Open the store the configuration names, with its watermarks; the caller closes it."""
    section = settings.storage
    return open_store(
        section.resolved_database_url,
        section.directory,
        reserve_bytes=section.watermarks.reserve,
        # Above the hard mark no association is accepted any more; those that run may finish, down to this.
        hard_percent=100.0 - min(CRITICAL_PERCENT, 100.0 - section.watermarks.hard),
        marks=Marks(
            soft_percent=section.watermarks.soft,
            hard_percent=section.watermarks.hard,
            reserve_bytes=section.watermarks.reserve,
            reserve_file_bytes=section.watermarks.reserve_file,
        ),
    )


def local_account() -> str:
    """The account on this machine under which this process runs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def check_enhancers(settings: Settings) -> None:
    """Refuse a configuration that names an enhancer this installation does not have.

    The configuration itself cannot know: it is read without loading the engine.
    """
    wanted = {"enhancement.enhancer": settings.enhancement.enhancer}
    for route in settings.routes:
        if route.enhancement.enhancer is not None:
            wanted[f"route {route.name}: enhancement.enhancer"] = route.enhancement.enhancer
    known = enhancer_names()
    for where, name in wanted.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UnknownNameError(f"{where} is {name!r}; there are: {', '.join(known)}{hint}")


class UnknownNameError(NodeError):
    """The operator named something that does not exist."""


@dataclass(frozen=True)
class SeriesStory:
    """Everything that happened to one series, oldest first: the answer to "why was this not enhanced"."""

    series: SeriesRecord
    verdict: str
    jobs: tuple[JobRecord, ...]
    deliveries: tuple[DeliveryRecord, ...]
    events: tuple[EventRecord, ...]


@dataclass(frozen=True)
class RouteTest:
    """How the routes treat one series found in a folder."""

    series_instance_uid: str
    summary: SeriesSummary
    choice: RouteChoice


class Operations:
    """The verbs over one store; every write names its actor and leaves an event."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    # --- series

    def series(
        self, *, state: SeriesState | None = None, limit: int = 50, offset: int = 0
    ) -> list[SeriesRecord]:
        """Series, newest first."""
        return self._store.index.list_series(state=state, limit=limit, offset=offset)

    def series_story(self, key: str) -> SeriesStory:
        """Series by number or Series Instance UID, with its jobs, deliveries and events."""
        series = self._store.index.get_series(int(key) if key.isdecimal() else key)
        jobs = tuple(self._store.jobs.list(series_id=series.id, limit=1000))
        deliveries = tuple(
            d for job in jobs for d in self._store.deliveries.list(job_id=job.id, limit=10_000)
        )
        events = tuple(self._store.trail.for_series(series.id))
        return SeriesStory(series, _verdict(series, jobs), jobs, deliveries, events)

    def release_series(self, key: str, *, actor: str) -> SeriesRecord:
        """Let a held series go on as it is."""
        series = self._store.index.get_series(int(key) if key.isdecimal() else key)
        return self._store.index.release_series(series.id, actor)

    def discard_series(self, key: str, *, actor: str) -> SeriesRecord:
        """Leave a held series alone for good; its instances stay stored."""
        series = self._store.index.get_series(int(key) if key.isdecimal() else key)
        return self._store.index.discard_series(series.id, actor)

    def reopen_series(self, key: str, *, actor: str) -> SeriesRecord:
        """Look at a closed series again, with every instance that came late."""
        series = self._store.index.get_series(int(key) if key.isdecimal() else key)
        return self._store.index.reopen_series(series.id, actor)

    # --- alarms

    def alarms(self) -> list[AlarmRecord]:
        """What a person has to know now, the oldest first."""
        return self._store.alarms.active()

    def clear_alarm(self, code: str, subject: str, *, actor: str) -> bool:
        """End an alarm that somebody has seen; False when there was none. What lasts is raised again."""
        return self._store.alarms.clear(code, subject, actor=actor)

    # --- jobs and deliveries

    def jobs(self, *, state: JobState | None = None, limit: int = 50, offset: int = 0) -> list[JobRecord]:
        """Jobs of both kinds, newest first."""
        return self._store.jobs.list(state=state, limit=limit, offset=offset)

    def job(self, job_id: int) -> tuple[JobRecord, list[EventRecord]]:
        """One job with its events."""
        return self._store.jobs.get(job_id), self._store.trail.for_job(job_id)

    def cancel_job(self, job_id: int, *, actor: str) -> JobRecord:
        """Cancel a job; a running one stops at its next step."""
        return self._store.jobs.cancel(job_id, actor)

    def resubmit_job(self, job_id: int, *, actor: str) -> JobRecord:
        """Run a failed or canceled job again."""
        return self._store.jobs.resubmit(job_id, actor)

    def deliveries(self, *, job_id: int | None = None, limit: int = 200) -> list[DeliveryRecord]:
        """Deliveries, one row per instance and destination, newest job first."""
        return self._store.deliveries.list(job_id=job_id, limit=limit)

    def retry_deliveries(
        self, *, job_id: int | None = None, destination: str | None = None, actor: str
    ) -> int:
        """Make failed or waiting deliveries due now; returns how many jobs were touched."""
        target = job_id if job_id is not None else destination
        if target is None:
            raise UnknownNameError("name a job or a destination")
        return len(self._store.deliveries.retry(target, actor))

    def send_series(self, key: str, destination: str, *, actor: str) -> JobRecord:
        """Order a stored series to be sent to any configured peer; the DELIVER job that will do it.

        `key` is a series' number or Series Instance UID: a received series goes out as it came, the UID of a
        derived one as it was made. Raises `UnknownNameError` or `NotFoundError`.
        """
        peer = find_peer(self._settings, destination)
        if not key.isdecimal() and self._store.index.derived_series_known(key):
            return self._store.deliveries.send_derived(key, peer.name, actor)
        series = self._store.index.get_series(int(key) if key.isdecimal() else key)
        return self._store.deliveries.send_series(series.id, peer.name, actor)

    def commitments(self, *, job_id: int | None = None, limit: int = 200) -> list[CommitmentRecord]:
        """Requests for storage commitment, newest first."""
        return self._store.commitments.list(job_id=job_id, limit=limit)

    def safekeeping(self, *, limit: int = 200) -> list[KeepRequestRecord]:
        """What senders asked us to keep, newest first."""
        return self._store.safekeeping.list(limit)

    def destinations(self) -> list[DestinationStatus]:
        """How every destination that was ever heard of behaves."""
        return self._store.destinations.list()

    # --- audit trail

    def audit_records(self, *, limit: int = 50, before: int | None = None, actor: str) -> list[AuditRecord]:
        """Audit records, newest first. Reading them is an event of its own (PS3.15 A.5.3.2)."""
        Recorder(self._store, self._settings).record()
        found = self._store.audit.list(limit=limit, before=before)
        self._store.trail.append(events.AUDIT_READ, data={"actor": actor})
        return found

    def verify_audit(self, *, noted: tuple[int, str] | None = None, actor: str) -> ChainReport:
        """Walk the whole chain. `noted`: number and digest of a record, as kept elsewhere."""
        Recorder(self._store, self._settings).record()
        report = self._store.audit.verify(noted)
        self._store.trail.append(events.AUDIT_READ, data={"actor": actor})
        return report

    # --- peers

    def peer(self, name: str) -> Peer:
        """The configured peer of that name."""
        return find_peer(self._settings, name)


def find_peer(settings: Settings, name: str) -> Peer:
    """The configured peer of that name; raises `UnknownNameError` with the names there are."""
    peer = settings.peer(name)
    if peer is not None:
        return peer
    known = ", ".join(peer.name for peer in settings.peers) or "none"
    raise UnknownNameError(f"no peer is named {name!r}; configured: {known}")


def send_folder(peer: Peer, folder: Path, on_result: Callable[[str, int, str], bool]) -> int:
    """C-STORE every DICOM file below `folder` to `peer` over one association; returns how many were offered."""
    files = [scu.outgoing(path) for path in dicom_files(folder)]
    scu.send(peer, files, on_result)
    return len(files)


def send_files(
    peer: Peer, files: Sequence[Path], heard: Callable[[scu.Answer], object], *, associations: int = 1
) -> list[str]:
    """C-STORE files to a peer; `heard` gets what became of each. Returns why associations ended early.

    Several associations run in processes of their own. What cannot be sent (no file meta, a syntax that the
    peer does not take) is heard like an answer and stops nothing.
    """
    items: list[scu.Outgoing] = []
    for position, path in enumerate(files):
        try:
            items.append(scu.outgoing(path))
        except UnreadableInstanceError as exc:
            nothing = scu.Outgoing(path, "", "", "")
            heard(scu.Answer(position, nothing, None, str(exc.reason), exc.reason, exc))
    if associations == 1:
        try:
            scu.transmit(peer, items, lambda answer: heard(answer) is not False)
        except PeerError as exc:
            return [exc.message]
        return []
    with SenderPool(associations) as pool:
        return [report.trouble for report in pool.send(peer, items, heard) if report.trouble]


def dicom_files(folder: Path) -> list[Path]:
    """Every Part 10 file below `folder` (or the file itself), sorted; raises `UnknownNameError` when there is none."""
    if not folder.exists():
        raise UnknownNameError(f"{folder} does not exist")
    candidates = (
        [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    )
    found = [path for path in candidates if _is_part10(path)]
    if not found:
        raise UnknownNameError(f"no DICOM file in {folder}")
    return found


def test_routes(settings: Settings, folder: Path, *, calling_ae: str, called_ae: str) -> list[RouteTest]:
    """What the routes would do with each series found below `folder`."""
    groups: dict[str, list[InstanceHeader]] = {}
    for path in dicom_files(folder):
        try:
            found = read_headers(path)
        except UnreadableInstanceError:
            continue
        groups.setdefault(found[0].series_instance_uid, []).extend(found)
    tests = []
    for uid, headers in sorted(groups.items()):
        summary = summarise(headers, calling_ae=calling_ae, called_ae=called_ae)
        tests.append(RouteTest(uid, summary, choose_route(settings.routes, summary)))
    return tests


def _is_part10(path: Path) -> bool:
    """Whether the file starts with a preamble and DICM (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _verdict(series: SeriesRecord, jobs: Sequence[JobRecord]) -> str:
    """One sentence for a person: where the series stands and why."""
    if series.state is SeriesState.RECEIVING:
        return "Still receiving: the quiet period is not over, or an association is open."
    if series.state in (SeriesState.SKIPPED, SeriesState.HELD):
        how = "Not enhanced" if series.state is SeriesState.SKIPPED else "Held for a person"
        return f"{how}: {series.message or series.reason}"
    current = [job for job in jobs if job.generation == series.generation]
    for state, words in (
        (JobState.FAILED, "Failed"),
        (JobState.CANCELED, "Canceled"),
        (JobState.RETRY, "Waiting for another try"),
        (JobState.RUNNING, "Running"),
        (JobState.PENDING, "Queued"),
    ):
        for job in current:
            if job.state is state:
                where = f" to {job.destination}" if job.destination else ""
                return f"{words} ({job.kind.lower()}{where}): {job.message or job.stage or 'not started'}"
    return "Enhanced and delivered."


def delivery_summary(deliveries: Sequence[DeliveryRecord]) -> Mapping[str, Mapping[str, int]]:
    """Count of instances per destination and state."""
    table: dict[str, Counter[str]] = {}
    for delivery in deliveries:
        table.setdefault(delivery.destination, Counter())[str(delivery.state)] += 1
    return table


def plain(value: Any) -> Any:
    """A JSON-ready form of records, and of what holds records."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
