"""Encoded data sets, good and bad, and what the receiver is given with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from config.settings import Settings
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.intake.inquiries import Inquiries
from dicom_node.intake.receiver import Receiver
from dicom_node.intake.stability import StabilitySweeper
from dicom_node.network.received import AssociationInfo, ReceivedInstance
from engine.phantom import head_phantom
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
def open_store_with(tmp_path: Path, make_database: Callable[[Path], str]) -> Iterator[Callable[..., Store]]:
    opened: list[Store] = []

    def build(**limits: Any) -> Store:
        directory = tmp_path / "node-data"
        store = open_store(make_database(directory / "node.db"), directory, **limits)
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


@pytest.fixture
def write_series(tmp_path: Path) -> Callable[..., list[Path]]:
    """Twelve slices of a head phantom; `style` fields vary what the scanner wrote."""

    def write(name: str = "scan", *, seed: int = 0, **style: Any) -> list[Path]:
        volume = head_phantom(shape=(12, 48, 48))
        return write_ct_series(volume, tmp_path / name, seed=seed, style=PhantomStyle(**style))

    return write


@pytest.fixture
def deliver(store: Store) -> Callable[..., int]:
    """Receive files over one association of their own and end it; return the id of their series."""

    def run(
        paths: list[Path], *, ending: str = "released", calling: str = "SCANNER", keep_open: bool = False
    ) -> int:
        number = store.index.open_association(calling, "ENHANCE", "127.0.0.1", "run")
        association = AssociationInfo(number, calling, "ENHANCE", "127.0.0.1")
        receiver = Receiver(store)
        for path in paths:
            assert receiver.receive(from_file(path, association)).status == 0x0000
        if not keep_open:
            store.index.close_association(number, ending)  # type: ignore[arg-type]
        return store.index.get_series(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID).id

    return run


def from_file(path: Path, association: AssociationInfo) -> ReceivedInstance:
    content = path.read_bytes()
    meta = dcmread(path, stop_before_pixels=True).file_meta
    return ReceivedInstance(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        data=memoryview(content)[144 + int.from_bytes(content[140:144], "little") :],
        association=association,
    )


class HandClock:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    def make(*routes: dict[str, Any], **sections: Any) -> Settings:
        peers = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}]
        default = {"name": "all", "send_to": ["pacs"]}
        return Settings.model_validate({"peers": peers, "routes": list(routes) or [default], **sections})

    return make


class AtOnce(Executor):
    """Answers a question while it is asked."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:
            future.set_exception(exc)
        return future


@pytest.fixture
def make_sweeper(
    store: Store, clock: HandClock, make_settings: Callable[..., Settings]
) -> Callable[..., StabilitySweeper]:
    def make(*routes: dict[str, Any], **sections: Any) -> StabilitySweeper:
        settings = make_settings(*routes, **sections)
        return StabilitySweeper(store, settings, monotonic=clock, inquiries=Inquiries(AtOnce()))

    return make
