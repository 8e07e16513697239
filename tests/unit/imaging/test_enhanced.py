"""Enhanced CT and MR objects: taken apart frame by frame, enhanced volume by volume, written as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import DerivedInstance
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.eligibility import AssemblyPolicy
from dicom_node.imaging.phantom_enhanced import write_enhanced
from dicom_node.imaging.series import derive_source, judge_series, read_headers_of, read_source, verify_source
from dicom_node.imaging.series_reader import SourceSeries
from dicom_node.imaging.uids import UidPlan
from dicom_node.imaging.verify import ASSERTIONS
from dicom_node.imaging.verify_enhanced import ENHANCED_ASSERTIONS
from engine.volume import Volume

POLICY = AssemblyPolicy(minimum_slices=2)


@pytest.fixture
def two_times(ct_volume: Volume) -> list[Volume]:
    """The CT volume at two time points, the second one brighter."""
    return [ct_volume, replace(ct_volume, array=ct_volume.array + np.float32(100))]


def enhance(source: SourceSeries) -> list[Volume]:
    """A change of a known kind: rows up and down by turns."""
    made = []
    for part in source.volumes:
        array = part.volume.array.copy()
        array[:, ::2] += np.float32(1.5)
        array[:, 1::2] -= np.float32(1.5)
        made.append(part.volume.with_array(array))
    return made


Derive = Callable[..., tuple[tuple[DerivedInstance, ...], SourceSeries]]


@pytest.fixture
def derive(provenance: Provenance, tmp_path: Path) -> Derive:
    """Derive Enhanced objects; return what was written, and the source."""

    def run(paths: list[Path], **more: object) -> tuple[tuple[DerivedInstance, ...], SourceSeries]:
        source = read_source(paths, POLICY)
        directory = tmp_path / "derived"
        directory.mkdir()
        policy = more.pop("policy", DerivationPolicy())
        derived = derive_source(
            source,
            enhance(source),
            provenance=provenance,
            policy=policy,  # type: ignore[arg-type]
            uids=UidPlan("job"),
            directory=directory,
            **more,  # type: ignore[arg-type]
        )
        return derived, source

    return run


def failures(
    paths: list[Path], derived: tuple[DerivedInstance, ...], **more: object
) -> list[tuple[int, str]]:
    """The assertions that do not hold."""
    report = verify_source(
        paths,
        [d.path for d in derived],
        policy=DerivationPolicy(),
        **more,  # type: ignore[arg-type]
    )
    return [(check.number, check.detail) for check in report.checks if not check.passed]


def test_both_gates_make_the_same_thirty_assertions() -> None:
    assert [(n, title) for n, title, _ in ENHANCED_ASSERTIONS] == [(n, title) for n, title, _ in ASSERTIONS]


def test_frames_are_sorted_into_their_volumes_with_their_own_rescale(
    two_times: list[Volume], tmp_path: Path
) -> None:
    path = write_enhanced(two_times, tmp_path / "e.dcm", slopes=(1.0, 0.8, 0.6))
    source = read_source([path], POLICY)
    assert [part.label for part in source.volumes] == [
        "TemporalPositionIdentifier 1",
        "TemporalPositionIdentifier 2",
    ]
    for part, volume in zip(source.volumes, two_times, strict=True):
        assert np.allclose(part.volume.affine, volume.affine, atol=1e-4)
        assert np.abs(part.volume.array - np.clip(volume.array, -1024, None)).max() <= 0.5


@pytest.mark.usefixtures("dciodvfy")
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_derived_object_passes_every_assertion_and_draws_no_message(
    modality: str, two_times: list[Volume], mr_volume: Volume, derive: Derive, tmp_path: Path
) -> None:
    volumes = two_times if modality == "CT" else [mr_volume]
    path = write_enhanced(volumes, tmp_path / "e.dcm")
    derived, source = derive([path], parameters=[{"sigma": float(n)} for n in range(len(volumes))])
    assert len(derived) == 1
    assert derived[0].sop_class_uid == dcmread(path, stop_before_pixels=True).SOPClassUID
    assert failures([path], derived, validators=True) == []
    for part, expected in zip(read_source([derived[0].path]).volumes, enhance(source), strict=True):
        assert np.abs(part.volume.array - np.clip(expected.array, part.volume.array.min(), None)).max() <= 0.5


def test_every_frame_says_what_became_of_it_and_from_where(
    two_times: list[Volume], derive: Derive, tmp_path: Path
) -> None:
    path = write_enhanced(two_times, tmp_path / "e.dcm")
    derived, _ = derive([path], parameters=[{"sigma": 1.0}, {"sigma": 2.0}])
    with quiet():
        before, after = dcmread(path), dcmread(derived[0].path)
    assert list(after.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "FILTERED"]
    assert after.DeviceSerialNumber == "NONE"
    for number, group in enumerate(after.PerFrameFunctionalGroupsSequence, 1):
        (kind,) = group.CTImageFrameTypeSequence
        assert list(kind.FrameType) == ["DERIVED", "PRIMARY", "VOLUME", "FILTERED"]
        (item,) = group.DerivationImageSequence
        (image,) = item.SourceImageSequence
        assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == (
            before.SOPInstanceUID,
            number,
        )
        assert f"sigma={2 - number % 2}" in item.DerivationDescription
        assert (
            group.FrameContentSequence
            == before.PerFrameFunctionalGroupsSequence[number - 1].FrameContentSequence
        )
    assert "DerivationDescription" not in after
    assert (
        after.SourceImageEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID
        == before.SeriesInstanceUID
    )


def test_a_derivation_that_all_frames_shared_moves_into_each(
    ct_volume: Volume, derive: Derive, tmp_path: Path
) -> None:
    def share(ds: Dataset) -> None:
        earlier = Dataset()
        earlier.DerivationDescription = "Averaged"
        ds.SharedFunctionalGroupsSequence[0].DerivationImageSequence = [earlier]

    path = write_enhanced([ct_volume], tmp_path / "e.dcm")
    change(path, share)
    derived, _ = derive([path])
    with quiet():
        after = dcmread(derived[0].path)
    assert "DerivationImageSequence" not in after.SharedFunctionalGroupsSequence[0]
    for group in after.PerFrameFunctionalGroupsSequence:
        assert group.DerivationImageSequence[0].DerivationDescription == "Averaged"
        assert len(group.DerivationImageSequence) == 2
    assert failures([path], derived) == []


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_frames_are_read_as_well(
    syntax: str, ct_volume: Volume, derive: Derive, tmp_path: Path
) -> None:
    path = write_enhanced([ct_volume], tmp_path / "e.dcm", syntax=syntax)
    derived, _ = derive([path])
    assert failures([path], derived) == []


def test_a_series_of_one_object_per_time_point_stays_one_of_each(
    two_times: list[Volume], derive: Derive, tmp_path: Path
) -> None:
    first = write_enhanced(two_times[:1], tmp_path / "1.dcm")
    with quiet():
        ds = dcmread(first, stop_before_pixels=True)
    same = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    keep = {keyword: ds[keyword].value for keyword in same}
    second = write_enhanced(two_times[1:], tmp_path / "2.dcm", attributes={**keep, "InstanceNumber": 2})
    derived, source = derive([first, second])
    assert len(source.volumes) == len(derived) == 2
    assert failures([first, second], derived) == []


def change(path: Path, edit: Callable[[Dataset], None]) -> None:
    """Change a file in place."""
    with quiet():
        ds = dcmread(path)
        edit(ds)
        ds.save_as(path)


def drop_groups(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence


def lose_a_group(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[-1]


def concatenate(ds: Dataset) -> None:
    ds.ConcatenationUID = "1.2.3"


def derived_map(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.CTImageFrameTypeSequence[0].FrameType = ["DERIVED", "PRIMARY", "VOLUME", "MIP"]


def one_localizer(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType[2] = "LOCALIZER"


def colour(ds: Dataset) -> None:
    ds.SamplesPerPixel = 3


def no_positions(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def zero_slope(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0].RescaleSlope = 0


def conversion(ds: Dataset) -> None:
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.2"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (drop_groups, Reason.MULTI_FRAME),
        (lose_a_group, Reason.MULTI_FRAME),
        (concatenate, Reason.MULTI_FRAME),
        (conversion, Reason.MULTI_FRAME),
        (derived_map, Reason.NOT_SOURCE_IMAGE),
        (one_localizer, Reason.LOCALIZER),
        (colour, Reason.SECONDARY_CAPTURE),
        (no_positions, Reason.NO_GEOMETRY),
        (zero_slope, Reason.BAD_RESCALE),
    ],
)
def test_an_object_that_is_no_set_of_volumes_is_left_alone_with_its_reason(
    edit: Callable[[Dataset], None], reason: Reason, ct_volume: Volume, tmp_path: Path
) -> None:
    path = write_enhanced([ct_volume], tmp_path / "e.dcm")
    change(path, edit)
    with pytest.raises(SkipSeriesError) as caught:
        judge_series(read_headers_of([path]), POLICY)
    assert caught.value.reason is reason
    assert reason is not Reason.MULTI_FRAME or caught.value.detail


def test_a_multi_frame_object_among_single_images_is_left_out(
    ct_volume: Volume, write_ct: Callable[..., list[Path]], tmp_path: Path
) -> None:
    path = write_enhanced([ct_volume], tmp_path / "e.dcm")
    plan = judge_series(read_headers_of([*write_ct(), path]), POLICY)
    assert [entry.reason for entry in plan.left_out] == [Reason.MULTI_FRAME]


def spoil_type(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[3].CTImageFrameTypeSequence[0].FrameType[0] = "ORIGINAL"


def spoil_position(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient[0] += 1


def spoil_slope(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[3].PixelValueTransformationSequence[0].RescaleSlope = 2


def spoil_source(ds: Dataset) -> None:
    item = ds.PerFrameFunctionalGroupsSequence[3].DerivationImageSequence[-1]
    item.SourceImageSequence[0].ReferencedFrameNumber = 1


def spoil_code(ds: Dataset) -> None:
    item = ds.PerFrameFunctionalGroupsSequence[3].DerivationImageSequence[-1]
    item.DerivationCodeSequence[0].CodeMeaning = "Sharpening"


def spoil_evidence(ds: Dataset) -> None:
    del ds.SourceImageEvidenceSequence


def spoil_content(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[3].FrameContentSequence[0].FrameComments = "new"


def spoil_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-2880]


def spoil_patient(ds: Dataset) -> None:
    ds.PatientID = "OTHER"


def spoil_serial(ds: Dataset) -> None:
    ds.DeviceSerialNumber = "E-0001"


@pytest.mark.parametrize(
    ("edit", "number"),
    [
        (spoil_type, 8),
        (spoil_position, 10),
        (spoil_slope, 14),
        (spoil_source, 21),
        (spoil_code, 20),
        (spoil_evidence, 22),
        (spoil_content, 28),
        (spoil_pixels, 12),
        (spoil_patient, 5),
        (spoil_serial, 24),
    ],
)
def test_a_spoilt_derived_object_fails_its_assertion(
    edit: Callable[[Dataset], None], number: int, ct_volume: Volume, derive: Derive, tmp_path: Path
) -> None:
    path = write_enhanced([ct_volume], tmp_path / "e.dcm")
    derived, _ = derive([path])
    change(derived[0].path, edit)
    assert number in [failed for failed, _ in failures([path], derived)]
