"""What an audit record says beyond its event: which association, which study, how many instances of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from storage.database import Database
from storage.states import JobKind
from storage.tables import AssociationRow, CarriedRow, DerivedRow, InstanceRow, JobRow, SeriesRow


@dataclass(frozen=True)
class Caller:
    """Who was at the other end of an association."""

    calling_ae: str
    called_ae: str
    peer_host: str


@dataclass(frozen=True)
class StudyPart:
    """Instances of one study: how many of each SOP class."""

    study_instance_uid: str
    instances: Mapping[str, int]


@dataclass(frozen=True)
class JobFacts:
    """A job as an audit record sees it; `instances` are the derived ones that it made or delivers."""

    kind: JobKind
    destination: str | None
    study_instance_uid: str
    series_instance_uid: str
    instances: Mapping[str, int]


class AuditFacts:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def caller(self, association_id: int) -> Caller | None:
        """The other end of an association; None when its row is gone."""
        with self._database.reading() as session:
            row = session.get(AssociationRow, association_id)
            return None if row is None else Caller(row.calling_ae, row.called_ae, row.peer_host)

    def received(self, association_id: int) -> list[StudyPart]:
        """What an association stored, one part for each study, in the order of the study UIDs."""
        carried = select(CarriedRow.series_id).where(CarriedRow.association_id == association_id)
        query = (
            select(SeriesRow.study_instance_uid, InstanceRow.sop_class_uid, func.count())
            .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            .where(InstanceRow.association_id == association_id, InstanceRow.series_id.in_(carried))
            .group_by(SeriesRow.study_instance_uid, InstanceRow.sop_class_uid)
        )
        studies: dict[str, Counter[str]] = {}
        with self._database.reading() as session:
            for study, sop_class, count in session.execute(query):
                studies.setdefault(study, Counter())[sop_class] += count
        return [StudyPart(study, counts) for study, counts in sorted(studies.items())]

    def study_of(self, series_id: int) -> str | None:
        """The Study Instance UID of a series."""
        with self._database.reading() as session:
            return session.scalar(select(SeriesRow.study_instance_uid).where(SeriesRow.id == series_id))

    def job(self, job_id: int) -> JobFacts | None:
        """A job, its study, and the derived instances it made or delivers; None when its row is gone."""
        with self._database.reading() as session:
            row = session.get(JobRow, job_id)
            series = None if row is None else session.get(SeriesRow, row.series_id)
            if row is None or series is None:
                return None
            made_by = row.id if row.kind == JobKind.ENHANCE else row.parent_id
            counts = session.execute(
                select(DerivedRow.sop_class_uid, func.count())
                .where(DerivedRow.job_id == made_by)
                .group_by(DerivedRow.sop_class_uid)
            )
            instances = {str(sop_class): int(count) for sop_class, count in counts}
            made = select(DerivedRow.series_instance_uid).where(DerivedRow.job_id == made_by).limit(1)
            return JobFacts(
                kind=JobKind(row.kind),
                destination=row.destination,
                study_instance_uid=series.study_instance_uid,
                series_instance_uid=session.scalar(made) or series.series_instance_uid,
                instances=instances,
            )
