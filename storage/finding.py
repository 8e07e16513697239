"""Find what a UID or an accession number is about: series, by whatever of them it names.

Accession numbers are kept as keyed hashes only, made by whoever holds the key; see `dicom_node.desk.why_not`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from storage.database import Database
from storage.desk_tables import SeriesLabelRow
from storage.mapping import association_record
from storage.records import AssociationRecord
from storage.tables import AssociationRow, CarriedRow, DerivedRow, InstanceRow, SeriesRow

_MOST = 50


@dataclass(frozen=True)
class Found:
    """One series and how it was found: study, series, instance, derived series, derived instance, accession."""

    series_id: int
    by: str


class Finder:
    """Read-only, but for the labels. Each call is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_uid(self, uid: str) -> list[Found]:
        """The series that this UID names or is part of, newest first, at most 50."""
        ways = (
            ("series", select(SeriesRow.id).where(SeriesRow.series_instance_uid == uid)),
            ("study", select(SeriesRow.id).where(SeriesRow.study_instance_uid == uid)),
            ("instance", select(InstanceRow.series_id).where(InstanceRow.sop_instance_uid == uid)),
            ("derived series", select(DerivedRow.series_id).where(DerivedRow.series_instance_uid == uid)),
            ("derived instance", select(DerivedRow.series_id).where(DerivedRow.sop_instance_uid == uid)),
        )
        found: dict[int, str] = {}
        with self._database.reading() as session:
            for by, query in ways:
                for number in session.scalars(query.distinct().limit(_MOST)):
                    found.setdefault(number, by)
        return [Found(number, by) for number, by in sorted(found.items(), reverse=True)][:_MOST]

    def by_accession(self, accession_hash: str) -> list[Found]:
        """The series labelled with this hash, newest first, at most 50."""
        query = (
            select(SeriesLabelRow.series_id)
            .where(SeriesLabelRow.accession_hash == accession_hash)
            .order_by(SeriesLabelRow.series_id.desc())
            .limit(_MOST)
        )
        with self._database.reading() as session:
            return [Found(number, "accession number") for number in session.scalars(query)]

    def unlabelled(self, limit: int) -> list[int]:
        """Series without labels yet, newest first."""
        labelled = select(SeriesLabelRow.series_id).where(SeriesLabelRow.series_id == SeriesRow.id).exists()
        query = select(SeriesRow.id).where(~labelled).order_by(SeriesRow.id.desc()).limit(limit)
        with self._database.reading() as session:
            return list(session.scalars(query))

    def label(self, hashes: Mapping[int, str | None]) -> None:
        """Keep the accession hash of each series; one that was labelled meanwhile keeps its own."""

        def work() -> None:
            with self._database.writing() as session:
                known = set(
                    session.scalars(
                        select(SeriesLabelRow.series_id).where(SeriesLabelRow.series_id.in_(hashes))
                    )
                )
                session.add_all(
                    SeriesLabelRow(series_id=number, accession_hash=found)
                    for number, found in hashes.items()
                    if number not in known
                )

        self._database.retrying(work)

    def associations(self, series_id: int) -> list[AssociationRecord]:
        """The associations that carried a series, oldest first."""
        query = (
            select(AssociationRow)
            .join(CarriedRow, CarriedRow.association_id == AssociationRow.id)
            .where(CarriedRow.series_id == series_id)
            .order_by(AssociationRow.id)
            .limit(1000)
        )
        with self._database.reading() as session:
            return [association_record(row) for row in session.scalars(query)]

    def series_of_association(self, association_id: int) -> list[int]:
        """The series that an association carried."""
        query = select(CarriedRow.series_id).where(CarriedRow.association_id == association_id)
        with self._database.reading() as session:
            return sorted(session.scalars(query))
