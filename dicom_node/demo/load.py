"""Sends objects over many associations at once and times every answer: the load of `bench receive`.

The associations are threads in a few processes that run before the clock starts. The objects are noise,
written once; each has UIDs of its own.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from config.sections import Peer
from dicom_node.errors import PeerError
from dicom_node.network.stored_file import Outgoing
from dicom_node.network.transmission import Answer, transmit

_UID: Final = "1.2.826.0.1.3680043.10.1.1{:09d}"  # all of one length
_PROCESSES: Final = 4


@dataclass(frozen=True)
class Load:
    """What is sent: how many objects of how many rows and columns of 16 bit."""

    instances: int
    matrix: int
    sop_class_uid: str
    modality: str


KINDS: Final = {
    "ct": Load(300, 512, str(CTImageStorage), "CT"),
    "mr": Load(1000, 256, str(MRImageStorage), "MR"),
}


@dataclass
class Sent:
    """What became of a load: wall clock seconds, seconds to each answer, and what went wrong.

    The first answer of an association has no time: the association was being opened in it too.
    """

    seconds: float = 0.0
    answered: int = 0
    answers_s: list[float] = field(default_factory=list)
    refused: int = 0
    troubles: list[str] = field(default_factory=list)


def write_objects(load: Load, folder: Path, *, number: int, series: int) -> list[list[Outgoing]]:
    """Write `number` objects for each of so many series; one list for each."""
    folder.mkdir(parents=True)
    template = _template(load)
    return [
        [_write(load, template, folder, one * number + item, one) for item in range(number)]
        for one in range(series)
    ]


def _template(load: Load) -> Dataset:
    """One object of noise, which no disk and no line can shrink."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = load.sop_class_uid, _UID.format(1)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _UID.format(2), _UID.format(3)
    dataset.Modality, dataset.PatientName, dataset.PatientID = load.modality, "BENCH", "BENCH"
    dataset.Rows = dataset.Columns = load.matrix
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.random.default_rng(1).bytes(load.matrix * load.matrix * 2)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _write(load: Load, template: Dataset, folder: Path, number: int, series: int) -> Outgoing:
    """One object under its own UIDs."""
    path = folder / f"{number:06d}.dcm"
    uid = _UID.format(1000 + number)
    template.SOPInstanceUID = uid
    template.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    template.SeriesInstanceUID = _UID.format(100_000_000 + series)
    template.InstanceNumber = number + 1
    template.save_as(path, enforce_file_format=True)
    return Outgoing(path, load.sop_class_uid, uid, str(ExplicitVRLittleEndian))


class LoadPool:
    """Sender processes that wait for work; use it as a context manager."""

    def __init__(self, associations: int) -> None:
        """Start the processes; they are ready when this returns."""
        context = multiprocessing.get_context("spawn")
        self._ends: list[tuple[Any, Connection[Any, Any]]] = []
        for _ in range(min(associations, _PROCESSES)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._ends.append((process, ours))
        for _, pipe in self._ends:
            pipe.recv()

    def __enter__(self) -> LoadPool:
        return self

    def __exit__(self, *_exc: object) -> None:
        for process, pipe in self._ends:
            pipe.close()
            process.join(10)
            if process.is_alive():
                process.kill()

    def send(self, peer: Peer, shares: Sequence[Sequence[Outgoing]]) -> Sent:
        """Send each share over an association of its own, all at once."""
        begin = time.perf_counter()
        count = len(self._ends)
        for number, (_, pipe) in enumerate(self._ends):
            pipe.send((peer, [list(share) for share in shares[number::count]]))
        total = Sent()
        for _, pipe in self._ends:
            part: Sent = pipe.recv()
            total.answered += part.answered
            total.answers_s += part.answers_s
            total.refused += part.refused
            total.troubles += part.troubles
        total.seconds = time.perf_counter() - begin
        return total


def _serve(pipe: Connection[Any, Any]) -> None:
    """Send what the pipe asks for until it is closed."""
    pipe.send(True)
    for peer, shares in _requests(pipe):
        results = [Sent() for _ in shares]
        threads = [
            threading.Thread(target=_send_share, args=(peer, share, result))
            for share, result in zip(shares, results, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = Sent()
        for result in results:
            whole.answered += result.answered
            whole.answers_s += result.answers_s
            whole.refused += result.refused
            whole.troubles += result.troubles
        pipe.send(whole)


def _requests(pipe: Connection[Any, Any]) -> Iterator[tuple[Peer, list[list[Outgoing]]]]:
    while True:
        try:
            yield pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return


def _send_share(peer: Peer, share: list[Outgoing], result: Sent) -> None:
    """One association; the time to an answer counts from the answer before, the sending included."""
    last = time.perf_counter()

    def heard(answer: Answer) -> None:
        nonlocal last
        now = time.perf_counter()
        if result.answered:
            result.answers_s.append(now - last)
        result.answered += 1
        result.refused += answer.status != 0
        last = now

    try:
        transmit(peer, share, heard)
    except PeerError as exc:
        result.troubles.append(f"{type(exc).__name__}: {exc.detail}")
