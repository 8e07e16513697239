"""Late instances, evidence, content digests, integrity, alarms, tombstones and the clock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns with defaults that fit what is stored already, and the new tables."""
    op.add_column("series", sa.Column("completeness", sa.String(length=16), nullable=True))
    op.add_column("series", sa.Column("late_policy", sa.String(length=16), nullable=True))
    op.add_column("series", sa.Column("late", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("series", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("semantic_digest", sa.String(length=64), nullable=True))
    op.add_column("derived", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    for table in ("instances", "derived"):
        op.add_column(table, sa.Column("damaged", sa.Boolean(), server_default=sa.false(), nullable=False))
        op.add_column(table, sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    _create_alarms()
    _create_tombstones()
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("wall", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since_boot", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )


def _create_alarms() -> None:
    op.create_table(
        "alarms",
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("code", "subject", name=op.f("pk_alarms")),
    )


def _create_tombstones() -> None:
    op.create_table(
        "tombstones",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("series_id", ROW_ID, nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("derived", sa.Boolean(), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tombstones")),
        sa.UniqueConstraint("path", name=op.f("uq_tombstones_path")),
    )
    op.create_index(op.f("ix_tombstones_series_id"), "tombstones", ["series_id"], unique=False)
    op.create_index(op.f("ix_tombstones_finished_at"), "tombstones", ["finished_at"], unique=False)
