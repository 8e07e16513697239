"""Several arrivals in one transaction, the plain ones in as few statements as can be.

Plain is an instance whose UID nobody has sent before, for a series that is being received. It takes one query;
its rows and the change to its series are written together with those of the others. Everything else, which
means duplicates, conflicts, late instances and new series, goes the long way of `arrival.store_instance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.orm import Session

from storage.arrival import store_instance
from storage.mapping import relative
from storage.records import NewInstance, Outcome
from storage.series_rows import link_association
from storage.states import SeriesState
from storage.tables import EventRow, InstanceRow, SeriesRow, plain
from storage.trail import TrailEvent

# Core statements, built once: the unit of work of an ORM would cost more than SQLite itself.
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
_INSERT_INSTANCES = insert(_INSTANCES)
_INSERT_EVENTS = insert(plain(EventRow))


def store_instances(
    session: Session, arrivals: Sequence[NewInstance], *, root: Path, at: datetime
) -> list[Outcome]:
    """Give each its row or find that it has one; the outcomes are in the order of the arrivals.

    The work goes series by series in a fixed order, so that two groups never wait for each other in a circle.
    """
    pending = _Pending(session, at)
    outcomes: dict[int, Outcome] = {}
    for number in sorted(range(len(arrivals)), key=lambda one: _order(arrivals[one])):
        new = arrivals[number]
        if pending.take(new, root):
            outcomes[number] = "stored"
            continue
        pending.write()
        outcomes[number] = store_instance(session, new, root=root, at=at).outcome
        # What was read into the session is older than what the statements here write.
        session.flush()
        session.expunge_all()
    pending.write()
    return [outcomes[number] for number in range(len(arrivals))]


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

    session: Session
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
        row = self.session.connection().execute(_PLAIN, key).one_or_none()
        if row is None:
            return False
        series_id, generation, last_association = row
        counted = self.series.setdefault(series_id, _Counted(last_association))
        if new.association_id is not None and counted.association != new.association_id:
            link_association(self.session, series_id, new.association_id)
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
        connection = self.session.connection()
        for series_id, counted in self.series.items():
            connection.execute(
                _COUNT,
                {
                    "at_id": series_id,
                    "number": counted.number,
                    "at": self.at,
                    "association": counted.association,
                },
            )
        connection.execute(_INSERT_INSTANCES, self.instances)
        connection.execute(_INSERT_EVENTS, self.events)
        self.series, self.instances, self.events, self.uids = {}, [], [], set()
