"""Circuits and measured pace of destinations, storage commitment, and deliveries of received instances."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and the table of requests for storage commitment."""
    _extend_destinations()
    _extend_deliveries()
    _create_commitments()


def _extend_destinations() -> None:
    op.add_column(
        "destinations", sa.Column("circuit", sa.String(length=16), server_default="CLOSED", nullable=False)
    )
    op.add_column("destinations", sa.Column("since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("destinations", sa.Column("bytes_per_s", sa.Double(), nullable=True))
    op.add_column("destinations", sa.Column("answer_s", sa.Double(), nullable=True))


def _extend_deliveries() -> None:
    with op.batch_alter_table("deliveries") as batch:
        batch.alter_column("derived_id", existing_type=ROW_ID, nullable=True)
        batch.add_column(sa.Column("instance_id", ROW_ID, nullable=True))
        batch.add_column(sa.Column("commitment", sa.String(length=16), nullable=True))
        batch.add_column(sa.Column("commitment_reason", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True))
        batch.create_foreign_key(op.f("fk_deliveries_instance_id"), "instances", ["instance_id"], ["id"])
        batch.create_unique_constraint(op.f("uq_deliveries_job_id_instance_id"), ["job_id", "instance_id"])
        batch.create_index(op.f("ix_deliveries_instance_id"), ["instance_id"], unique=False)


def _create_commitments() -> None:
    op.create_table(
        "commitments",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("job_id", ROW_ID, nullable=False),
        sa.Column("series_id", ROW_ID, nullable=False),
        sa.Column("destination", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("ask", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("committed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_commitments_job_id")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_commitments_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitments_transaction_uid")),
    )
    op.create_index(op.f("ix_commitments_job_id"), "commitments", ["job_id"], unique=False)
    op.create_index(op.f("ix_commitments_series_id"), "commitments", ["series_id"], unique=False)
    op.create_index(op.f("ix_commitments_state"), "commitments", ["state", "not_before"], unique=False)
