"""The tables. Rows are private to this package; callers get the records of `storage.records`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from storage.prefix import prefix_index

UID_LENGTH = 64  # PS3.5 9.1
AE_LENGTH = 16  # PS3.5 6.2, VR AE
# SQLite numbers rows by itself only for a column declared INTEGER.
ROW_ID = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database, also on those that forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive datetime; hand over UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Root of the tables; `Base.metadata` is what the migrations must lead to."""

    # Named constraints, so that a later migration can name what it changes.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON()}  # noqa: RUF012 (SQLAlchemy reads it)


class AssociationRow(Base):
    """One association with a sender."""

    __tablename__ = "associations"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    calling_ae: Mapped[str] = mapped_column(String(AE_LENGTH))
    called_ae: Mapped[str] = mapped_column(String(AE_LENGTH))
    peer_host: Mapped[str] = mapped_column(String(255))
    run_id: Mapped[str] = mapped_column(String(64))
    opened_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    ending: Mapped[str | None] = mapped_column(String(16))


class SeriesRow(Base):
    """One received series, known by study and series UID together: senders do reuse series UIDs."""

    __tablename__ = "series"
    __table_args__ = (
        UniqueConstraint("study_instance_uid", "series_instance_uid"),
        # What lists ask for; the row's number last, because pages go on from a number.
        Index("ix_series_state", "state", "id"),
        Index("ix_series_modality", "modality", "id"),
        Index("ix_series_last_received_at", "last_received_at"),
        # What the overview counts, read without the table.
        Index("ix_series_figures", "calling_ae", "modality", "state"),
        prefix_index("ix_series_uid_prefix", "series_instance_uid"),
        prefix_index("ix_series_study_prefix", "study_instance_uid"),
        prefix_index("ix_series_calling_prefix", "calling_ae"),
    )

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    series_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    modality: Mapped[str] = mapped_column(String(16))
    calling_ae: Mapped[str] = mapped_column(String(AE_LENGTH))
    called_ae: Mapped[str] = mapped_column(String(AE_LENGTH))
    state: Mapped[str] = mapped_column(String(16))
    generation: Mapped[int]
    revision: Mapped[int]
    instance_count: Mapped[int]
    interrupted: Mapped[bool]
    released: Mapped[bool]
    reason: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    route: Mapped[str | None] = mapped_column(String(255))
    evidence: Mapped[dict[str, Any]]
    completeness: Mapped[str | None] = mapped_column(String(16))
    late_policy: Mapped[str | None] = mapped_column(String(16))
    late: Mapped[bool] = mapped_column(server_default=false())
    purged_at: Mapped[datetime | None]
    first_received_at: Mapped[datetime]
    last_received_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    last_association_id: Mapped[int | None] = mapped_column(ForeignKey("associations.id"), index=True)


class CarriedRow(Base):
    """An association carried a series: stored into it, or sent again what was there."""

    __tablename__ = "series_associations"

    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True)
    association_id: Mapped[int] = mapped_column(ForeignKey("associations.id"), primary_key=True, index=True)


class InstanceRow(Base):
    """One stored SOP instance. One UID may have several rows: contents in conflict are all kept."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "digest", "series_id"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    digest: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(255), unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    generation: Mapped[int]
    conflict: Mapped[bool]
    semantic_digest: Mapped[str | None] = mapped_column(String(64))
    damaged: Mapped[bool] = mapped_column(server_default=false())
    checked_at: Mapped[datetime | None]
    received_at: Mapped[datetime]
    association_id: Mapped[int | None] = mapped_column(ForeignKey("associations.id"))


class JobRow(Base):
    """One job; `token` fences off every holder but the latest."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_queue", "kind", "state", "not_before"),
        Index("ix_jobs_destination", "destination", "state"),
        Index("ix_jobs_state", "state", "id"),
        Index("ix_jobs_kind", "kind", "id"),
        Index("ix_jobs_created_at", "created_at"),
        prefix_index("ix_jobs_key_prefix", "key"),
        prefix_index("ix_jobs_destination_prefix", "destination"),
    )

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(255), unique=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    generation: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    priority: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    claimed_by: Mapped[str | None] = mapped_column(String(255))
    lease_expires_at: Mapped[datetime | None]
    token: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    destination: Mapped[str | None] = mapped_column(String(255))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    spec: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any]]


