"""The first schema: associations, series, instances, jobs, manifests, deliveries and the trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    _create_associations()
    _create_destinations()
    _create_events()
    _create_series()
    _create_instances()
    _create_jobs()
    _create_series_associations()
    _create_derived()
    _create_deliveries()


def _create_associations() -> None:
    op.create_table(
        "associations",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("peer_host", sa.String(length=255), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ending", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
    )
    op.create_index(op.f("ix_associations_ended_at"), "associations", ["ended_at"], unique=False)


def _create_destinations() -> None:
    op.create_table(
        "destinations",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destinations")),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("series_id", ROW_ID, nullable=True),
        sa.Column("job_id", ROW_ID, nullable=True),
        sa.Column("association_id", ROW_ID, nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_job_id"), "events", ["job_id"], unique=False)
    op.create_index(op.f("ix_events_series_id"), "events", ["series_id"], unique=False)


def _create_series() -> None:
    op.create_table(
        "series",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("instance_count", sa.Integer(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("route", sa.String(length=255), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("first_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_association_id", ROW_ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["last_association_id"], ["associations.id"], name=op.f("fk_series_last_association_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint(
            "study_instance_uid",
            "series_instance_uid",
            name=op.f("uq_series_study_instance_uid_series_instance_uid"),
        ),
    )
    op.create_index(op.f("ix_series_last_association_id"), "series", ["last_association_id"], unique=False)
    op.create_index(op.f("ix_series_series_instance_uid"), "series", ["series_instance_uid"], unique=False)
    op.create_index(op.f("ix_series_state"), "series", ["state"], unique=False)


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("series_id", ROW_ID, nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("conflict", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("association_id", ROW_ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["association_id"], ["associations.id"], name=op.f("fk_instances_association_id")
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_instances_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("path", name=op.f("uq_instances_path")),
        sa.UniqueConstraint(
            "sop_instance_uid",
            "digest",
            "series_id",
            name=op.f("uq_instances_sop_instance_uid_digest_series_id"),
        ),
    )
    op.create_index(op.f("ix_instances_series_id"), "instances", ["series_id"], unique=False)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("series_id", ROW_ID, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.String(length=255), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("destination", sa.String(length=255), nullable=True),
        sa.Column("parent_id", ROW_ID, nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name=op.f("fk_jobs_parent_id")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_jobs_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("key", name=op.f("uq_jobs_key")),
    )
    op.create_index("ix_jobs_destination", "jobs", ["destination", "state"], unique=False)
    op.create_index(op.f("ix_jobs_parent_id"), "jobs", ["parent_id"], unique=False)
    op.create_index("ix_jobs_queue", "jobs", ["kind", "state", "not_before"], unique=False)
    op.create_index(op.f("ix_jobs_series_id"), "jobs", ["series_id"], unique=False)


def _create_series_associations() -> None:
    op.create_table(
        "series_associations",
        sa.Column("series_id", ROW_ID, nullable=False),
        sa.Column("association_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"], ["associations.id"], name=op.f("fk_series_associations_association_id")
        ),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_series_associations_series_id")),
        sa.PrimaryKeyConstraint("series_id", "association_id", name=op.f("pk_series_associations")),
    )
    op.create_index(
        op.f("ix_series_associations_association_id"), "series_associations", ["association_id"], unique=False
    )


def _create_derived() -> None:
    op.create_table(
        "derived",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("job_id", ROW_ID, nullable=False),
        sa.Column("series_id", ROW_ID, nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_derived_job_id")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_derived_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_derived")),
        sa.UniqueConstraint("job_id", "position", name=op.f("uq_derived_job_id_position")),
        sa.UniqueConstraint("path", name=op.f("uq_derived_path")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_derived_sop_instance_uid")),
    )
    op.create_index(op.f("ix_derived_series_id"), "derived", ["series_id"], unique=False)
    op.create_index(op.f("ix_derived_series_instance_uid"), "derived", ["series_instance_uid"], unique=False)


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("job_id", ROW_ID, nullable=False),
        sa.Column("derived_id", ROW_ID, nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["derived_id"], ["derived.id"], name=op.f("fk_deliveries_derived_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_deliveries_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("job_id", "derived_id", name=op.f("uq_deliveries_job_id_derived_id")),
    )
    op.create_index(op.f("ix_deliveries_derived_id"), "deliveries", ["derived_id"], unique=False)
    op.create_index(op.f("ix_deliveries_destination"), "deliveries", ["destination"], unique=False)
    op.create_index(op.f("ix_deliveries_state"), "deliveries", ["state"], unique=False)
