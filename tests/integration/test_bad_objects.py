"""Objects that cannot be kept, over a real association: each gets its status and leaves no file."""

from __future__ import annotations

import resource
import struct
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from config.sections import Peer
from dicom_node.demo.large import send_large
from dicom_node.network.transport import RequestorEntity


def dataset(number=1, **changes):
    """A CT object."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"1.2.826.0.1.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = "1.2.826.0.2", "1.2.826.0.3", "CT"
    made.PixelData = bytes(4096)
    made["PixelData"].VR = "OW"
    for keyword, value in changes.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def encoded(**changes):
    data = encode(dataset(**changes), is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return data


def raw_uid(element, value):
    """The data set with the bytes of one UID replaced."""
    data = encoded()
    head = struct.pack("<HH2s", element >> 16, element & 0xFFFF, b"UI")
    at = data.index(head)
    length = struct.unpack_from("<H", data, at + 6)[0]
    value += b"\0" * (len(value) % 2)
    return data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]


def nested(depth):
    """Sequences of undefined length within each other."""
    opening = (
        struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    )
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return opening * depth + closing * depth


def nested_in_lengths(depth):
    """Sequences within each other, each with a stated length, as most writers make them."""
    value = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(value)) + value
        value = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
    return value


def with_elements(elements):
    """The data set with more elements in front of the study."""
    data = encoded()
    at = data.index(struct.pack("<HH", 0x0020, 0x000D))
    return data[:at] + elements + data[at:]


def with_sequence(depth):
    data = encoded()
    at = data.index(struct.pack("<HH", 0x0020, 0x000D))
    return data[:at] + nested(depth) + data[at:]


BAD = {
    "no instance uid": (lambda: encoded(SOPInstanceUID=None), 0xA901),
    "no class uid": (lambda: encoded(SOPClassUID=None), 0xA901),
    "no series": (lambda: encoded(SeriesInstanceUID=None), 0xA901),
    "other instance": (lambda: encoded(SOPInstanceUID="1.2.3"), 0xA900),
    "other class": (lambda: encoded(SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), 0xA900),
    "traversal": (lambda: raw_uid(0x0020000E, b"../../../etc/x"), 0xA901),
    "absolute": (lambda: raw_uid(0x0020000D, b"/etc/passwd"), 0xA901),
    "backslash": (lambda: raw_uid(0x0020000E, b"1.2\\3"), 0xA901),
    "nul": (lambda: raw_uid(0x0020000E, b"1.2\x003.4"), 0xA901),
    "65 characters": (lambda: raw_uid(0x0020000E, b"1." * 32 + b"1"), 0xA901),
    "dots": (lambda: raw_uid(0x0020000D, b"1..2"), 0xA901),
    "letters": (lambda: raw_uid(0x0020000D, b"1.2.x"), 0xA901),
    "empty": (lambda: b"", 0xA901),
    "nested 17 deep": (lambda: with_sequence(17), 0xC000),
    "nested 10,000 deep": (lambda: with_sequence(10_000), 0xC000),
    "nested 17 deep in lengths": (lambda: with_elements(nested_in_lengths(17)), 0xC000),
    "nested 5,000 deep in lengths": (lambda: with_elements(nested_in_lengths(5_000)), 0xC000),
    "lengths within no lengths": (
        lambda: with_elements(
            nested(9).replace(b"\xfe\xff\x0d\xe0", nested_in_lengths(9) + b"\xfe\xff\x0d\xe0", 1)
        ),
        0xC000,
    ),
    "two patients in one object": (lambda: with_elements(b"\x10\0\x20\0LO\2\0A " * 2), 0xC000),
    "pixels twice": (lambda: encoded() + encoded()[-4108:], 0xC000),
    "never closed": (lambda: encoded() + nested(3)[:40], 0xC000),
    "4 GiB declared": (
        lambda: encoded()[:-4106] + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFF0),
        0xC000,
    ),
    "cut off": (lambda: encoded()[:-100], 0xC000),
    "no data set": (lambda: b"GET / HTTP/1.1\r\n\r\n", 0xC000),
    "command group inside": (lambda: struct.pack("<HH2sHL", 0, 0, b"UL", 4, 0) + encoded(), 0xC000),
}


@pytest.fixture
def store_raw(start_node):
    """Send raw bytes as the data set of a C-STORE over one association; the status."""
    scp = start_node()
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    assoc = entity.associate(*scp.address, contexts=contexts, ae_title="ENHANCE")

    def send(data, number=1):
        request = C_STORE()
        request.MessageID, request.Priority = number, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, f"1.2.826.0.1.{number}"
        request.DataSet = BytesIO(data)
        assoc._reactor_checkpoint.clear()
        assoc.dimse.send_msg(request, 1)
        _, answer = assoc.dimse.get_msg(block=True)
        assoc._reactor_checkpoint.set()
        return answer.Status

    yield send
    assoc.release()


def files(store):
    return [path for path in (store.spool.directory / "incoming").rglob("*") if path.is_file()]


def test_each_is_answered_as_it_deserves_and_leaves_nothing(store_raw, store):
    answers = {name: store_raw(make()) for name, (make, _) in BAD.items() if name != "empty"}

    assert answers == {name: status for name, (_, status) in BAD.items() if name != "empty"}
    assert files(store) == []
    assert store_raw(encoded()) == 0
    assert len(files(store)) == 1


@pytest.mark.parametrize(
    "data",
    [lambda: raw_uid(0x0020000E, b"1.2.826.0.3 "), lambda: raw_uid(0x0020000E, b"1.2.0826.3")],
    ids=["trailing blank", "leading zero"],
)
def test_common_slips_in_uids_are_taken_as_they_come(store_raw, store, data):
    assert store_raw(data()) == 0
    (path,) = files(store)
    assert path.read_bytes().endswith(data())


def test_nesting_within_the_limit_is_taken(store_raw):
    assert store_raw(with_elements(nested_in_lengths(16))) == 0


def test_memory_does_not_grow_with_the_object(start_node, store):
    address = start_node().address
    peer = Peer(name="node", ae_title="ENHANCE", host=address[0], port=address[1], calling_ae_title="SCANNER")
    assert send_large(peer, 1, 4 << 20) == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert send_large(peer, 2, 96 << 20) == 0

    assert max(path.stat().st_size for path in files(store)) > 96 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 * 1024  # KiB
