"""Keyed hashes by which a series is found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "series_labels",
        sa.Column("series_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("accession_hash", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_series_labels_series_id")),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_series_labels")),
    )
    op.create_index(op.f("ix_series_labels_accession_hash"), "series_labels", ["accession_hash"])
