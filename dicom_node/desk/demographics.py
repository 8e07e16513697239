"""Who is on the images: read from a stored object when a person who may asks, told in the audit trail, kept nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from dicom_node.desk.desk import Desk
from dicom_node.imaging.elements import decoded_text, text
from dicom_node.imaging.parsing import read_dataset
from dicom_node.observability import events
from storage.errors import NotFoundError


@dataclass(frozen=True)
class Demographics:
    """What the first stored object of a series says; out of every representation, so that no log repeats it."""

    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    birth_date: str = field(repr=False)
    sex: str = field(repr=False)
    accession_number: str = field(repr=False)
    study_date: str = field(repr=False)
    study_description: str = field(repr=False)
    series_description: str = field(repr=False)


def reveal(desk: Desk, series_id: int, *, actor: str, host: str) -> Demographics:
    """Read them, after the look is in the audit trail. Raises `NotFoundError`, `UnreadableInstanceError`."""
    series = desk.store.index.get_series(series_id)
    found = desk.store.listing.instances(series_id, limit=1).items
    if not found:
        raise NotFoundError("instance of series", series_id)
    desk.store.trail.append(
        events.INSTANCES_VIEWED,
        series_id=series.id,
        data={"actor": actor, "host": host, "revealed": True},
    )
    ds = read_dataset(found[0].path, pixels=False)
    return Demographics(
        patient_name=decoded_text(ds, "PatientName"),
        patient_id=decoded_text(ds, "PatientID"),
        birth_date=text(ds, "PatientBirthDate"),
        sex=text(ds, "PatientSex"),
        accession_number=decoded_text(ds, "AccessionNumber"),
        study_date=text(ds, "StudyDate"),
        study_description=decoded_text(ds, "StudyDescription"),
        series_description=decoded_text(ds, "SeriesDescription"),
    )
