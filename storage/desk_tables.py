"""Tables of the operator's desk: who may do what, what was decided, and answers that must not be given twice."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables import ROW_ID, Base

NAME_LENGTH = 64
HASH_LENGTH = 64  # SHA-256, hexadecimal


class UserRow(Base):
    """A person, or a program that acts for one. The password is kept as an argon2 hash only."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(255))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    password_changed_at: Mapped[datetime]


class SessionRow(Base):
    """One signed-in browser, known by the hash of its cookie."""

    __tablename__ = "sessions"

    id_hash: Mapped[str] = mapped_column(String(HASH_LENGTH), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]


class ApiTokenRow(Base):
    """A key for programs, known by its hash; `scopes` limit it below the role of its owner."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    token_hash: Mapped[str] = mapped_column(String(HASH_LENGTH), unique=True)
    scopes: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class LoginThrottleRow(Base):
    """Failed logins of one account or from one address; in the database, so that a restart forgets nothing."""

    __tablename__ = "login_throttles"

    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    failures: Mapped[int]
    not_before: Mapped[datetime | None]
    last_at: Mapped[datetime]


class OneTimeSecretRow(Base):
    """A secret that opens one door once, such as the first run; only its hash is kept."""

    __tablename__ = "one_time_secrets"

    purpose: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    created_at: Mapped[datetime]


class IdempotencyRow(Base):
    """The answer to a write, under the key its caller chose; `status` is None while it is being done."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    status: Mapped[int | None]
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(index=True)


class PauseRow(Base):
    """Whether a part of the line is paused, and by whom."""

    __tablename__ = "pauses"

    part: Mapped[str] = mapped_column(String(16), primary_key=True)
    paused: Mapped[bool]
    actor: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]


class RouteVersionRow(Base):
    """One applied set of routes. The latest row counts; a row without text means: as in the file."""

    __tablename__ = "route_versions"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    text: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(HASH_LENGTH))
    author: Mapped[str] = mapped_column(String(128))
    comment: Mapped[str] = mapped_column(Text)
    restored_from: Mapped[int | None]
    created_at: Mapped[datetime]


class ReviewRow(Base):
    """What one reader thinks of one derived series."""

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("job_id", "reviewer"),
        Index("ix_reviews_rate", "model", "modality", "site", "verdict"),
    )

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    reviewer: Mapped[str] = mapped_column(String(NAME_LENGTH))
    verdict: Mapped[str] = mapped_column(String(16))
    blinded: Mapped[bool]
    derived_side: Mapped[str | None] = mapped_column(String(8))
    comment: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(128))
    modality: Mapped[str] = mapped_column(String(16))
    site: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ShadowRow(Base):
    """One trial of a second model beside the one that is sent, from its start to its decision."""

    __tablename__ = "shadow_trials"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    enhancer: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16), index=True)
    started_by: Mapped[str] = mapped_column(String(128))
    started_at: Mapped[datetime]
    decided_by: Mapped[str | None] = mapped_column(String(128))
    decided_at: Mapped[datetime | None]


class ShadowResultRow(Base):
    """Both models on one input: the figures side by side."""

    __tablename__ = "shadow_results"
    __table_args__ = (UniqueConstraint("trial_id", "job_id"),)

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("shadow_trials.id"))
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    primary_metrics: Mapped[dict[str, Any]]
    shadow_metrics: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class AlertRow(Base):
    """One thing that is wrong, from its first sight until it is over; keeps alarms from repeating."""

    __tablename__ = "alerts"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), index=True)
    since: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    last_sent_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]
    detail: Mapped[dict[str, Any]]


class SeriesLabelRow(Base):
    """What a series can be found by besides its UIDs: a keyed hash, so that the database holds no patient data."""

    __tablename__ = "series_labels"

    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True, autoincrement=False)
    accession_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH), index=True)
