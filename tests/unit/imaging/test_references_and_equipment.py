"""What a derived instance refers to, and whom it names as its makers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from dicom_node.imaging.derivation import DerivationPolicy


def test_the_source_slice_is_referenced_with_purpose_and_place(
    derived: Callable[..., FileDataset], tmp_path: Path
) -> None:
    ds = derived()
    source = dcmread(tmp_path / "source" / "0003.dcm")

    (image,) = ds.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert image.SpatialLocationsPreserved == "YES"
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence] == [source.SOPInstanceUID]
    assert ds.RelatedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


def reference(uid: str) -> Dataset:
    """A reference to a CT instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def test_kept_references_are_listed_only_where_their_series_is_known(
    derived: Callable[..., FileDataset],
) -> None:
    def refer(ds: FileDataset) -> None:
        ds.ReferencedImageSequence = [reference("1.2.3.4"), reference("1.2.3.5")]
        listed = Dataset()
        listed.SeriesInstanceUID = "1.2.3"
        listed.ReferencedInstanceSequence = [reference("1.2.3.4"), reference("1.2.3.9")]
        ds.ReferencedSeriesSequence = [listed]

    ds = derived(refer)

    by_series = {
        s.SeriesInstanceUID: [i.ReferencedSOPInstanceUID for i in s.ReferencedInstanceSequence]
        for s in ds.ReferencedSeriesSequence
    }
    assert by_series.pop("1.2.3") == ["1.2.3.4"]
    assert len(by_series) == 1
    assert [i.ReferencedSOPInstanceUID for i in ds.ReferencedImageSequence] == ["1.2.3.4", "1.2.3.5"]


def test_the_scanner_moves_into_contributing_equipment_and_the_node_stands_last(
    derived: Callable[..., FileDataset],
) -> None:
    ds = derived(attributes={"GantryID": "G1", "DeviceUID": "1.2.3.99", "DateOfLastCalibration": "20240101"})

    scanner, node = ds.ContributingEquipmentSequence
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("Phantom Scanners", "CT One")
    assert (scanner.DeviceSerialNumber, scanner.StationName) == ("CT-0001", "CT1")
    assert (scanner.InstitutionName, scanner.DeviceUID) == ("PHANTOM SITE", "1.2.3.99")
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert scanner.ContributionDateTime == "20240506070500.02"
    assert node.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (node.Manufacturer, ds.Manufacturer) == ("DICOM Enhancement Node", "DICOM Enhancement Node")
    assert list(ds.SoftwareVersions) == ["0.1.0", "classical-dct-wiener 1.2.3"]
    for keyword in ("DeviceSerialNumber", "StationName", "GantryID", "DeviceUID", "DateOfLastCalibration"):
        assert keyword not in ds


def test_a_site_may_inherit_the_scanners_equipment(derived: Callable[..., FileDataset]) -> None:
    ds = derived(attributes={"GantryID": "G1"}, policy=DerivationPolicy(equipment_policy="inherit"))

    assert (ds.Manufacturer, ds.DeviceSerialNumber, ds.GantryID) == ("Phantom Scanners", "CT-0001", "G1")
    assert ds.ContributingEquipmentSequence[-1].ManufacturerModelName == "dicom-enhancement-node"


def test_a_source_without_manufacturer_has_unknown_equipment(derived: Callable[..., FileDataset]) -> None:
    ds = derived(attributes={"Manufacturer": ""})

    assert ds.ContributingEquipmentSequence[0].Manufacturer == "UNKNOWN"


def test_a_derived_source_was_processed_not_acquired_by_its_equipment(
    derived: Callable[..., FileDataset],
) -> None:
    ds = derived(attributes={"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]})

    assert ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_earlier_contributors_come_first_and_unchanged(derived: Callable[..., FileDataset]) -> None:
    earlier = Dataset()
    earlier.Manufacturer = "Deidentifier"

    items = derived(
        lambda ds: setattr(ds, "ContributingEquipmentSequence", Items([earlier]))
    ).ContributingEquipmentSequence

    assert items[0].Manufacturer == "Deidentifier"
    assert len(items) == 3
