"""Indices for lists and searches: by state, kind, modality, date, and by the beginning of a text."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_GONE = (
    ("series", "ix_series_state"),
    ("deliveries", "ix_deliveries_state"),
    ("deliveries", "ix_deliveries_destination"),
)
_PLAIN = (
    ("series", "ix_series_state", ["state", "id"]),
    ("series", "ix_series_modality", ["modality", "id"]),
    ("series", "ix_series_last_received_at", ["last_received_at"]),
    ("jobs", "ix_jobs_state", ["state", "id"]),
    ("jobs", "ix_jobs_kind", ["kind", "id"]),
    ("jobs", "ix_jobs_created_at", ["created_at"]),
    ("deliveries", "ix_deliveries_state", ["state", "id"]),
    ("deliveries", "ix_deliveries_destination", ["destination", "state", "id"]),
)
_PREFIX = (
    ("series", "ix_series_uid_prefix", "series_instance_uid"),
    ("series", "ix_series_study_prefix", "study_instance_uid"),
    ("series", "ix_series_calling_prefix", "calling_ae"),
    ("jobs", "ix_jobs_key_prefix", "key"),
    ("jobs", "ix_jobs_destination_prefix", "destination"),
    ("deliveries", "ix_deliveries_uid_prefix", "sop_instance_uid"),
    ("events", "ix_events_name", "name"),
)


def upgrade() -> None:
    """Replace indices that a longer one covers, and add the others."""
    for table, name in _GONE:
        op.drop_index(op.f(name), table_name=table)
    for table, name, columns in _PLAIN:
        op.create_index(op.f(name), table, columns, unique=False)
    for table, name, column in _PREFIX:
        op.create_index(
            op.f(name), table, [column], unique=False, postgresql_ops={column: "varchar_pattern_ops"}
        )
