"""The tables of the audit chain. Rows are private to this package."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables import ROW_ID, Base


class AuditRow(Base):
    """One link of the chain: added to, never changed. No foreign keys: it outlives what it tells of."""

    __tablename__ = "audit_records"
    __table_args__ = (Index("ix_audit_records_event_id", "event_id"),)

    seq: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    event_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[int]
    message: Mapped[str] = mapped_column(Text)
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


class AuditStateRow(Base):
    """The one row that says how far the chain has come: what is told, its head, what was sent."""

    __tablename__ = "audit_state"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=False)
    event_cursor: Mapped[int] = mapped_column(BigInteger)
    head_seq: Mapped[int] = mapped_column(BigInteger)
    head_digest: Mapped[str] = mapped_column(String(64))
    sent_seq: Mapped[int] = mapped_column(BigInteger)
