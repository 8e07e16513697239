"""Assertions 29 and 30: other people's tools see nothing new, and another encoding says the same."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset as parse_data_set

from dicom_node.errors import HoldSeriesError, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy, SeriesPlan, assemble
from dicom_node.imaging.elements import canonical_item, items, little_endian, quiet, vr_of
from dicom_node.imaging.verify_model import SeriesPair, Slice

_VALUE = re.compile(r"<[^<>]*>")
_INDEX = re.compile(r"\[\d+\]")
VALIDATOR_ASSERTION = 29
"""The assertion to which the messages of the validators belong."""
FALSE_ALARMS = (re.compile(r"Attribute present when condition unsatisfied .* Module=<MRPulseSequence>"),)
"""Messages that contradict the standard: the attributes of the MR Pulse Sequence module are required in ORIGINAL
and MIXED images and "may be present otherwise" (PS3.3 Table C.8-87), which the 2022 dciodvfy does not know."""
_TOOL_LIMIT_S = 60.0
_ITEM_HEAD = b"\xfe\xff\x00\xe0"


def volume_verdict_is_kept(series: SeriesPair) -> Iterator[str]:
    """29: source and derived are the same regular volumes to the geometry check."""
    before = _verdict([pair.source for pair in series.pairs])
    after = _verdict([pair.derived for pair in series.pairs])
    if before != after:
        yield "source and derived are not the same volume"


def _verdict(pieces: Sequence[Slice]) -> tuple[object, ...]:
    """Order and spacing of every regular volume, or the reason why there is none."""
    headers = [piece.header for piece in pieces]
    if not headers:
        return ()
    try:
        plan = assemble(headers, AssemblyPolicy(minimum_slices=2, released=True))
    except (SkipSeriesError, HoldSeriesError) as exc:
        return (exc.reason,)
    volumes = tuple((volume.members, round(volume.stack.spacing_mm, 6)) for volume in plan.volumes)
    return (*volumes, len(plan.left_out), *_highdicom_verdicts(plan))


def _highdicom_verdicts(plan: SeriesPlan) -> tuple[bool, ...]:
    """Whether highdicom takes each volume for a regular one; it refuses a tilt, and has to for both."""
    from highdicom.spatial import get_volume_positions

    verdicts = []
    for volume in plan.volumes:
        stack = volume.stack
        spacing, _ = get_volume_positions(
            stack.positions.tolist(),
            [*stack.row, *stack.column],
            atol=2 * stack.tolerance_mm(stack.spacing_mm),
        )
        verdicts.append(spacing is not None)
    return tuple(verdicts)


def other_encoding_says_the_same(series: SeriesPair) -> Iterator[str]:
    """30: written in Implicit VR Little Endian and parsed again, every value is the same.

    A VR that the reader has to look up must lead it to the same bytes.
    """
    for number, piece in enumerate(series.derived, 1):
        with quiet():
            again = parse_data_set(io.BytesIO(encode_implicit(piece.dataset)), True, True)
        if canonical_item(again) != canonical_item(piece.dataset):
            yield f"slice {number}: Implicit VR reads differently"


def encode_implicit(ds: Dataset) -> bytes:
    """Return the data set in Implicit VR Little Endian (PS3.5 7.1.3), values as they are stored."""
    parts: list[bytes] = []
    for tag in sorted(int(key) for key in ds.keys()):  # noqa: SIM118 - iterating a Dataset converts it
        element = ds.get_item(tag)
        if vr_of(element) == "SQ":
            bodies = [encode_implicit(item) for item in items(ds, tag)]
            value = b"".join(_ITEM_HEAD + struct.pack("<L", len(body)) + body for body in bodies)
        else:
            value = little_endian(element)
        parts.append(struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value)
    return b"".join(parts)


def validators_see_nothing_new(pairs: Sequence[tuple[Path, Path]]) -> Iterator[str]:
    """29: dciodvfy says nothing about a derived file that it does not say about its source.

    dcentvfy finds no contradiction between both series. Yields nothing where the tools are not installed.
    """
    if shutil.which("dciodvfy"):
        for number, (source, derived) in enumerate(pairs, 1):
            new = validator_messages(derived) - validator_messages(source)
            if new:
                yield f"slice {number}: {len(new)} new messages of dciodvfy"
    if shutil.which("dcentvfy") and pairs:
        files = [str(path) for pair in pairs for path in pair]
        errors = [line for line in _run(["dcentvfy", *files]) if line.startswith("Error")]
        if errors:
            yield f"{len(errors)} errors of dcentvfy"


def validator_messages(path: Path) -> frozenset[str]:
    """Return the messages of dciodvfy about a file, without values and item numbers."""
    lines = _run(["dciodvfy", "-new", str(path)])
    return frozenset(
        _VALUE.sub("<>", _INDEX.sub("", line)) if " = <" in line else _INDEX.sub("", line)
        for line in lines
        if line.startswith(("Error", "Warning")) and not any(alarm.search(line) for alarm in FALSE_ALARMS)
    )


def _run(command: list[str]) -> list[str]:
    """Both outputs of a tool, line by line."""
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=_TOOL_LIMIT_S, text=True, errors="replace"
    )
    return (done.stdout + done.stderr).splitlines()
