"""Encoded data sets, good and bad, and what the receiver is given with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicom_node.network.received import AssociationInfo, ReceivedInstance
from storage.store import Store, open_store

STUDY, SERIES = "1.2.826.0.2", "1.2.826.0.3"


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    def make(number: int = 1, **elements: Any) -> Dataset:
        dataset = Dataset()
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = f"1.2.826.0.1.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
        dataset.Modality = "CT"
        dataset.PatientName = "CANARY^PATIENT"
        dataset.PixelData = bytes(512)
        dataset["PixelData"].VR = "OW"
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        return dataset

    return make


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    def build(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
        uid = UID(syntax)
        data = encode(dataset, uid.is_implicit_VR, uid.is_little_endian, uid.is_deflated)
        assert data is not None
        return data

    return build


@pytest.fixture
def make_received() -> Callable[..., ReceivedInstance]:
    def make(
        data: bytes, *, number: int = 1, syntax: str = ExplicitVRLittleEndian, **changes: Any
    ) -> ReceivedInstance:
        values: dict[str, Any] = {
            "sop_class_uid": str(CTImageStorage),
            "sop_instance_uid": f"1.2.826.0.1.{number}",
            "transfer_syntax_uid": str(syntax),
            "data": memoryview(data),
            "association": AssociationInfo(1, "SCANNER", "ENHANCE", "127.0.0.1"),
        }
        return ReceivedInstance(**{**values, **changes})

    return make


@pytest.fixture
def open_store_with(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    opened: list[Store] = []

    def build(**limits: Any) -> Store:
        directory = tmp_path / "node-data"
        store = open_store(f"sqlite:///{directory / 'node.db'}", directory, **limits)
        opened.append(store)
        return store

    yield build
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store_with: Callable[..., Store]) -> Store:
    return open_store_with()


@pytest.fixture
def associate() -> Callable[..., AssociationInfo]:
    def build(store: Store, *, calling: str = "SCANNER") -> AssociationInfo:
        number = store.index.open_association(calling, "ENHANCE", "127.0.0.1", "run")
        return AssociationInfo(number, calling, "ENHANCE", "127.0.0.1")

    return build


@pytest.fixture
def association(store: Store, associate: Callable[..., AssociationInfo]) -> AssociationInfo:
    return associate(store)
