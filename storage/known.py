"""Which files in the storage directory belong to somebody; the sweeper's question."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.states import JobState
from storage.tables import DerivedRow, InstanceRow, JobRow


def known_paths(session: Session, paths: Collection[Path], root: Path) -> set[Path]:
    """Those that an instance or a manifest names, and those of an attempt that is running."""
    by_name = {path.relative_to(root).as_posix(): path for path in paths}
    names = list(by_name)
    rows = set(session.scalars(select(InstanceRow.path).where(InstanceRow.path.in_(names))))
    rows |= set(session.scalars(select(DerivedRow.path).where(DerivedRow.path.in_(names))))
    running = session.execute(select(JobRow.id, JobRow.token).where(JobRow.state == JobState.RUNNING))
    claims = {f"{job_id}/{token}" for job_id, token in running}
    rows |= {name for name in names if _claim_of(name) in claims}
    return {by_name[name] for name in rows}


def _claim_of(name: str) -> str | None:
    """Job and token in the name of a file below `derived/`."""
    parts = name.split("/")
    return "/".join(parts[1:3]) if parts[0] == "derived" and len(parts) > 3 else None
