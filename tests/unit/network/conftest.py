"""Real sockets on free ports: our SCP with a listener that remembers, and peers that misbehave on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt

from config.sections import Peer
from dicom_node.network.received import AssociationInfo, AssociationRequest, ReceivedInstance
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.scu import Outgoing
from dicom_node.network.status import STORED, Ending, Rejection


@dataclass
class Memory:
    """Listener and receive function that keep what they are told."""

    admitted: Callable[[AssociationRequest], bool] = lambda _request: True
    failure: Exception | None = None
    answer: Callable[[ReceivedInstance], Any] = lambda _received: STORED
    requests: list[AssociationRequest] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    endings: list[tuple[int, Ending]] = field(default_factory=list)
    instances: list[ReceivedInstance] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def admits(self, request: AssociationRequest) -> bool:
        return self.admitted(request)

    def opened(self, request: AssociationRequest) -> int:
        if self.failure is not None:
            raise self.failure
        self.requests.append(request)
        return len(self.requests)

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        self._note(self.rejections, rejection)

    def closed(self, association: AssociationInfo, ending: Ending) -> None:
        self._note(self.endings, (association.id, ending))

    def receive(self, received: ReceivedInstance) -> Any:
        self._note(self.instances, replace(received, data=memoryview(bytes(received.data))))
        return self.answer(received)

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, 10.0)

    def _note(self, where: list[Any], what: Any) -> None:
        with self.changed:
            where.append(what)
            self.changed.notify_all()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def start_scp(memory: Memory) -> Iterator[Callable[..., StorageScp]]:
    started: list[StorageScp] = []

    def start(**settings: Any) -> StorageScp:
        defaults: dict[str, Any] = {"ae_titles": ("ENHANCE", "DENOISE"), "host": "127.0.0.1", "port": 0}
        scp = StorageScp(ScpSettings(**{**defaults, **settings}), memory.receive, memory)
        scp.start()
        started.append(scp)
        return scp

    yield start
    for scp in started:
        scp.stop()


@pytest.fixture
def peer_of() -> Callable[..., Peer]:
    def build(address: tuple[str, int], **changes: Any) -> Peer:
        values: dict[str, Any] = {
            "name": "peer",
            "ae_title": "ENHANCE",
            "host": address[0],
            "port": address[1],
            "calling_ae_title": "SCANNER",
            "timeouts": {"association": "5 s", "dimse": "5 s", "network": "5 s"},
        }
        return Peer.model_validate({**values, **changes})

    return build


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Outgoing]:
    def make(
        number: int = 1,
        *,
        syntax: str = ExplicitVRLittleEndian,
        sop_class: str = CTImageStorage,
        **elements: Any,
    ) -> Outgoing:
        dataset = Dataset()
        dataset.SOPClassUID = sop_class
        dataset.SOPInstanceUID = f"1.2.826.0.1.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.2", "1.2.826.0.3"
        dataset.Modality = "CT"
        dataset.PixelData = bytes(2048)
        dataset["PixelData"].VR = "OW"
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, dataset.SOPInstanceUID
        meta.TransferSyntaxUID = syntax
        dataset.file_meta = meta
        path = tmp_path / f"{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return Outgoing(path, sop_class, str(dataset.SOPInstanceUID), syntax)

    return make


@pytest.fixture
def start_peer() -> Iterator[Callable[..., tuple[str, int]]]:
    """A stock acceptor; `syntaxes` is what it accepts for CT, `on_store` what it answers."""
    servers: list[Any] = []

    def start(
        syntaxes: list[str], on_store: Callable[[Any], Any], *, sop_class: str = CTImageStorage, **limits: Any
    ) -> tuple[str, int]:
        entity = AE(ae_title="ENHANCE")
        for name, value in limits.items():
            setattr(entity, name, value)
        server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            contexts=[build_context(sop_class, syntaxes)],
            evt_handlers=[(evt.EVT_C_STORE, on_store)],
        )
        servers.append(server)
        return server.server_address[:2]

    yield start
    for server in servers:
        server.shutdown()
        for assoc in server.active_associations:
            assoc.abort()
