"""The index from which series are counted by modality, sender and state; without it each count reads the table."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index(op.f("ix_series_figures"), "series", ["calling_ae", "modality", "state"])
