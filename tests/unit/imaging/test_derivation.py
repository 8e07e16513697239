"""Attributes of derived instances, rule by rule, read back with pydicom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000Lossless

from config.imaging import DerivationSection
from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.eligibility import AssemblyPolicy, check_series
from dicom_node.imaging.headers import read_header
from dicom_node.imaging.series_reader import read_series

Write = Callable[..., list[Path]]
Edit = Callable[..., None]
Derive = Callable[..., tuple[object, ...]]


def test_study_patient_and_acquisition_are_the_sources(
    derived: Callable[..., FileDataset], tmp_path: Path
) -> None:
    ds = derived()
    source = dcmread(tmp_path / "source" / "0003.dcm")

    kept = (
        "StudyInstanceUID PatientName PatientID AccessionNumber StudyDate AcquisitionDate AcquisitionTime "
        "KVP ConvolutionKernel FrameOfReferenceUID ImagePositionPatient PixelSpacing InstanceNumber "
        "WindowCenter RescaleSlope BitsStored InstitutionName"
    )
    for keyword in kept.split():
        assert ds[keyword].value == source[keyword].value, keyword


def test_instance_and_series_are_new_and_say_what_they_are(derived: Callable[..., FileDataset]) -> None:
    ds = derived()

    assert ds.SOPInstanceUID.startswith("2.25.")
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    assert (ds.SeriesNumber, ds.SeriesDescription) == (7002, "HEAD 3.0 SOFT [AI-DN]")
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "AXIAL", "", "DENOISED"]
    assert ds.ContentQualification == "RESEARCH"
    assert ds.ImageComments == "AI noise-reduced, not for primary diagnosis"


def test_the_description_names_algorithm_version_digest_and_strength(
    derived: Callable[..., FileDataset],
) -> None:
    assert derived().DerivationDescription == (
        "Classical 3D noise reduction: classical-dct-wiener 1.2.3 sha256:0123456789ab strength=0.9 "
        "block=4 sigma=12.35 node 0.1.0"
    )


def test_the_derivation_is_coded_after_the_sources_own_codes(derived: Callable[..., FileDataset]) -> None:
    earlier = Dataset()
    earlier.CodeValue, earlier.CodingSchemeDesignator = "113062", "DCM"
    earlier.CodeMeaning = "Pixel by pixel subtraction"

    codes = derived(lambda ds: setattr(ds, "DerivationCodeSequence", Items([earlier]))).DerivationCodeSequence

    assert [(c.CodeValue, c.CodeMeaning) for c in codes] == [
        ("113062", "Pixel by pixel subtraction"),
        ("113087", "Smoothing"),
    ]


def test_what_the_source_said_about_itself_stays_in_front(derived: Callable[..., FileDataset]) -> None:
    ds = derived(attributes={"DerivationDescription": "resampled", "ImageComments": "32 CH"})

    assert ds.DerivationDescription.startswith("resampled; Classical 3D")
    assert ds.ImageComments == "32 CH; AI noise-reduced, not for primary diagnosis"


def test_a_long_description_of_the_source_gives_way(derived: Callable[..., FileDataset]) -> None:
    description = derived(attributes={"DerivationDescription": "x" * 1000}).DerivationDescription

    assert len(description) <= 1024
    assert description.endswith("node 0.1.0")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL", "", "DENOISED"]),
        (["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"], ["DERIVED", "PRIMARY", "AXIAL", "HELIX", "DENOISED"]),
        (
            ["ORIGINAL", "SECONDARY", "AXIAL", "A", "B"],
            ["DERIVED", "SECONDARY", "AXIAL", "A", "B", "DENOISED"],
        ),
        (["ORIGINAL", "OTHER"], ["DERIVED", "PRIMARY", "AXIAL", "", "DENOISED"]),
    ],
)
def test_image_type_keeps_the_sources_values_in_their_places(
    derived: Callable[..., FileDataset], source: list[str], expected: list[str]
) -> None:
    assert list(derived(attributes={"ImageType": source}).ImageType) == expected


def test_the_image_type_term_and_the_comment_can_be_switched_off(
    derived: Callable[..., FileDataset],
) -> None:
    ds = derived(policy=DerivationPolicy(image_type_term=False, comment=False))

    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert "ImageComments" not in ds


@pytest.mark.parametrize(
    ("taken", "expected"), [(frozenset(), 7002), (frozenset({7002}), 7003), (frozenset({7002, 7003}), 7004)]
)
def test_a_taken_series_number_is_stepped_over(
    derived: Callable[..., FileDataset], taken: frozenset[int], expected: int
) -> None:
    assert derived(taken_series_numbers=taken).SeriesNumber == expected


def test_the_numbers_of_neighbouring_series_are_read_from_their_files(
    derived: Callable[..., FileDataset], write_ct: Write
) -> None:
    neighbour = write_ct("neighbour", series_number=7002)[0]

    assert derived(neighbours=[neighbour, neighbour.parent / "gone"]).SeriesNumber == 7003


def test_a_source_without_series_number_counts_from_the_offset(derived: Callable[..., FileDataset]) -> None:
    assert derived(attributes={"SeriesNumber": None}).SeriesNumber == 7000


@pytest.mark.parametrize(
    ("description", "expected"),
    [("", "AI-DN"), ("A" * 64, "A" * 56 + " [AI-DN]"), ("Schädel", "Schädel [AI-DN]")],
)
def test_the_series_description_ends_with_the_suffix_within_64_characters(
    derived: Callable[..., FileDataset], description: str, expected: str
) -> None:
    assert derived(attributes={"SeriesDescription": description}).SeriesDescription == expected


def test_duplicate_instance_numbers_are_renumbered_by_position(
    write_ct: Write, derive: Derive, tmp_path: Path
) -> None:
    derive(write_ct(attributes={"InstanceNumber": 5}), tmp_path / "derived")

    numbers = [dcmread(p).InstanceNumber for p in sorted((tmp_path / "derived").iterdir())]

    assert numbers == list(range(1, 11))


@pytest.mark.parametrize(
    ("offset", "time"), [("+0200", "20300102050405.678901"), ("-0530", "20300101213405.678901")]
)
def test_new_times_stand_in_the_time_zone_of_the_object(
    derived: Callable[..., FileDataset], offset: str, time: str
) -> None:
    ds = derived(attributes={"TimezoneOffsetFromUTC": offset})

    assert ds.SeriesDate + ds.SeriesTime == time
    assert ds.ContentDate + ds.ContentTime == time
    assert ds.InstanceCreationDate + ds.InstanceCreationTime == time
    assert ds.ContributingEquipmentSequence[-1].ContributionDateTime == time
    assert ds.TimezoneOffsetFromUTC == offset


def test_what_described_the_source_object_is_gone(derived: Callable[..., FileDataset]) -> None:
    def burden(ds: FileDataset) -> None:
        ds.add_new("SmallestImagePixelValue", "US", 0)
        ds.add_new("LargestImagePixelValue", "US", 9)
        ds.PerformedProcedureStepID = "P1"
        icon = Dataset()
        icon.Rows = 1
        ds.IconImageSequence = [icon]
        ds.SeriesDescriptionCodeSequence = [Dataset()]
        ds.OriginalAttributesSequence = [Dataset()]
        ds.add_new(0x60000010, "US", 4)
        ds.add_new(0x00090010, "LO", "VENDOR")
        ds.add_new(0x00091001, "LO", "secret")
        nested = Dataset()
        nested.ScheduledProcedureStepID = "S1"
        nested.add_new(0x00090010, "LO", "VENDOR")
        ds.RequestAttributesSequence = [nested]
        ds.add_new(0xFFFCFFFC, "OB", b"\0\0")

    ds = derived(burden)

    gone = (
        "SmallestImagePixelValue LargestImagePixelValue PerformedProcedureStepID IconImageSequence "
        "SeriesDescriptionCodeSequence OriginalAttributesSequence DataSetTrailingPadding"
    )
    for keyword in gone.split():
        assert keyword not in ds
    assert not [e for e in ds.iterall() if e.tag.is_private or e.tag.group == 0x6000]
    assert ds.RequestAttributesSequence[0].ScheduledProcedureStepID == "S1"


def test_odd_values_of_the_source_survive_byte_for_byte(
    derived: Callable[..., FileDataset], tmp_path: Path
) -> None:
    odd = {
        "SliceThickness": "3.000000000000000000001",
        "PatientName": "NAME WITHOUT CARET",
        "PatientAge": "forty",
        "KVP": " 120.0 ",
    }

    def write_raw(ds: FileDataset) -> None:
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import Tag

        for keyword, value in odd.items():
            tag = Tag(keyword)
            content = value.encode() + b" " * (len(value) % 2)
            vr = {"PatientName": "PN", "PatientAge": "AS"}.get(keyword, "DS")
            ds[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)

    content_of = derived(write_raw)

    for keyword, value in odd.items():
        raw = content_of.get_item(keyword)
        assert raw is not None
        assert raw.value.rstrip(b" ") == value.encode().rstrip(b" ")  # type: ignore[union-attr]


def test_a_name_in_a_declared_character_set_is_not_recoded(
    derived: Callable[..., FileDataset], tmp_path: Path
) -> None:
    ds = derived(
        attributes={"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"}
    )

    source = dcmread(tmp_path / "source" / "0003.dcm")
    assert ds.get_item("PatientName").value == source.get_item("PatientName").value  # type: ignore[union-attr]
    assert str(ds.PatientName) == "Yamada^Tarou=山田^太郎"


@pytest.mark.parametrize(
    ("source", "expected"), [("PRODUCT", "RESEARCH"), ("RESEARCH", "RESEARCH"), ("SERVICE", "SERVICE")]
)
def test_the_qualification_is_never_better_than_the_sources(
    derived: Callable[..., FileDataset], source: str, expected: str
) -> None:
    assert derived(attributes={"ContentQualification": source}).ContentQualification == expected


def test_ct_that_left_its_unit_to_the_rule_says_hu(derived: Callable[..., FileDataset]) -> None:
    assert derived(attributes={"RescaleType": None}).RescaleType == "HU"


def test_nothing_is_added_to_mr_that_has_no_rescale(write_mr: Write, derive: Derive, tmp_path: Path) -> None:
    derive(write_mr(), tmp_path / "derived")

    ds = dcmread(tmp_path / "derived" / "00001.dcm")

    assert "RescaleSlope" not in ds
    assert "RescaleType" not in ds
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "OTHER", "", "DENOISED"]


def test_a_lossy_syntax_without_the_flag_is_admitted_in_the_derived_object(
    write_ct: Write, provenance: Provenance
) -> None:
    from dicom_node.imaging.derivation import derive_attributes, series_identity, value_of
    from dicom_node.imaging.uids import UidPlan

    source = read_series(write_ct())
    header = replace(source.slices[0].header, transfer_syntax_uid="1.2.840.10008.1.2.4.91")
    piece = replace(source.slices[0], header=header, native_share=7.512345)
    arguments = {"provenance": provenance, "policy": DerivationPolicy(), "uids": UidPlan("job-1")}
    identity = series_identity(source, taken_series_numbers=frozenset(), **arguments)  # type: ignore[arg-type]

    attributes = derive_attributes(piece, 0, identity=identity, **arguments)  # type: ignore[arg-type]

    assert value_of(attributes, "LossyImageCompression") == b"01"
    assert value_of(attributes, "LossyImageCompressionMethod") == b"ISO_15444_1 "
    assert value_of(attributes, "LossyImageCompressionRatio") == b"7.512 "


def test_a_compressed_source_becomes_a_native_object_without_fragments(
    write_ct: Write, derive: Derive, tmp_path: Path
) -> None:
    derive(write_ct(syntax=JPEG2000Lossless), tmp_path / "derived")

    ds = dcmread(tmp_path / "derived" / "00001.dcm")

    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert (ds["PixelData"].VR, len(ds.PixelData)) == ("OW", 40 * 36 * 2)


def test_provenance_without_a_time_zone_is_refused(provenance: Provenance) -> None:
    with pytest.raises(ValueError, match="time zone"):
        replace(provenance, processed_at=datetime(2030, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_a_title_outside_ascii_becomes_ascii(provenance: Provenance) -> None:
    assert replace(provenance, title="Räusch\\weg").description.startswith("R?usch?weg: ")


@pytest.mark.parametrize("field", ["description_suffix", "manufacturer", "station_name"])
def test_policy_text_that_not_every_character_set_holds_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        DerivationPolicy(**{field: "Entrauschung ö"})  # type: ignore[arg-type]


def test_the_policy_mirrors_the_derivation_section_of_the_configuration() -> None:
    section = DerivationSection()

    assert DerivationPolicy(**section.model_dump(mode="json")) == DerivationPolicy()


@pytest.mark.parametrize("equipment_policy", ["standard", "inherit"])
def test_our_own_derived_series_is_never_taken_in_again(
    write_ct: Write, derive: Derive, tmp_path: Path, equipment_policy: str
) -> None:
    policy = DerivationPolicy(equipment_policy=equipment_policy, manufacturer="Hospital")  # type: ignore[arg-type]
    derive(write_ct(), tmp_path / "derived", policy=policy)
    headers = [read_header(path) for path in (tmp_path / "derived").iterdir()]

    with pytest.raises(SkipSeriesError) as caught:
        check_series(headers, AssemblyPolicy())
    assert caught.value.reason is Reason.ALREADY_PROCESSED


def test_a_derived_series_assembles_to_the_grid_of_its_source(
    write_ct: Write, derive: Derive, tmp_path: Path
) -> None:
    paths = write_ct()
    derive(paths, tmp_path / "derived")

    before, after = read_series(paths).volume, read_series(sorted((tmp_path / "derived").iterdir())).volume

    assert (before.affine == after.affine).all()
    assert abs(after.array - before.array).max() <= 2.5
