"""Real sockets on free ports: our SCP with a listener that remembers, and peers that misbehave on request."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt

from config.sections import Peer
from dicom_node.network.received import AssociationInfo, AssociationRequest, ReceivedInstance, buffered
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.scu import Outgoing
from dicom_node.network.status import STORED, Ending, Rejection

CT = b"1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = b"1.2.840.10008.1.1"
EXPLICIT = b"1.2.840.10008.1.2.1"


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
        scp = StorageScp(ScpSettings(**{**defaults, **settings}), buffered(memory.receive), memory)
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


# --- a peer that says what it likes


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    """An item of an A-ASSOCIATE-RQ, with a length of its own if need be."""
    return struct.pack(">BxH", kind, len(value) if length is None else length) + value


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU, with a length of its own if need be."""
    return struct.pack(">BxL", kind, len(body) if length is None else length) + body


def context(number: int, abstract: bytes = CT, *syntaxes: bytes) -> bytes:
    """A presentation context item."""
    inner = item(0x30, abstract) + b"".join(item(0x40, uid) for uid in syntaxes or (EXPLICIT,))
    return item(0x20, bytes([number, 0, 0, 0]) + inner)


USER = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.826.0.1.3680043.9.1")


def request_pdu(
    *contexts: bytes,
    calling: bytes = b"SCANNER",
    called: bytes = b"ENHANCE",
    version: int = 1,
    application: bytes = b"1.2.840.10008.3.1.1.1",
    user: bytes = USER,
) -> bytes:
    """An A-ASSOCIATE-RQ; one context for CT unless others are given."""
    head = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    items = item(0x10, application) + b"".join(contexts or (context(1), context(3, VERIFICATION)))
    return pdu(1, head + items + item(0x50, user))


def pdv(number: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """A presentation data value."""
    return struct.pack(">LBB", len(data) + 2 if length is None else length, number, control) + data


def command_set(*elements: tuple[int, bytes], group_length: int | None = None) -> bytes:
    """A command set; its group length is right unless given."""
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    length = len(body) if group_length is None else group_length
    return struct.pack("<HHLL", 0, 0, 4, length) + body


def store_command(uid: bytes = b"1.2.826.0.1.1\0", sop_class: bytes = CT + b"\0", **changes: Any) -> bytes:
    """The command of a C-STORE request."""
    elements: dict[int, bytes | None] = {
        0x0002: sop_class,
        0x0100: b"\x01\x00",
        0x0110: b"\x07\x00",
        0x0700: b"\x00\x00",
        0x0800: b"\x00\x00",
        0x1000: uid,
    }
    elements |= {int(name[1:], 16): value for name, value in changes.items() if name != "group_length"}
    present = [(number, value) for number, value in sorted(elements.items()) if value is not None]
    return command_set(*present, group_length=changes.get("group_length"))


@dataclass
class Raw:
    """A plain socket to the acceptor, and what it answers."""

    raw: socket.socket

    def say(self, data: bytes) -> None:
        """Send; whoever has been cut off already may not care."""
        with suppress(OSError):
            self.raw.sendall(data)

    def hear(self) -> tuple[int, bytes]:
        """The next PDU; type 0 when the connection has been closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def closed_within(self, seconds: float) -> bool:
        """Whether the other side hangs up in time, whatever it says before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.raw.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                if not self.raw.recv(4096):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def status(self) -> int:
        """The status of the next response."""
        kind, body = self.hear()
        assert kind == 4
        return int.from_bytes(body[body.index(b"\x00\x00\x00\x09\x02\x00\x00\x00") + 8 :][:2], "little")

    def _exactly(self, number: int) -> bytes:
        data = b""
        while len(data) < number:
            try:
                more = self.raw.recv(number - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return data
            data += more
        return data


@pytest.fixture
def connect() -> Iterator[Callable[..., Raw]]:
    """Raw connections; with `first`, that much has been said."""
    opened: list[Raw] = []

    def open_one(scp: StorageScp, first: bytes = b"") -> Raw:
        one = Raw(socket.create_connection(scp.address, timeout=20))
        opened.append(one)
        one.say(first)
        return one

    yield open_one
    for one in opened:
        one.raw.close()


@pytest.fixture
def associated(connect: Callable[..., Raw]) -> Callable[..., Raw]:
    """A raw connection whose association has been accepted."""

    def open_one(scp: StorageScp, **request: Any) -> Raw:
        one = connect(scp, request_pdu(**request))
        assert one.hear()[0] == 2
        return one

    return open_one


@pytest.fixture
def ul() -> SimpleNamespace:
    """The builders of raw PDUs above, by name."""
    return SimpleNamespace(
        item=item,
        pdu=pdu,
        context=context,
        request=request_pdu,
        pdv=pdv,
        command=command_set,
        store=store_command,
        user=USER,
        ct=CT,
        explicit=EXPLICIT,
    )
