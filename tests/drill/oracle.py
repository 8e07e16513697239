"""The oracle: what has to hold of a node after any run of the drill, once it is idle (I1 to I12).

Each check returns sentences about what is wrong, none when all is well. The node's processes have to be
stopped, but for I12, which starts them once more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from dicom_node.audit.recorder import Recorder
from dicom_node.pipeline.stages import data_set_digest
from storage.records import JobRecord, SeriesRecord
from storage.states import DeliveryState, JobKind, JobState, SeriesState
from storage.store import Store
from tests.drill.world import CANARY, CANARY_ID, ROLES, World

_OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED})
_ALL = 1_000_000


def judge(world: World, *, restart: bool = True) -> list[str]:
    """Stop the node and check everything; `restart`: also that a further start changes nothing (I12)."""
    for role in ROLES:
        if role in world.roles and world.roles[role].alive:
            world.roles[role].stop()
    with world.store() as store:
        Recorder(store, world.settings).record()
        faults = [
            *acknowledged_is_stored(world, store),
            *one_content_for_each_uid(world, store),
            *one_derived_series(world, store),
            *nothing_sent_of_an_incomplete_series(world, store),
            *nothing_undelivered_is_gone(store),
            *everything_has_an_end_or_a_due_time(store, world.settings.enhancement.attempts),
            *the_audit_chain_is_whole(store),
            *every_transition_is_told_once(world, store),
            *files_and_rows_agree(world, store),
        ]
    faults += no_patient_is_named(world)
    return faults + (a_restart_changes_nothing(world) if restart else [])


def acknowledged_is_stored(world: World, store: Store) -> Iterator[str]:
    """I1: every acknowledged instance has its row, its file, and both digests."""
    for sent in world.series:
        if not sent.acknowledged:
            continue
        rows = {row.sop_instance_uid: row for row in store.index.instances(_series(store, sent.uid).id)}
        for uid in sent.acknowledged:
            row = rows.get(uid)
            if row is None:
                yield f"I1 acknowledged {uid} is not stored"
            elif row.digest != sent.digests[uid]:
                yield f"I1 {uid} is stored with another digest"
            elif not row.path.is_file() or data_set_digest(row.path) != row.digest:
                yield f"I1 the file of {uid} is not what was sent"


def one_content_for_each_uid(world: World, store: Store) -> Iterator[str]:
    """I2: nothing arrived at the archive under one UID with two contents, nor other than the manifest says."""
    manifest = {d.sop_instance_uid: d for job in _jobs(store) for d in store.index.derived(job.id)}
    for uid, digests in world.contents().items():
        if len(digests) != 1:
            yield f"I2 {uid} arrived with {len(digests)} contents"
        elif uid not in manifest:
            yield f"I2 {uid} arrived and is in no manifest"
        elif digests != {data_set_digest(manifest[uid].path)}:
            yield f"I2 {uid} arrived other than it is stored"


def one_derived_series(world: World, store: Store) -> Iterator[str]:
    """I3: one derived series for each series that was sent in full, and all of it at the archive."""
    arrived = world.contents()
    for sent in world.series:
        if len(sent.acknowledged) < len(sent.paths):
            continue
        jobs = store.jobs.list(series_id=_series(store, sent.uid).id, limit=_ALL)
        done = [job for job in jobs if job.kind is JobKind.ENHANCE and job.state is JobState.SUCCEEDED]
        if len(done) != 1:
            states = Counter(str(job.state) for job in jobs if job.kind is JobKind.ENHANCE)
            yield f"I3 series {sent.uid} has {len(done)} derived series ({dict(states)})"
            continue
        derived = store.index.derived(done[0].id)
        missing = [d for d in derived if d.sop_instance_uid not in arrived]
        if len(derived) != len(sent.paths) or missing:
            yield f"I3 {len(missing)} of {len(derived)} derived instances of {sent.uid} did not arrive"


def nothing_sent_of_an_incomplete_series(world: World, store: Store) -> Iterator[str]:
    """I4: whatever left was made of as many slices as the scanner has."""
    for sent in world.series:
        if not sent.acknowledged:
            continue
        for job in store.jobs.list(series_id=_series(store, sent.uid).id, limit=_ALL):
            derived = store.index.derived(job.id)
            gone = [d for d in derived if d.sop_instance_uid in world.contents()]
            if gone and len(derived) != len(sent.paths):
                yield f"I4 a series of {len(derived)} left though the scanner has {len(sent.paths)}"


def nothing_undelivered_is_gone(store: Store) -> Iterator[str]:
    """I5: what is not delivered is still here."""
    for job in _jobs(store, JobKind.DELIVER):
        for delivery, derived in store.deliveries.for_job(job.id):
            if delivery.state is not DeliveryState.DELIVERED and not derived.path.is_file():
                yield f"I5 undelivered {derived.sop_instance_uid} is deleted"


def files_and_rows_agree(world: World, store: Store) -> Iterator[str]:
    """I6: no row without its file, and after the sweeper no file without its row."""
    root = world.settings.storage.directory
    known = {row.path for series in _all_series(store) for row in store.index.instances(series.id)}
    known |= {d.path for job in _jobs(store) for d in store.index.derived(job.id)}
    for path in known:
        if not path.is_file():
            yield f"I6 a row without its file: {path.relative_to(root)}"
    store.sweep_orphans(timedelta(seconds=-60))
    for name in ("incoming", "staging", "derived"):
        for path in (root / name).rglob("*"):
            if path.is_file() and path not in known:
                yield f"I6 a file without a row: {path.relative_to(root)}"


def everything_has_an_end_or_a_due_time(store: Store, limit: int) -> Iterator[str]:
    """I7: nothing waits for nobody. I8: nothing was tried more often than allowed."""
    for series in _all_series(store):
        if series.state is SeriesState.RECEIVING and series.last_received_at is None:
            yield f"I7 series {series.id} waits without a due time"
    for job in _jobs(store):
        if job.state is JobState.RUNNING and job.lease_expires_at is None:
            yield f"I7 job {job.id} runs without a lease"
        elif job.state not in _OVER and job.not_before is None:
            yield f"I7 job {job.id} waits without a due time"
        if job.kind is JobKind.ENHANCE and job.attempts > limit:
            yield f"I8 job {job.id} was tried {job.attempts} times"


def the_audit_chain_is_whole(store: Store) -> Iterator[str]:
    """I9, first half: the chain of audit records is unbroken."""
    report = store.audit.verify()
    if report.fault is not None:
        yield f"I9 the audit chain is broken at {report.fault_seq}: {report.fault}"


def every_transition_is_told_once(world: World, store: Store) -> Iterator[str]:
    """I9, second half: one line in the trail for each thing that happened."""
    told = Counter[tuple[str, int | None]]()
    rows = query(world, "SELECT name, job_id FROM events WHERE job_id IS NOT NULL")
    told.update((str(name), job_id) for name, job_id in rows)
    for job in _jobs(store):
        once = {"job.enqueued": 1, "job.succeeded": int(job.state is JobState.SUCCEEDED)}
        if job.kind is JobKind.ENHANCE:
            once["manifest.committed"] = int(job.state is JobState.SUCCEEDED)
        for name, count in once.items():
            if told[name, job.id] != count:
                yield f"I9 {name} of job {job.id} is told {told[name, job.id]} times, not {count}"
    stored = query(world, "SELECT count(*) FROM instances")[0][0]
    lines = query(
        world, "SELECT count(*) FROM events WHERE name IN ('instance.stored', 'instance.conflict')"
    )[0][0]
    if stored != lines:
        yield f"I9 {stored} instances are stored, {lines} arrivals are told"


def no_patient_is_named(world: World) -> Iterator[str]:
    """I10: the patient of the phantom is in no log, no database and no file name."""
    secrets = [secret.encode() for secret in (*CANARY.split("^"), CANARY_ID)]
    places = [world.log, *world.settings.storage.directory.glob("node.db*")]
    for place in places:
        content = place.read_bytes() if place.is_file() else b""
        if any(secret in content for secret in secrets):
            yield f"I10 the patient is named in {place.name}"
    for folder, _, names in os.walk(world.settings.storage.directory):
        if any(secret.decode() in name for name in [folder, *names] for secret in secrets):
            yield "I10 the patient is named by a file"


def a_restart_changes_nothing(world: World) -> list[str]:
    """I12: started once more and left alone, the node leaves everything as it is."""
    before, arrived = snapshot(world), world.contents()
    world.start(*ROLES)
    world.wait_for(lambda: _has_looked_around(world), "a look around after the restart")
    for role in ROLES:
        world.roles[role].stop()
    faults = [
        f"I12 a restart changed {table}" for table, rows in snapshot(world).items() if rows != before[table]
    ]
    return faults + (["I12 a restart sent something"] if world.contents() != arrived else [])


def snapshot(world: World) -> dict[str, list[Any]]:
    """What has to stay as it is when nothing happens; when a file was last read again may change."""
    engine = create_engine(world.settings.storage.resolved_database_url)
    found: dict[str, list[Any]] = {}
    with engine.connect() as connection:
        for table in ("series", "instances", "jobs", "derived", "deliveries"):
            rows = connection.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()
            found[table] = [{name: row[name] for name in row if name != "checked_at"} for row in rows]
    engine.dispose()
    return found


def query(world: World, statement: str) -> list[Any]:
    """Ask the database itself, past the code that is judged."""
    engine = create_engine(world.settings.storage.resolved_database_url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]
    finally:
        engine.dispose()


def _has_looked_around(world: World) -> bool:
    """Whether worker and sender have begun their rounds: the audit records of the restart are there."""
    looked = query(world, "SELECT count(*) FROM associations WHERE ended_at IS NOT NULL")[0][0]
    return bool(looked) and all(world.roles[role].alive for role in ROLES)


def _jobs(store: Store, kind: JobKind | None = None) -> list[JobRecord]:
    return [job for job in store.jobs.list(limit=_ALL) if kind is None or job.kind is kind]


def _all_series(store: Store) -> list[SeriesRecord]:
    return store.index.list_series(limit=_ALL)


def _series(store: Store, uid: str) -> SeriesRecord:
    return store.index.get_series(uid)


def size_of(folder: Path) -> int:
    """Bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
