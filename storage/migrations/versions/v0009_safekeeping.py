"""What senders asked this node to keep, and what it promised them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "keep_requests",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keep_requests")),
    )
    op.create_index(op.f("ix_keep_requests_transaction_uid"), "keep_requests", ["transaction_uid"])
    op.create_index("ix_keep_requests_due", "keep_requests", ["calling_ae", "state", "not_before"])
    op.create_table(
        "keep_items",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("request_id", ROW_ID, nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=True),
        sa.Column("series_id", ROW_ID, nullable=True),
        sa.Column("kept_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["keep_requests.id"], name=op.f("fk_keep_items_request_id")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_keep_items_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keep_items")),
    )
    for column in ("request_id", "sop_instance_uid", "series_id"):
        op.create_index(op.f(f"ix_keep_items_{column}"), "keep_items", [column])
