"""The decoding process: one compressed frame in, its cells out. It may crash, hang or run out of memory alone.

Lines in (JSON, standard input):  {"path", "offset", "length", "syntax", "elements", "bare"}
Answers (standard output):        `HEAD` (status, item size, rows, columns, bytes that follow), then the cells,
                                  little endian, or the name of the error's class.

Memory is limited when the process starts; time is the caller's to watch. It opens files to read and no more.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

HEAD: Final = struct.Struct("<BBLLQ")
CELLS, FAILED = 0, 1
_ITEM: Final = 0xE000FFFE  # (FFFE,E000) as a little endian word
_EMPTY_TABLE: Final = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
"""A basic offset table without entries (PS3.5 A.4)."""
_JPEG_LS: Final = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_END_OF_IMAGE: Final = b"\xff\xd9"
"""No code stream holds it but at its end. CharLS takes 20 s to see that it is missing in 64 x 64 pixels."""
_TAIL: Final = 32  # the end of the image, padding, the sequence delimiter
PREFERRED: Final[Mapping[str, tuple[str, ...]]] = {
    "1.2.840.10008.1.2.5": ("pylibjpeg",),  # RLE: 1 ms a frame of 512 x 512, pydicom 9 ms
    "1.2.840.10008.1.2.4.50": ("pillow", "pylibjpeg"),
    "1.2.840.10008.1.2.4.51": ("pylibjpeg",),
    "1.2.840.10008.1.2.4.80": ("pyjpegls",),  # 7 ms against 31
    "1.2.840.10008.1.2.4.81": ("pyjpegls",),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pillow"),  # 40 ms against 52
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pillow"),
}
"""Decoders in the order they are tried, by transfer syntax; elsewhere pydicom's own order.

Where one decoder refuses a damaged frame that another fills with garbage, only the strict one is asked.
"""


def decode(view: Dataset, syntax: str) -> NDArray[Any]:
    """Decode the one frame, raw: (rows, columns), or with samples last. Raises what the decoders raise."""
    decoder = get_decoder(syntax)
    installed = [name for name in PREFERRED.get(syntax, ()) if name in decoder.available_plugins]
    # Unused bits are handled below HighBit by `PixelFormat`, not by shifting to BitsStored.
    options: Any = {"correct_unused_bits": False}
    for name in installed[:-1]:
        try:
            return decoder.as_array(view, raw=True, index=0, decoding_plugin=name, **options)[0]
        except Exception:  # noqa: S112 - another decoder may understand the frame
            continue
    options["decoding_plugin"] = installed[-1] if installed else ""
    return decoder.as_array(view, raw=True, index=0, **options)[0]


def main() -> None:
    """Answer requests until standard input closes."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever libraries print goes to standard error
    _limit(int(sys.argv[1]))
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        try:
            array = _frame(json.loads(line))
            cells = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            rows, columns = (int(n) for n in cells.shape)
            head = HEAD.pack(CELLS, cells.dtype.itemsize, rows, columns, cells.nbytes)
            _write(out, head, cells.view(np.uint8).reshape(-1).data)
        except Exception as exc:  # the edge of this process: every failure becomes an answer
            name = type(exc).__name__.encode("ascii", "replace")[:200]
            _write(out, HEAD.pack(FAILED, 0, 0, 0, len(name)), memoryview(name))


def _limit(memory_bytes: int) -> None:
    """No more memory than this, no core file, no file written, few handles."""
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (limit, limit))


def _frame(request: Mapping[str, Any]) -> NDArray[Any]:
    """Read the pixel data and decode the frame asked for."""
    with Path(request["path"]).open("rb") as file:
        file.seek(request["offset"])
        content = file.read(request["length"])
    if request["syntax"] in _JPEG_LS and _END_OF_IMAGE not in content[-_TAIL:]:
        raise ValueError("a JPEG-LS code stream without its end")
    view = Dataset()
    for keyword, value in request["elements"].items():
        setattr(view, keyword, value)
    # One frame takes all fragments: the offset table, which many writers get wrong, has nothing to say.
    view.PixelData = _EMPTY_TABLE + (content if request["bare"] else _behind_table(content))
    view["PixelData"].is_undefined_length = True
    return decode(view, request["syntax"])


def _behind_table(content: bytes) -> bytes:
    """The fragments behind the basic offset table."""
    tag, length = struct.unpack("<LL", content[:8])
    return content[8 + length :] if tag == _ITEM and 8 + length <= len(content) else content


def _write(out: BinaryIO, head: bytes, body: memoryview) -> None:
    """Write all of an answer; a pipe takes it in pieces."""
    for part in (memoryview(head), body):
        done = 0
        while done < len(part):
            done += out.write(part[done:])


if __name__ == "__main__":
    main()
