"""Objects of any size sent without having them: a head and a great many zeros. For what memory a receiver takes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from config.sections import Peer
from dicom_node.demo.bench import BenchError
from dicom_node.demo.receivers import running
from dicom_node.errors import AssociationLostError
from dicom_node.network.association import associate
from dicom_node.network.lending import lent_connection
from dicom_node.network.presentation import ProposedContext
from dicom_node.network.store_channel import Request, StoreChannel

_CHUNK: Final = memoryview(bytes(1 << 20))
_PIXELS: Final = b"\xe0\x7f\x10\x00OW\x00\x00"
_LIMIT_S: Final = 3600.0


def send_large(peer: Peer, number: int, size: int) -> int:
    """Send one CT object with `size` bytes of pixels (even) over an association of its own; its status."""
    uid = f"1.2.826.0.1.3680043.10.2.{number}"
    head = _head(uid) + _PIXELS + size.to_bytes(4, "little")
    context = ProposedContext(str(CTImageStorage), (str(ExplicitVRLittleEndian),))
    with associate(peer, (context,), None) as assoc, lent_connection(assoc) as raw:
        if raw is None:
            raise AssociationLostError("The connection was closed before the instance.")
        channel = StoreChannel(raw, peer_max_length=assoc.acceptor.maximum_length or 0, silence_s=60.0)
        context_id = int(assoc.accepted_contexts[0].context_id or 0)
        pieces = _pieces(head, size)
        request = Request(str(CTImageStorage), uid, 1, context_id, len(head) + size, pieces)
        channel.send(request, limit_s=_LIMIT_S)
        return channel.answer(request, limit_s=_LIMIT_S).status


def _head(uid: str) -> bytes:
    """The data set up to the pixels."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = str(CTImageStorage), uid
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = f"{uid}.1"
    dataset.Modality = "CT"
    encoded = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert encoded is not None  # noqa: S101 (five plain elements)
    return encoded


def _pieces(head: bytes, size: int) -> Iterator[memoryview]:
    yield memoryview(head)
    for start in range(0, size, len(_CHUNK)):
        yield _CHUNK[: min(len(_CHUNK), size - start)]


def measure_large(associations: int, mebibytes: int) -> float:
    """The greatest resident memory, in MiB, of a receiver that takes so many objects of that size at once.

    Raises `BenchError` when one is not stored.
    """
    statuses: list[int] = []
    with (
        tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as name,
        running("ours", Path(name) / "ours", associations=associations) as node,
    ):
        threads = [
            threading.Thread(
                target=lambda number=number: statuses.append(send_large(node.peer, number, mebibytes << 20))
            )
            for number in range(associations)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if statuses.count(0) != associations:
            raise BenchError(f"only {statuses.count(0)} of {associations} objects were stored")
        return node.peak_bytes() / 2**20
