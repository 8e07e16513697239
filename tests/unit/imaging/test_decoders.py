"""A frame that kills, hangs or starves its decoder ends alone, with a reason, and the next frame is decoded."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from dicom_node.errors import Reason, UnreadableInstanceError
from dicom_node.imaging import parsing
from dicom_node.imaging.decoders import Decoders, Frame
from dicom_node.imaging.headers import header_of
from dicom_node.imaging.parsing import read_dataset, read_instance
from dicom_node.imaging.pixels import UndecodablePixelsError

Write = Callable[..., list[Path]]
LISTEN = "import sys, os, signal; sys.stdin.readline(); "


def frame_of(path: Path) -> Frame:
    """The one frame of a compressed file."""
    ds, place = read_instance(path)
    assert place is not None
    header = header_of(ds)
    return Frame(place, header.transfer_syntax_uid, header.pixels, name="SOP instance 1.2.3.")


@pytest.fixture
def frame(write_ct: Write) -> Frame:
    """A JPEG 2000 frame."""
    return frame_of(write_ct(syntax=JPEG2000Lossless)[0])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("os._exit(3)", "exit status 3"),
        ("signal.pause()", "in time"),
        ("sys.stdout.buffer.write(b'x' * 30); sys.stdout.flush(); signal.pause()", ""),
    ],
    ids=["crash", "exit", "endless", "nonsense"],
)
def test_a_decoder_that_does_not_answer_is_a_decode_error_that_names_the_instance(
    frame: Frame, script: str, words: str
) -> None:
    command = (sys.executable, "-c", LISTEN + script)
    with (
        Decoders(command=command, deadline_s=2.0) as decoders,
        pytest.raises(UndecodablePixelsError) as caught,
    ):
        decoders.decode(frame)

    assert caught.value.reason is Reason.DECODE_ERROR
    assert words in caught.value.detail
    assert "SOP instance 1.2.3." in caught.value.detail


def test_a_decoder_has_no_more_memory_than_it_is_given(frame: Frame) -> None:
    hungry = (
        "from dicom_node.imaging import decode_worker as w; w._limit(int(sys.argv[1])); bytearray(1 << 32)"
    )
    command = (sys.executable, "-c", LISTEN + hungry)
    decoders = Decoders(command=command, memory_limit=1 << 30)
    with decoders, pytest.raises(UndecodablePixelsError) as caught:
        decoders.decode(frame)
    assert "died" in caught.value.detail


def test_a_damaged_frame_leaves_the_decoder_alive_for_the_next_one(write_ct: Write) -> None:
    paths = write_ct(syntax=JPEG2000Lossless)
    paths[0].write_bytes(paths[0].read_bytes().replace(b"\xff\x4f\xff\x51", b"\0\0\0\0"))

    with Decoders(processes=1) as decoders:
        with pytest.raises(UndecodablePixelsError):
            decoders.decode(frame_of(paths[0]))
        cells = decoders.decode(frame_of(paths[1]))

    assert cells.shape == (40, 36)


def test_frames_are_delivered_each_under_its_own_key(write_ct: Write) -> None:
    paths = write_ct(syntax=JPEG2000Lossless)
    found = {}

    with Decoders(processes=2) as decoders:
        decoders.decode_each({i: frame_of(path) for i, path in enumerate(paths)}, found.__setitem__)
        alone = {i: decoders.decode(frame_of(path)) for i, path in enumerate(paths)}

    assert found.keys() == alone.keys()
    assert all((found[key] == alone[key]).all() for key in alone)


def test_the_first_failure_ends_the_others(write_ct: Write) -> None:
    paths = write_ct(syntax=JPEG2000Lossless)
    paths[0].write_bytes(paths[0].read_bytes().replace(b"\xff\x4f\xff\x51", b"\0\0\0\0"))

    with Decoders(processes=1) as decoders, pytest.raises(UndecodablePixelsError):
        decoders.decode_each({i: frame_of(path) for i, path in enumerate(paths)}, lambda _key, _cells: None)


def test_a_deflate_bomb_is_refused_before_it_fills_the_memory(
    write_ct: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ct(syntax=DeflatedExplicitVRLittleEndian)[0]
    content = path.read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    body = zlib.compressobj(wbits=-15)
    bomb = body.compress(b"\x08\x00\x08\x00CS\x04\x00ABCD" + bytes(4 << 20)) + body.flush()
    path.write_bytes(content[:end] + bomb)
    monkeypatch.setattr(parsing, "INFLATED_AT_MOST", 1 << 20)

    with pytest.raises(UnreadableInstanceError) as caught:
        read_dataset(path, pixels=False)
    assert "more than is accepted" in caught.value.detail


def test_a_deflated_data_set_that_is_cut_off_cannot_be_read(write_ct: Write) -> None:
    path = write_ct(syntax=DeflatedExplicitVRLittleEndian)[0]
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(UnreadableInstanceError) as caught:
        read_dataset(path, pixels=True)
    assert "cut off" in caught.value.detail
