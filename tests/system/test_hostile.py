"""Hostile objects sent to a running node: each ends with its reason and a sentence, and nothing falls over.

python -m pytest tests/system/test_hostile.py -m drill
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, generate_uid

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode
from dicom_node.errors import Reason
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.phantom_series import CT_STYLE, write_ct_series
from dicom_node.network import scu
from dicom_node.observability import events
from engine.phantom import head_phantom, noisy_ct
from storage.states import JobState, SeriesState
from tests.damage import Edit, in_lengths, setting

LIMIT = timedelta(minutes=5)
SLICES = 10
PIXELS = b"\xe0\x7f\x10\x00OW"
CANNOT_UNDERSTAND = 0xC000
Spoil = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Attack:
    """A series to send and how it has to end.

    edit    what is done to every slice through the parser
    spoil   what is done to the bytes of every slice
    status  what the sender hears, of every slice
    """

    name: str
    state: SeriesState | None
    reason: Reason | None
    edit: Edit = lambda _ds: None
    spoil: Spoil = lambda content: content
    syntax: str = ""
    status: int = 0x0000
    enhanced: bool = False


def before_pixels(block: bytes) -> Spoil:
    return lambda c: c[: c.rindex(PIXELS)] + block + c[c.rindex(PIXELS) :]


def private_bulk(size: int) -> Spoil:
    head = b"\xf1\x7f\x10\x00LO\x04\0VNDR\xf1\x7f\x10\x10OB\0\0" + struct.pack("<L", size)
    return lambda c: c + head + bytes(size)


def larger_code_stream(ds: FileDataset) -> None:
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    size = frame.index(b"\xff\x51") + 6
    huge = struct.pack(">2L", 60000, 60000)
    ds.PixelData = encapsulate(
        [frame[:size] + huge + frame[size + 8 : size + 16] + huge + frame[size + 24 :]]
    )


def pad_everything(ds: FileDataset) -> None:
    ds.add_new(0x00280120, "US", 0)
    ds.add_new(0x00280121, "US", 65535)


SKIPPED, HELD, STABLE = SeriesState.SKIPPED, SeriesState.HELD, SeriesState.STABLE
ATTACKS = (
    Attack("as it should be", STABLE, None, enhanced=True),
    Attack("50 MB of private data", STABLE, None, spoil=private_bulk(50 << 20), enhanced=True),
    Attack("zone on no map", STABLE, None, setting(TimezoneOffsetFromUTC="+9999"), enhanced=True),
    Attack("deep in lengths", None, None, spoil=before_pixels(in_lengths(300)), status=CANNOT_UNDERSTAND),
    Attack("cut in the pixels", None, None, spoil=lambda c: c[:-1000], status=CANNOT_UNDERSTAND),
    Attack("two patients", None, None, spoil=before_pixels(b"\x10\0\x20\0LO\4\0EVIL"), status=CANNOT_UNDERSTAND),
    Attack("no rows", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(Rows=None)),
    Attack("more bits than room", SKIPPED, Reason.UNSUPPORTED_PIXELS, setting(BitsStored=20, HighBit=19)),
    Attack("slope of zero", SKIPPED, Reason.BAD_RESCALE, setting(RescaleSlope="0")),
    Attack("negative spacing", SKIPPED, Reason.NO_GEOMETRY, setting(PixelSpacing=["-1", "-1"])),
    Attack("crooked", SKIPPED, Reason.NO_GEOMETRY, setting(ImageOrientationPatient=[1, 0, 0, 0.7, 0.7, 0])),
    Attack(
        "one position",
        HELD,
        Reason.DUPLICATE_POSITION,
        setting(ImagePositionPatient=[0, 0, 0], AcquisitionTime="070500"),
    ),
    Attack("memory bomb", STABLE, Reason.DECODE_ERROR, setting(Rows=65535, Columns=65535)),
    Attack("half the pixels", STABLE, Reason.DECODE_ERROR, lambda ds: setting(PixelData=ds.PixelData[:4096])(ds)),
    Attack("code stream bomb", STABLE, Reason.DECODE_ERROR, larger_code_stream, syntax=JPEG2000Lossless),
    Attack(
        "packed memory bomb",
        STABLE,
        Reason.DECODE_ERROR,
        setting(Rows=65535, Columns=65535),
        syntax=JPEG2000Lossless,
    ),
    Attack(
        "padding everywhere",
        STABLE,
        Reason.UNSUPPORTED_PIXELS,
        pad_everything,
    ),
)  # fmt: skip


def make(attack: Attack, folder: Path) -> list[Path]:
    """Write the series of an attack, under UIDs of its own."""
    noisy = noisy_ct(head_phantom((SLICES, 64, 64), (3.0, 3.4, 3.4), 3), 20.0, 5)
    style = replace(CT_STYLE, syntax=attack.syntax) if attack.syntax else CT_STYLE
    series, study = generate_uid(), generate_uid()
    paths = write_ct_series(noisy, folder, style=style)
    for path in paths:
        with quiet():
            ds = dcmread(path)
            ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.SOPInstanceUID = series, study, generate_uid()
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            attack.edit(ds)
            ds.save_as(path)
        path.write_bytes(attack.spoil(path.read_bytes()))
    return paths


def send(node: RunningNode, paths: list[Path]) -> set[int]:
    """Send files as they are; the statuses that came back."""
    statuses: set[int] = set()

    def on_result(_uid: str, status: int, _comment: str) -> bool:
        statuses.add(status)
        return True

    scu.send(node.peer, [scu.outgoing(path) for path in paths], on_result)
    return statuses


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_every_attack_ends_with_its_reason_and_the_node_goes_on(
    start_node: Callable[..., RunningNode], start_archive: Callable[..., Archive], tmp_path: Path
) -> None:
    made = {attack.name: make(attack, tmp_path / attack.name) for attack in ATTACKS}
    archive, node = start_archive(), start_node()
    sent = {}
    for attack in ATTACKS:
        paths = made[attack.name]
        with quiet():
            sent[attack.name] = str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
        assert send(node, paths) == {attack.status}, attack.name

    for attack in ATTACKS:
        if attack.state is None:
            assert node.story(sent[attack.name]) is None, attack.name
            continue
        story = node.await_end(sent[attack.name], LIMIT)
        assert story.series.state is attack.state, (attack.name, story.series.reason)
        said = (story.series.reason, story.series.message)
        if attack.state is STABLE:
            job = story.jobs[0]
            assert (job.state is JobState.SUCCEEDED) is attack.enhanced, (attack.name, job.reason)
            said = (job.reason, job.message)
        if attack.reason is not None:
            assert said[0] == attack.reason, attack.name
            assert attack.reason.sentence in str(said[1])
    good = [attack for attack in ATTACKS if attack.enhanced]
    assert sorted(archive.instances(uid) for uid in archive.series()) == [SLICES] * len(good)
    log = node.log_path.read_text(errors="replace")
    assert "Traceback" not in log
    assert not list(node.events(events.PROCESS_FAILED))
    assert node.stop() == 0
