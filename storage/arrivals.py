"""Several arrivals in one transaction, the plain ones in as few statements as can be.

Plain is an instance whose UID nobody has sent before, for a series that is being received. It takes one query;
its rows and the change to its series are written together with those of the others, on the driver's own
cursor. Everything else, which
means duplicates, conflicts, late instances and new series, goes the long way of `arrival.store_instance`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, exists, insert, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session

from storage.arrival import store_instance
from storage.mapping import relative
from storage.prepared import Prepared
from storage.records import NewInstance, Outcome
from storage.series_rows import link_association
from storage.states import SeriesState
from storage.tables import EventRow, InstanceRow, SeriesRow, plain
from storage.trail import TrailEvent

_SERIES, _INSTANCES = plain(SeriesRow), plain(InstanceRow)
_PLAIN = (
    select(_SERIES.c.id, _SERIES.c.generation, _SERIES.c.last_association_id)
    .where(
        _SERIES.c.study_instance_uid == bindparam("study"),
        _SERIES.c.series_instance_uid == bindparam("series"),
        _SERIES.c.state == SeriesState.RECEIVING.value,
        ~exists(select(_INSTANCES.c.id).where(_INSTANCES.c.sop_instance_uid == bindparam("uid"))),
    )
    .with_for_update(key_share=True, of=_SERIES)
)
_COUNT = (
    update(_SERIES)
    .where(_SERIES.c.id == bindparam("at_id"))
    .values(
        instance_count=_SERIES.c.instance_count + bindparam("number"),
        revision=_SERIES.c.revision + 1,
        last_received_at=bindparam("at"),
        last_association_id=bindparam("association"),
    )
)
_INSTANCE_COLUMNS = (
    "series_id",
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "digest",
    "path",
    "size",
    "generation",
    "conflict",
    "received_at",
    "association_id",
)
_EVENT_COLUMNS = ("at", "name", "series_id", "job_id", "association_id", "data")


class Arrivals:
    """The statements, made for one database."""

    def __init__(self, dialect: Dialect) -> None:
        self.plain = Prepared(_PLAIN, dialect)
        self.count = Prepared(_COUNT, dialect)
        self.insert_instances = Prepared(insert(_INSTANCES), dialect, _INSTANCE_COLUMNS)
        self.insert_events = Prepared(insert(plain(EventRow)), dialect, _EVENT_COLUMNS)

    def store(
        self, connection: Connection, arrivals: Sequence[NewInstance], *, root: Path, at: datetime
    ) -> list[Outcome]:
        """Give each its row or find that it has one; the outcomes are in the order of the arrivals.

        The work goes series by series in a fixed order, so that two groups never wait for each other in a
        circle.
        """
        pending = _Pending(self, connection, connection.connection.cursor(), at)
        outcomes: dict[int, Outcome] = {}
        for number in sorted(range(len(arrivals)), key=lambda one: _order(arrivals[one])):
            new = arrivals[number]
            if pending.take(new, root):
                outcomes[number] = "stored"
                continue
            pending.write()
            with _session(connection) as session:
                outcomes[number] = store_instance(session, new, root=root, at=at).outcome
        pending.write()
        return [outcomes[number] for number in range(len(arrivals))]


@contextmanager
def _session(connection: Connection) -> Iterator[Session]:
    """A session within the transaction of the connection, which goes on after it."""
    session = Session(connection, autoflush=False, join_transaction_mode="rollback_only")
    with session.begin():
        yield session


def _order(new: NewInstance) -> tuple[str, str]:
    return new.study_uid, new.series_uid


@dataclass
class _Counted:
    """What is to be added to one series."""

    association: int | None
    number: int = 0


@dataclass
class _Pending:
    """Plain arrivals of a transaction whose rows are not written yet."""

    statements: Arrivals
    connection: Connection
    cursor: Any
    at: datetime
    series: dict[int, _Counted] = field(default_factory=dict)
    instances: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    uids: set[str] = field(default_factory=set)

    def take(self, new: NewInstance, root: Path) -> bool:
        """Take a plain arrival; False when it is not one."""
        if new.sop_instance in self.uids:
            return False
        key = {"study": new.study_uid, "series": new.series_uid, "uid": new.sop_instance}
        row = self.statements.plain.run(self.cursor, key).fetchone()
        if row is None:
            return False
        series_id, generation, last_association = row
        counted = self.series.setdefault(series_id, _Counted(last_association))
        if new.association_id is not None and counted.association != new.association_id:
            with _session(self.connection) as session:
                link_association(session, series_id, new.association_id)
            counted.association = new.association_id
        counted.number += 1
        self.uids.add(new.sop_instance)
        self._note(new, series_id, generation, root)
        return True

    def _note(self, new: NewInstance, series_id: int, generation: int, root: Path) -> None:
        """Keep the rows to be written."""
        self.instances.append(
            {
                "series_id": series_id,
                "sop_class_uid": new.sop_class,
                "sop_instance_uid": new.sop_instance,
                "transfer_syntax_uid": new.transfer_syntax,
                "digest": new.digest,
                "path": relative(new.path, root),
                "size": new.size,
                "generation": generation,
                "conflict": False,
                "received_at": self.at,
                "association_id": new.association_id,
            }
        )
        self.events.append(
            {
                "at": self.at,
                "name": TrailEvent.INSTANCE_STORED.value,
                "series_id": series_id,
                "job_id": None,
                "association_id": new.association_id,
                "data": {"sop_instance_uid": new.sop_instance, "digest": new.digest, "size": new.size},
            }
        )

    def write(self) -> None:
        """Write what was taken, and take more from scratch."""
        if not self.instances:
            return
        for series_id, counted in self.series.items():
            changes = {"at_id": series_id, "number": counted.number, "association": counted.association}
            self.statements.count.run(self.cursor, {**changes, "at": self.at})
        self.statements.insert_instances.run_many(self.cursor, self.instances)
        self.statements.insert_events.run_many(self.cursor, self.events)
        self.series, self.instances, self.events, self.uids = {}, [], [], set()
