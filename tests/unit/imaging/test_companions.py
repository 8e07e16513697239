"""The Parametric Map and the report beside a derived series: linked, valid, and true to the patient's bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.errors import Reason
from dicom_node.imaging.companions import Companions, CompanionWork, VolumeFigures, write_companions
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.elements import canonical, quiet
from dicom_node.imaging.phantom_enhanced import write_enhanced
from dicom_node.imaging.series import derive_source, read_source
from dicom_node.imaging.uids import UidPlan
from dicom_node.imaging.verify_tools import validator_messages
from engine.volume import Volume

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"

Accompany = Callable[..., tuple[Companions, list[Path]]]


@pytest.fixture
def accompany(provenance: Provenance, tmp_path: Path) -> Accompany:
    """Derive a series and write what accompanies it; return that and the derived files."""

    def run(paths: list[Path], *, estimated: bool = True, **asked: bool) -> tuple[Companions, list[Path]]:
        source = read_source(paths)
        directory = tmp_path / "derived"
        directory.mkdir()
        volumes = [part.volume.with_array(part.volume.array + np.float32(1)) for part in source.volumes]
        derived = derive_source(
            source,
            volumes,
            provenance=provenance,
            policy=DerivationPolicy(),
            uids=UidPlan("job"),
            directory=directory,
        )
        work = CompanionWork(
            source=source,
            derived=derived,
            uncertainty=tuple(deviation(volume) if estimated else None for volume in volumes),
            figures=tuple(VolumeFigures(part.label, 12.5, 4.5) for part in source.volumes),
            provenance=provenance,
            policy=DerivationPolicy(),
            uids=UidPlan("job"),
            directory=directory,
            taken_series_numbers=frozenset({7003}),
        )
        wanted = {"uncertainty_map": True, "quality_report": True, **asked}
        return write_companions(work, **wanted), [instance.path for instance in derived]

    return run


def deviation(volume: Volume) -> Volume:
    """A standard deviation that differs from voxel to voxel."""
    return volume.with_array(np.float32(1) + np.abs(volume.array) / np.float32(500))


def read(path: Path) -> FileDataset:
    """Parse a file."""
    with quiet():
        return dcmread(path)


def test_a_series_gets_a_map_and_a_report_with_numbers_of_their_own(
    write_ct: Callable[..., list[Path]], accompany: Accompany
) -> None:
    paths = write_ct()
    made, derived = accompany(paths)
    pm, sr = (read(instance.path) for instance in made.instances)
    assert [i.sop_class_uid for i in made.instances] == [PARAMETRIC_MAP, COMPREHENSIVE_SR]
    assert made.notes == {}
    assert [pm.SeriesNumber, sr.SeriesNumber] == [7004, 7005]  # 7002 is the derived series, 7003 is taken
    assert len({pm.SeriesInstanceUID, sr.SeriesInstanceUID, read(derived[0]).SeriesInstanceUID}) == 3
    assert [instance.position for instance in made.instances] == [len(paths), len(paths) + 1]


def test_the_map_holds_the_deviation_slice_by_slice_and_names_both_series(
    write_ct: Callable[..., list[Path]], accompany: Accompany
) -> None:
    paths = write_ct()
    made, derived = accompany(paths, quality_report=False)
    pm = read(made.instances[0].path)
    expected = deviation(read_source(derived).volume).array
    found = np.frombuffer(pm.FloatPixelData, "<f4").reshape(expected.shape)
    heights = [group.PlanePositionSequence[0].ImagePositionPatient[2] for group in pm[0x52009230]]
    assert np.allclose(found[np.argsort(heights)], expected, rtol=1e-2)
    referred = {
        instance.ReferencedSOPInstanceUID
        for series in pm.ReferencedSeriesSequence
        for instance in series.ReferencedInstanceSequence
    }
    assert referred == {read(path).SOPInstanceUID for path in (*paths, *derived)}
    assert list(pm.ImageType)[3] == "STD_DEVIATION"
    assert pm.FrameOfReferenceUID == read(paths[0]).FrameOfReferenceUID


def test_the_report_names_the_model_and_the_noise_of_both_series(
    write_ct: Callable[..., list[Path]], accompany: Accompany
) -> None:
    paths = write_ct()
    made, derived = accompany(paths, uncertainty_map=False)
    text = made.instances[0].path.read_bytes().decode("latin-1")
    assert "classical-dct-wiener" in text
    assert "0123456789abcdef" * 4 in text
    assert "12.5" in text
    assert "4.5" in text
    assert "Usable - Meets the quality control standard" in text
    for path in (*paths, *derived):
        assert read(path).SOPInstanceUID in text


@pytest.mark.usefixtures("dciodvfy")
@pytest.mark.parametrize("kind", ["CT", "MR", "Enhanced CT"])
def test_no_companion_draws_a_message_that_its_source_does_not(
    kind: str,
    write_ct: Callable[..., list[Path]],
    write_mr: Callable[..., list[Path]],
    ct_volume: Volume,
    accompany: Accompany,
    tmp_path: Path,
) -> None:
    if kind == "Enhanced CT":
        paths = [
            write_enhanced(
                [ct_volume, ct_volume], tmp_path / "e.dcm", attributes={"BodyPartExamined": "HEAD"}
            )
        ]
    else:
        paths = write_ct() if kind == "CT" else write_mr()
    made, _ = accompany(paths)
    assert made.notes == {}
    known = validator_messages(paths[0])
    for instance in made.instances:
        assert validator_messages(instance.path) - known == set()


def test_patient_and_study_are_the_source_s_to_the_byte(
    write_ct: Callable[..., list[Path]], edit: Callable[..., None], accompany: Accompany
) -> None:
    def odd(ds: FileDataset) -> None:
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        ds.PatientName = "Yamada^Tarou=山田^太郎"
        ds.PatientSex = "X"
        ds.PatientBirthDate = "00000000"
        ds.ReferringPhysicianName = "鈴木"

    paths = write_ct()
    for path in paths:
        edit(path, odd)
    made, _ = accompany(paths)
    source = read(paths[0])
    assert len(made.instances) == 2
    for instance in made.instances:
        ds = read(instance.path)
        for keyword in (
            "PatientName",
            "PatientSex",
            "PatientBirthDate",
            "PatientID",
            "ReferringPhysicianName",
        ):
            assert canonical(ds, keyword) == canonical(source, keyword)
        assert canonical(ds, "StudyInstanceUID") == canonical(source, "StudyInstanceUID")
        assert b"NOBODY" not in instance.path.read_bytes()


def test_an_enhancer_without_uncertainty_leaves_a_note_and_no_map(
    write_ct: Callable[..., list[Path]], accompany: Accompany
) -> None:
    made, _ = accompany(write_ct(), estimated=False)
    assert [i.sop_class_uid for i in made.instances] == [COMPREHENSIVE_SR]
    assert made.notes == {"uncertainty_map": str(Reason.NO_UNCERTAINTY)}


def test_a_source_that_no_map_can_be_made_of_costs_the_derived_series_nothing(
    write_ct: Callable[..., list[Path]], accompany: Accompany
) -> None:
    made, derived = accompany(write_ct(attributes={"FrameOfReferenceUID": None}))
    assert made.notes["uncertainty_map"].startswith(str(Reason.COMPANION_FAILED))
    assert all(path.exists() for path in derived)
