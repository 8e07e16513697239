"""What an object means, whatever its transfer syntax: a digest over canonical elements and decoded pixels.

Two encodings of one object have the same digest: explicit or implicit, little or big endian, compressed without
loss or not. Anything that a reader could see differently changes it. Asked only where byte digests differ under
one SOP Instance UID, and only in a process of its own: the objects come from outside, and decoders do crash.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXELS = 0x7FE00010
_TRAILING_PADDING = 0xFFFCFFFC
# Extended offset tables describe the encoding, not the image (PS3.3 C.7.6.3).
_OF_THE_ENCODING = frozenset({_PIXELS, _TRAILING_PADDING, 0x7FE00001, 0x7FE00002})
_CPU_S = 120
_MEMORY = 8 * 2**30
_SECONDS_EACH = 20.0


def content_digests(paths: Sequence[Path]) -> list[str | None]:
    """The digest of each file, computed in a child with limits on time and memory; None where it came to nothing.

    An object that kills the child leaves no digest for itself and those after it in the list, and no harm here.
    """
    if not paths:
        return []
    given = "\n".join(str(path) for path in paths)
    command = [sys.executable, "-m", "dicom_node.intake.content"]
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS_EACH * len(paths) + 60.0,
        )
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as exc:
        lines = (exc.stdout or b"").decode().splitlines()
    found: list[str | None] = [json.loads(line) for line in lines[: len(paths)]]
    return found + [None] * (len(paths) - len(found))


def content_digest(path: Path) -> str:
    """The digest of one file. Raises whatever pydicom and its decoders raise: call it where that does no harm."""
    from pydicom import dcmread

    dataset = dcmread(path)
    digest = hashlib.sha256()
    for piece in _elements(dataset):
        digest.update(piece)
    if _PIXELS in dataset:
        for piece in _pixels(path):
            digest.update(piece)
    return digest.hexdigest()


def _elements(dataset: Dataset) -> Iterator[bytes]:
    """Every element but the pixels in one encoding: implicit little endian, no padding, no lengths to choose."""
    from pydicom.charset import convert_encodings
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    encodings = convert_encodings(dataset.get("SpecificCharacterSet") or "ISO_IR 6")
    for element in dataset:
        if element.tag in _OF_THE_ENCODING or element.tag.element == 0:
            continue
        yield int(element.tag).to_bytes(4, "big")
        if element.VR == "SQ":
            for item in element.value:
                yield b"("
                yield from _elements(item)
                yield b")"
            yield b";"
            continue
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = True, True
        write_data_element(buffer, element, encodings)
        stripped = buffer.getvalue()[8:].rstrip(b" \x00")
        yield len(stripped).to_bytes(4, "big") + stripped


def _pixels(path: Path) -> Iterator[bytes]:
    """The decoded samples as they are stored, without any change of colour space."""
    from pydicom.pixels.utils import iter_pixels

    for frame in iter_pixels(path, raw=True):
        yield f"{frame.shape}{frame.dtype.kind}{frame.dtype.itemsize}".encode()
        yield frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()


def _main() -> None:
    """Read paths from standard input, write a line of JSON for each."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.read().splitlines():
        try:
            answer: str | None = content_digest(Path(line))
        except Exception:
            # The edge of this process: an object that cannot be read has no meaning to compare.
            answer = None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
