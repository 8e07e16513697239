"""The tables of what senders asked this node to keep."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables import AE_LENGTH, ROW_ID, UID_LENGTH, Base


class KeepRequestRow(Base):
    """One request of a sender. Its transaction UID is not unique: a sender may err, and is told so."""

    __tablename__ = "keep_requests"
    __table_args__ = (Index("ix_keep_requests_due", "calling_ae", "state", "not_before"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    calling_ae: Mapped[str] = mapped_column(String(AE_LENGTH))
    called_ae: Mapped[str] = mapped_column(String(AE_LENGTH))
    state: Mapped[str] = mapped_column(String(16))
    instances: Mapped[int]
    failed: Mapped[int]
    failures: Mapped[int]
    received_at: Mapped[datetime]
    not_before: Mapped[datetime]
    judged_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    message: Mapped[str | None] = mapped_column(Text)


class KeepItemRow(Base):
    """One instance that a request names. With `series_id` it is promised, until `kept_until` or for good."""

    __tablename__ = "keep_items"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("keep_requests.id"), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    reason: Mapped[int | None]
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"), index=True)
    kept_until: Mapped[datetime | None]
