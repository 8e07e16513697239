"""The index: which associations carried which series, and which instances the series hold.

Every method is one short transaction. Each change adds its line to the trail in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.arrival import mark_carried, store_instance
from storage.arrivals import Arrivals
from storage.clock import Clock
from storage.closing import Closing, close_series, discard_series, release_series, reopen_series
from storage.content import note_content
from storage.database import Database, changed
from storage.errors import NotFoundError
from storage.known import known_paths
from storage.lease_clock import LeaseClock
from storage.mapping import derived_record, instance_record, series_record
from storage.prefix import starts_with
from storage.records import (
    AddResult,
    DerivedRecord,
    Ending,
    InstanceRecord,
    Json,
    NewInstance,
    NewJob,
    Outcome,
    SeriesRecord,
)
from storage.series_rows import lock_series, mark_ending, open_association_exists
from storage.states import LatePolicy, SeriesEvent, SeriesState
from storage.tables import AssociationRow, DerivedRow, InstanceRow, SeriesRow
from storage.trail import TrailEvent, add_event

ClosingEvent = Literal[SeriesEvent.CLOSE, SeriesEvent.SKIP, SeriesEvent.HOLD, "close", "skip", "hold"]

_MOST_IN_A_LIST = 500  # values of one statement


class Index:
    """Associations, series and instances."""

    def __init__(self, database: Database, directory: Path, now: Clock, clock: LeaseClock) -> None:
        self._database = database
        self._root = directory
        self._now = now
        self._arrivals = Arrivals(database.writer)
        self._clock = clock

    # --- associations

    def open_association(self, calling: str, called: str, peer_host: str, run_id: str) -> int:
        """Note an accepted association. `run_id` names this run of the receiver."""
        with self._database.writing() as session:
            row = AssociationRow(
                calling_ae=calling,
                called_ae=called,
                peer_host=peer_host,
                run_id=run_id,
                opened_at=self._now(),
            )
            session.add(row)
            session.flush()
            add_event(
                session,
                TrailEvent.ASSOCIATION_OPENED,
                at=row.opened_at,
                association_id=row.id,
                data={"calling_ae": calling, "called_ae": called},
            )
            return row.id

    def close_association(self, association_id: int, ending: Ending) -> None:
        """Note how an association ended; a second call changes nothing.

        A series is interrupted when the last association that carried it ended other than by release.
        """

        def work() -> None:
            with self._database.writing() as session:
                self._end(session, association_id, ending)

        self._database.retrying(work)

    def close_run(self, run_id: str) -> int:
        """End, as lost, what one run of the receiver left open that has died; how many those were."""
        with self._database.writing() as session:
            query = select(AssociationRow.id).where(
                AssociationRow.ended_at.is_(None), AssociationRow.run_id == run_id
            )
            lost = list(session.scalars(query))
            for association_id in lost:
                self._end(session, association_id, "lost")
            return len(lost)

    def close_lost_associations(self, run_id: str) -> int:
        """End, as lost, what earlier runs of this receiver left open; how many those were.

        The part of `run_id` before a `/` names the node: what another node on the same database has open, is its
        own business.
        """
        node = run_id.rpartition("/")[0]
        with self._database.writing() as session:
            query = select(AssociationRow.id).where(
                AssociationRow.ended_at.is_(None), AssociationRow.run_id != run_id
            )
            if node:
                ours = starts_with(AssociationRow.run_id, f"{node}/", self._database.dialect)
                # A run without the name of its node is one of a version that knew one node only.
                query = query.where(ours | ~AssociationRow.run_id.contains("/"))
            lost = list(session.scalars(query))
            for association_id in lost:
                self._end(session, association_id, "lost")
            return len(lost)

    # --- arrival

    def find_instance(self, sop_instance_uid: str, digest: str) -> InstanceRecord | None:
        """The stored instance with this UID and this content. For one found, also call `note_carried`."""
        query = select(InstanceRow).where(
            InstanceRow.sop_instance_uid == sop_instance_uid, InstanceRow.digest == digest
        )
        with self._database.reading() as session:
            row = session.scalars(query.order_by(InstanceRow.id).limit(1)).one_or_none()
            return None if row is None else instance_record(row, self._root)

    def note_carried(self, series_id: int, association_id: int) -> None:
        """The association sent again what the series holds: the series stays open as long as it is.

        Costs a read only, when that is the latest thing known of the series.
        """
        query = select(SeriesRow.last_association_id).where(SeriesRow.id == series_id)
        with self._database.reading() as session:
            if session.scalar(query) == association_id:
                return
        with self._database.writing() as session:
            mark_carried(session, lock_series(session, series_id), association_id, at=self._now())

    def add_instance(self, new: NewInstance) -> AddResult:
        """Give a committed file its row; after this returns, success may be answered.

        `stored`: the series is RECEIVING, in its next generation when it was closed, and the jobs of earlier
        generations that had not ended are CANCELED (SUPERSEDED). `duplicate`: this UID with this content is
        in this series already; drop the file. `repaired`: it is too, but its file had been found damaged or
        gone, and this one is in its place. `conflict`: the UID names other content or is in another
        series; both are kept and marked. Safe under any number of equal calls at once.
        """

        def work() -> AddResult:
            with self._database.writing() as session:
                self._database.serialise_on(session, new.sop_instance)
                return store_instance(session, new, root=self._root, at=self._now())

        return self._database.retrying(work)

    def add_instances(self, new: Sequence[NewInstance]) -> list[Outcome]:
        """Give committed files their rows in one transaction, all or none; otherwise as `add_instance`."""

        def work() -> list[Outcome]:
            with self._database.writing_plainly() as connection:
                for uid in sorted({one.sop_instance for one in new}):
                    self._database.serialise_on(connection, uid)
                return self._arrivals.store(connection, new, root=self._root, at=self._now())

        return self._database.retrying(work)

    # --- closing

    def closable_series(self) -> list[SeriesRecord]:
        """RECEIVING series that no open association has carried, the longest waiting first."""
        query = (
            select(SeriesRow)
            .where(SeriesRow.state == SeriesState.RECEIVING, ~open_association_exists())
            .order_by(SeriesRow.last_received_at, SeriesRow.id)
        )
        with self._database.reading() as session:
            return [series_record(row) for row in session.scalars(query)]

    def close_series(
        self,
        series_id: int,
        revision: int,
        *,
        event: ClosingEvent,
        reason: str | None = None,
        message: str | None = None,
        route: str | None = None,
        evidence: Json | None = None,
        job: NewJob | None = None,
        completeness: str | None = None,
        late_policy: LatePolicy | str | None = None,
    ) -> bool:
        """Freeze the generation and insert its ENHANCE job; False, and nothing done, if the series moved on.

        Compare-and-set on RECEIVING, the revision the caller decided on, and no open association. A job
        whose key exists already serves this generation too. `completeness` says by what the series was judged,
        `late_policy` what an instance does that arrives after the derived series exists.
        """
        policy = None if late_policy is None else LatePolicy(late_policy).value
        closing = Closing(
            SeriesEvent(event), reason, message, route, dict(evidence or {}), job, completeness, policy
        )

        def work() -> bool:
            with self._database.writing() as session:
                at = self._clock.at(session)
                return close_series(session, series_id, revision, closing, at=at)

        return self._database.retrying(work)

    def release_series(self, series_id: int, actor: str) -> SeriesRecord:
        """HELD to RECEIVING by a person's decision; this generation is not held again for its evidence."""
        with self._database.writing() as session:
            return series_record(release_series(session, series_id, actor, at=self._now()))

    def discard_series(self, series_id: int, actor: str) -> SeriesRecord:
        """HELD to SKIPPED by a person's decision; the instances stay."""
        with self._database.writing() as session:
            return series_record(discard_series(session, series_id, actor, at=self._now()))

    def reopen_series(self, series_id: int, actor: str) -> SeriesRecord:
        """STABLE or SKIPPED to RECEIVING by a person's decision, instances that came late included."""
        with self._database.writing() as session:
            return series_record(reopen_series(session, series_id, actor, at=self._now()))

    def note_content(self, series_id: int, digests: Mapping[int, str]) -> SeriesRecord:
        """Note what instances mean, by their id, and end the conflicts where that is the same."""
        with self._database.writing() as session:
            return series_record(note_content(session, series_id, digests, at=self._now()))

    # --- reading

    def get_series(self, key: int | str) -> SeriesRecord:
        """The series with this id, or the latest with this Series Instance UID. Raises `NotFoundError`."""
        column = SeriesRow.id if isinstance(key, int) else SeriesRow.series_instance_uid
        query = select(SeriesRow).where(column == key).order_by(SeriesRow.id.desc()).limit(1)
        with self._database.reading() as session:
            row = session.scalars(query).one_or_none()
            if row is None:
                raise NotFoundError("series", key)
            return series_record(row)

    def list_series(
        self,
        *,
        state: SeriesState | None = None,
        modality: str | None = None,
        study_instance_uid: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[SeriesRecord]:
        """Series that match every filter given, newest first."""
        query = select(SeriesRow).order_by(SeriesRow.id.desc()).limit(limit).offset(offset)
        filters: list[tuple[Any, str | None]] = [
            (SeriesRow.state, state),
            (SeriesRow.modality, modality),
            (SeriesRow.study_instance_uid, study_instance_uid),
        ]
        for column, value in filters:
            if value is not None:
                query = query.where(column == value)
        with self._database.reading() as session:
            return [series_record(row) for row in session.scalars(query)]

    def instances(self, series_id: int) -> list[InstanceRecord]:
        """Every instance of a series, contents in conflict included, in the order of arrival."""
        query = select(InstanceRow).where(InstanceRow.series_id == series_id).order_by(InstanceRow.id)
        with self._database.reading() as session:
            return [instance_record(row, self._root) for row in session.scalars(query)]

    def derived(self, job_id: int) -> list[DerivedRecord]:
        """The committed manifest of an ENHANCE job, ascending position; empty before the commit."""
        query = select(DerivedRow).where(DerivedRow.job_id == job_id).order_by(DerivedRow.position)
        with self._database.reading() as session:
            return [derived_record(row, self._root) for row in session.scalars(query)]

    def derived_series_known(self, series_instance_uid: str) -> bool:
        """Whether this series is one of the store's own outputs, come back."""
        query = select(DerivedRow.id).where(DerivedRow.series_instance_uid == series_instance_uid).limit(1)
        with self._database.reading() as session:
            return session.scalar(query) is not None

    def derived_instances_known(self, sop_instance_uids: Collection[str]) -> bool:
        """Whether any of these instances is one of the store's own outputs."""
        uids = list(sop_instance_uids)
        with self._database.reading() as session:
            for start in range(0, len(uids), _MOST_IN_A_LIST):
                part = uids[start : start + _MOST_IN_A_LIST]
                query = select(DerivedRow.id).where(DerivedRow.sop_instance_uid.in_(part)).limit(1)
                if session.scalar(query) is not None:
                    return True
        return False

    def known_paths(self, paths: Collection[Path]) -> set[Path]:
        """Those of the paths that a row names or that a running attempt is writing."""
        with self._database.reading() as session:
            return known_paths(session, paths, self._root)

    def _end(self, session: Session, association_id: int, ending: Ending) -> None:
        """End one open association and carry its ending over to the series it carried last."""
        at: datetime = self._now()
        statement = (
            update(AssociationRow)
            .where(AssociationRow.id == association_id, AssociationRow.ended_at.is_(None))
            .values(ended_at=at, ending=ending)
            .execution_options(synchronize_session=False)
        )
        if changed(session.execute(statement)) != 1:
            return
        mark_ending(session, association_id, interrupted=ending != "released", at=at)
        add_event(
            session,
            TrailEvent.ASSOCIATION_CLOSED,
            at=at,
            association_id=association_id,
            data={"ending": ending},
        )