class DerivedRow(Base):
    """One instance of a committed manifest; a UID never names two contents, so it is unique for ever."""

    __tablename__ = "derived"
    __table_args__ = (UniqueConstraint("job_id", "position"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    series_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    path: Mapped[str] = mapped_column(String(255), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    position: Mapped[int]
    damaged: Mapped[bool] = mapped_column(server_default=false())
    checked_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]


class DeliveryRow(Base):
    """One derived or received instance at one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("job_id", "derived_id"),
        UniqueConstraint("job_id", "instance_id"),
        Index("ix_deliveries_state", "state", "id"),
        Index("ix_deliveries_destination", "destination", "state", "id"),
        prefix_index("ix_deliveries_uid_prefix", "sop_instance_uid"),
    )

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    derived_id: Mapped[int | None] = mapped_column(ForeignKey("derived.id"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    destination: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    status: Mapped[int | None]
    comment: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int]
    updated_at: Mapped[datetime]
    commitment: Mapped[str | None] = mapped_column(String(16))
    commitment_reason: Mapped[int | None]
    committed_at: Mapped[datetime | None]


class DestinationRow(Base):
    """How a destination has behaved lately."""

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    failures: Mapped[int]
    not_before: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    circuit: Mapped[str] = mapped_column(String(16), server_default="CLOSED")
    since: Mapped[datetime | None]
    bytes_per_s: Mapped[float | None] = mapped_column(Double())
    answer_s: Mapped[float | None] = mapped_column(Double())


class CommitmentRow(Base):
    """One request for storage commitment; its transaction UID is how a report finds it."""

    __tablename__ = "commitments"
    __table_args__ = (Index("ix_commitments_state", "state", "not_before"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    destination: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    ask: Mapped[int]
    instances: Mapped[int]
    committed: Mapped[int]
    failed: Mapped[int]
    created_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]
    not_before: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    message: Mapped[str | None] = mapped_column(Text)


class AlarmRow(Base):
    """Something a person has to know, from when it began until it is over; one row per code and subject."""

    __tablename__ = "alarms"

    code: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    raised_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    count: Mapped[int]
    data: Mapped[dict[str, Any]]


class TombstoneRow(Base):
    """A file that is to go, or went: written before the file is unlinked, finished after it."""

    __tablename__ = "tombstones"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    series_id: Mapped[int] = mapped_column(ROW_ID, index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    derived: Mapped[bool]
    path: Mapped[str] = mapped_column(String(255), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)


class ClockRow(Base):
    """How the clock of an SQLite store hangs on the machine's own: wall time and time since boot, read together."""

    __tablename__ = "clock"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    boot_id: Mapped[str] = mapped_column(String(64))
    wall: Mapped[datetime]
    since_boot: Mapped[float] = mapped_column(Double())


class EventRow(Base):
    """One line of the trail. No foreign keys: the trail outlives what it tells of."""

    __tablename__ = "events"
    __table_args__ = (prefix_index("ix_events_name", "name"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    at: Mapped[datetime]
    name: Mapped[str] = mapped_column(String(64))
    series_id: Mapped[int | None] = mapped_column(ROW_ID, index=True)
    job_id: Mapped[int | None] = mapped_column(ROW_ID, index=True)
    association_id: Mapped[int | None] = mapped_column(ROW_ID)
    data: Mapped[dict[str, Any]]


def plain(row: type[Base]) -> Table:
    """The table without its class. Statements on it skip the unit of work, which the hot path cannot afford."""
    return cast("Table", row.__table__)
