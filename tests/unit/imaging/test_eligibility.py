"""What becomes of a series, by what its headers say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.eligibility import AssemblyPolicy, Evidence, check_series
from dicom_node.imaging.headers import read_header

Edit = Callable[[Path, Callable[[FileDataset], None]], None]
Write = Callable[..., list[Path]]


def check(paths: list[Path], **changes: object) -> Evidence:
    """Judge the files as intake does, eight slices at least."""
    policy = AssemblyPolicy(**changes)  # type: ignore[arg-type]
    return check_series([read_header(path) for path in paths], policy).evidence


def test_a_regular_ct_series_is_enhanced_on_the_evidence_of_its_geometry(write_ct: Write) -> None:
    evidence = check(write_ct())

    assert evidence.level == "geometry"
    assert evidence.found == 10
    assert evidence.spacing_mm == pytest.approx(3.0)
    assert evidence.gaps == ()


def test_the_order_of_arrival_does_not_matter(write_ct: Write) -> None:
    assert check(list(reversed(write_ct()))).spacing_mm == pytest.approx(3.0)


def test_a_series_that_states_its_count_is_complete_by_count(write_ct: Write) -> None:
    evidence = check(write_ct(attributes={"ImagesInAcquisition": 10}))

    assert (evidence.level, evidence.expected_count) == ("count", 10)


SKIPPED_CT: list[tuple[str, Mapping[str, object], Reason]] = [
    ("localizers", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
    ("reformats", {"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, Reason.NOT_SOURCE_IMAGE),
    ("projections", {"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE"]}, Reason.NOT_SOURCE_IMAGE),
    ("workstation output", {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, Reason.NOT_SOURCE_IMAGE),
    ("sampled volumes", {"VolumetricProperties": "SAMPLED"}, Reason.NOT_SOURCE_IMAGE),
    ("secondary capture", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.SECONDARY_CAPTURE),
    ("true colour capture", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, Reason.SECONDARY_CAPTURE),
    ("colour", {"SamplesPerPixel": 3}, Reason.SECONDARY_CAPTURE),
    ("Enhanced CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, Reason.MULTI_FRAME),
    ("several frames", {"NumberOfFrames": 3}, Reason.MULTI_FRAME),
    ("PET", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, Reason.UNSUPPORTED_SOP_CLASS),
    ("8 bits", {"BitsAllocated": 8}, Reason.UNSUPPORTED_PIXELS),
    ("palette", {"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED_PIXELS),
    ("impossible high bit", {"HighBit": 5}, Reason.UNSUPPORTED_PIXELS),
    ("burned-in text", {"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
    ("multi-energy", {"MultienergyCTAcquisition": "YES"}, Reason.UNVALIDATED_CONTRAST),
    ("virtual energy", {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "VMI"]}, Reason.UNVALIDATED_CONTRAST),
    ("atomic number", {"RescaleType": "Z_EFF"}, Reason.UNVALIDATED_CONTRAST),
    ("no slope", {"RescaleSlope": None}, Reason.BAD_RESCALE),
    ("no intercept", {"RescaleIntercept": None}, Reason.BAD_RESCALE),
    ("slope zero", {"RescaleSlope": "0"}, Reason.BAD_RESCALE),
    ("no position", {"ImagePositionPatient": None}, Reason.NO_GEOMETRY),
    ("no orientation", {"ImageOrientationPatient": None}, Reason.NO_GEOMETRY),
    ("no spacing", {"PixelSpacing": None}, Reason.NO_GEOMETRY),
    ("spacing zero", {"PixelSpacing": ["0", "0"]}, Reason.NO_GEOMETRY),
    ("no direction", {"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, Reason.NO_GEOMETRY),
    ("own model", {"ManufacturerModelName": "dicom-enhancement-node"}, Reason.ALREADY_PROCESSED),
    (
        "own maker and term",
        {
            "Manufacturer": "DICOM Enhancement Node",
            "ImageType": ["DERIVED", "PRIMARY", "AXIAL", "", "DENOISED"],
        },
        Reason.ALREADY_PROCESSED,
    ),
]


@pytest.mark.parametrize(
    ("attributes", "reason"), [(a, r) for _, a, r in SKIPPED_CT], ids=[name for name, _, _ in SKIPPED_CT]
)
def test_ct_that_is_left_alone_says_why(
    write_ct: Write, attributes: Mapping[str, object], reason: Reason
) -> None:
    with pytest.raises(SkipSeriesError) as caught:
        check(write_ct(attributes=attributes))

    assert caught.value.reason is reason
    assert caught.value.evidence["found"] == 10


SKIPPED_MR: list[tuple[str, Mapping[str, object], Reason]] = [
    ("mosaic", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, Reason.MOSAIC),
    ("phase map", {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP"]}, Reason.NOT_SOURCE_IMAGE),
    (
        "apparent diffusion",
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
        Reason.NOT_SOURCE_IMAGE,
    ),
    ("phase", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, Reason.UNVALIDATED_CONTRAST),
    ("real part", {"ComplexImageComponent": "REAL"}, Reason.UNVALIDATED_CONTRAST),
    ("slope without intercept", {"RescaleSlope": "2"}, Reason.BAD_RESCALE),
]


@pytest.mark.parametrize(
    ("attributes", "reason"), [(a, r) for _, a, r in SKIPPED_MR], ids=[name for name, _, _ in SKIPPED_MR]
)
def test_mr_that_is_left_alone_says_why(
    write_mr: Write, attributes: Mapping[str, object], reason: Reason
) -> None:
    with pytest.raises(SkipSeriesError) as caught:
        check(write_mr(attributes=attributes))

    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("creator", "tag", "vr", "value"),
    [
        ("SIEMENS MR HEADER", 0x0019100C, "IS", "1000"),
        ("GEMS_PARM_01", 0x00431039, "IS", ["1000000800", "8", "0", "0"]),
        ("Philips Imaging DD 001", 0x20011003, "FL", 800.0),
        ("Image Private Header", 0x00651009, "FD", 700.0),
    ],
)
def test_the_b_value_is_found_where_each_vendor_keeps_it(
    write_mr: Write, edit: Edit, creator: str, tag: int, vr: str, value: object
) -> None:
    paths = write_mr()

    def mark(ds: FileDataset) -> None:
        ds.add_new(tag & 0xFFFF0000 | 0x10, "LO", creator)
        ds.add_new(tag, vr, value)

    for path in paths:
        edit(path, mark)

    assert check(paths).found == 10
    with pytest.raises(SkipSeriesError) as caught:
        check(paths, diffusion="leave_alone")
    assert caught.value.reason is Reason.UNVALIDATED_CONTRAST


def test_a_b_value_of_zero_is_no_diffusion_weighting(write_mr: Write) -> None:
    assert check(write_mr(attributes={"DiffusionBValue": 0.0}), diffusion="leave_alone").found == 10


@pytest.mark.parametrize(
    ("attributes", "taken"),
    [
        ({"MultienergyCTAcquisition": "YES"}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "VMI"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, False),
        ({"RescaleType": "Z_EFF"}, False),
    ],
)
def test_monoenergetic_images_in_hu_are_taken_where_the_policy_says_so(
    write_ct: Write, attributes: Mapping[str, object], taken: bool
) -> None:
    paths = write_ct(attributes=attributes)

    if taken:
        assert check(paths, monoenergetic="if_measurable").found == 10
    else:
        with pytest.raises(SkipSeriesError) as caught:
            check(paths, monoenergetic="if_measurable")
        assert caught.value.reason is Reason.UNVALIDATED_CONTRAST


def test_mr_without_rescale_is_enhanced(write_mr: Write) -> None:
    assert check(write_mr()).found == 10


def test_our_work_is_recognised_by_its_contributing_equipment(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()

    def sign(ds: FileDataset) -> None:
        item = Dataset()
        item.Manufacturer = "Somebody"
        item.ManufacturerModelName = "dicom-enhancement-node"
        ds.ContributingEquipmentSequence = [item]

    edit(paths[0], sign)

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.ALREADY_PROCESSED


def test_a_localizer_among_the_slices_is_left_out_and_named(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    edit(paths[0], lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))

    evidence = check(paths)

    assert [volume.slices for volume in evidence.volumes] == [9]
    assert [(e.sop_instance_uid, e.reason) for e in evidence.left_out] == [
        (read_header(paths[0]).sop_instance_uid, Reason.LOCALIZER)
    ]
    with pytest.raises(SkipSeriesError) as caught:
        check(paths, odd_slices="refuse")
    assert caught.value.reason is Reason.LOCALIZER


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]),
        ("Rows", 48),
        ("PixelSpacing", [0.5, 0.5]),
        ("ImagePositionPatient", None),
    ],
    ids=["orientation", "matrix", "pixel spacing", "no position"],
)
def test_a_single_slice_on_another_grid_is_left_out_at_the_end_and_holds_the_series_inside(
    write_ct: Write, edit: Edit, keyword: str, value: object
) -> None:
    paths = write_ct()
    edit(paths[9], lambda ds: setattr(ds, keyword, value))

    assert [e.reason for e in check(paths).left_out] in ([Reason.MIXED_GEOMETRY], [Reason.NO_GEOMETRY])
    with pytest.raises(SkipSeriesError) as caught:
        check(paths, odd_slices="refuse")
    assert caught.value.reason in (Reason.MIXED_GEOMETRY, Reason.NO_GEOMETRY)

    edit(paths[4], lambda ds: setattr(ds, keyword, value))
    with pytest.raises(HoldSeriesError) as held:
        check(paths)
    assert held.value.reason is Reason.MISSING_SLICE


def test_another_sign_in_one_slice_is_no_single_pixel_format(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    edit(paths[4], lambda ds: setattr(ds, "PixelRepresentation", 1))

    with pytest.raises(SkipSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize(("lossy", "refused"), [(True, False), (False, True)])
def test_lossy_images_are_taken_only_where_the_route_allows_them(
    write_ct: Write, lossy: bool, refused: bool
) -> None:
    paths = write_ct(attributes={"LossyImageCompression": "01"})

    if refused:
        with pytest.raises(SkipSeriesError) as caught:
            check(paths, allow_lossy=lossy)
        assert caught.value.reason is Reason.LOSSY_INPUT
    else:
        assert check(paths, allow_lossy=lossy).found == 10


def test_a_lossy_transfer_syntax_counts_as_lossy_without_the_flag(write_ct: Write) -> None:
    headers = [replace(read_header(p), transfer_syntax_uid=str(JPEGBaseline8Bit)) for p in write_ct()]

    with pytest.raises(SkipSeriesError) as caught:
        check_series(headers, AssemblyPolicy(allow_lossy=False))
    assert caught.value.reason is Reason.LOSSY_INPUT


def test_a_transfer_syntax_nobody_can_decode_is_an_unsupported_format(write_ct: Write) -> None:
    headers = [replace(read_header(p), transfer_syntax_uid="1.2.840.10008.1.2.4.94") for p in write_ct()]

    with pytest.raises(SkipSeriesError) as caught:
        check_series(headers, AssemblyPolicy())
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


def test_lossless_compression_is_welcome(write_ct: Write) -> None:
    assert check(write_ct(syntax=JPEG2000Lossless), allow_lossy=False).found == 10


def test_too_few_slices_are_left_alone(write_ct: Write) -> None:
    with pytest.raises(SkipSeriesError) as caught:
        check(write_ct(), minimum_slices=11)

    assert caught.value.reason is Reason.TOO_FEW_SLICES


# --- held for a person


def test_a_count_larger_than_what_arrived_holds_the_series_even_without_a_gap(write_ct: Write) -> None:
    paths = write_ct(attributes={"ImagesInAcquisition": 12})

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.MISSING_SLICE
    assert caught.value.evidence["expected_count"] == 12


def test_a_count_smaller_than_what_arrived_says_nothing(write_ct: Write) -> None:
    assert check(write_ct(attributes={"ImagesInAcquisition": 3})).level == "geometry"


def test_two_patients_in_one_series_hold_it(write_ct: Write, edit: Edit) -> None:
    paths = write_ct()
    edit(paths[5], lambda ds: setattr(ds, "PatientID", "SOMEBODY-ELSE"))

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.PATIENT_MISMATCH
    assert "SOMEBODY" not in str(caught.value) + str(caught.value.evidence)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "Manufacturer"])
def test_instances_that_disagree_on_identity_hold_the_series(
    write_ct: Write, edit: Edit, keyword: str
) -> None:
    paths = write_ct()
    edit(paths[5], lambda ds: setattr(ds, keyword, generate_uid()))

    with pytest.raises(HoldSeriesError) as caught:
        check(paths)
    assert caught.value.reason is Reason.MIXED_IDENTITY
    assert keyword in caught.value.detail


def test_one_instance_twice_holds_the_series(write_ct: Write) -> None:
    paths = write_ct()

    with pytest.raises(HoldSeriesError) as caught:
        check([*paths, paths[0]])
    assert caught.value.reason is Reason.UID_CONFLICT


def test_a_series_longer_than_the_limit_is_left_alone_and_the_limit_named(write_ct: Write) -> None:
    paths = write_ct()

    with pytest.raises(SkipSeriesError) as skipped:
        check(paths, most_slices=9)

    assert (skipped.value.reason, skipped.value.detail) == (Reason.TOO_LARGE, "10 slices of at most 9.")
    assert check(paths, most_slices=10).found == 10


def test_evidence_is_plain_json(write_ct: Write) -> None:
    import json

    assert json.loads(json.dumps(check(write_ct()).as_json()))["found"] == 10
