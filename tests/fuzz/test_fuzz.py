"""Headers, pixel data and whole files damaged at random: every one ends with a reason, in bounded memory.

The short run takes part in the suite. Ten minutes of it:

    DICOM_NODE_FUZZ_S=600 python -m pytest tests/fuzz -m drill -s
"""

from __future__ import annotations

import os
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicom_node.errors import Reason, ReasonedError
from dicom_node.imaging.decoders import Decoders
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.phantom_series import CT_STYLE, write_ct_series
from dicom_node.imaging.summary import summarise
from dicom_node.imaging.uids import UidPlan
from dicom_node.intake.element_scan import Encoding, MalformedDataSetError, scan_elements
from engine.volume import IntensityUnit, Volume

NOW = datetime(2030, 1, 2, tzinfo=UTC)
SLICES = 4
MEMORY_MIB = 512
"""How much more than before any run may hold at its peak."""
FUZZ_S = float(os.environ.get("DICOM_NODE_FUZZ_S", "600"))
SYNTAXES = ("", ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless)

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "IssuerOfPatientID", "Modality",
    "Manufacturer", "SeriesDescription", "BodyPartExamined", "SliceThickness", "KVP", "ConvolutionKernel",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceLocation", "SpacingBetweenSlices",
    "InstanceNumber", "SeriesNumber", "AcquisitionNumber", "ImagesInAcquisition", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "WindowCenter", "WindowWidth", "LossyImageCompression", "BurnedInAnnotation", "EchoTime",
    "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime", "AcquisitionTime",
    "DerivationDescription", "ImageComments", "TimezoneOffsetFromUTC", "ReferencedImageSequence",
    "ReferencedSeriesSequence", "ContributingEquipmentSequence", "DerivationCodeSequence", "ContentQualification",
    "PlanarConfiguration", "ContrastBolusAgent", "MultienergyCTAcquisition", "VolumetricProperties",
)  # fmt: skip
NASTY = (
    b"", b" ", b"\0\0", b"\\", b"\\\\\\\\", b"nan", b"inf", b"-inf", b"1e308", b"-1e308", b"1e-320", b"0", b"-1",
    b"1,5", b"1.5\\2.5\\x", b"99999999999999999999", b"\xff\xfe\xfd\xfc", b"MOSAIC", b"LOCALIZER", b"DERIVED",
    b"ISO 2022 IR 87", b"ISO_IR 192", b"../../../etc/passwd", b"1.2..3", b"01.2", b"%s%n{{7*7}}", b"\x1b[31m",
    b"A" * 70000, b"1" * 20000, b"\0" * 2, b"\xff\xff", b"\x00\x80", b"\x01\x00", b"\x10\x00", b"YES",
)  # fmt: skip


class Bench:
    """A small series in several encodings, and the line that takes damaged copies of it."""

    def __init__(self, folder: Path) -> None:
        z, y, x = np.mgrid[0:SLICES, 0:40, 0:36].astype(np.float32)
        array = (-1000 + 1100 * (np.hypot(y - 20, x - 18) < 15) + 9 * z).astype(np.float32)
        affine = np.array([[0, 0, 0.9, -9], [0, 0.8, 0, -10], [3, 0, 0, -15], [0, 0, 0, 1]], dtype=np.float64)
        volume = Volume(array, affine, IntensityUnit.HU)
        self._folder = folder
        self.series: list[list[bytes]] = []
        for number, syntax in enumerate(SYNTAXES):
            style = replace(CT_STYLE, syntax=syntax) if syntax else CT_STYLE
            paths = write_ct_series(volume, folder / f"seed-{number}", style=style)
            self.series.append([path.read_bytes() for path in paths])
        self.ends: Counter[str] = Counter()
        self._decoders = Decoders(processes=1)

    def close(self) -> None:
        """End the decoding process."""
        self._decoders.close()

    def take(self, files: list[bytes]) -> str:
        """Take a series of files along the line; return how it ended. Anything untyped goes through."""
        run = self._folder / "run"
        for old in sorted(run.rglob("*"), reverse=True) if run.exists() else ():
            old.rmdir() if old.is_dir() else old.unlink()
        (run / "derived").mkdir(parents=True, exist_ok=True)
        paths = []
        for number, content in enumerate(files):
            path = run / f"{number:04d}.dcm"
            path.write_bytes(content)
            paths.append(path)
        try:
            end = self._along(paths, run / "derived")
        except ReasonedError as exc:
            end = str(exc.reason)
        assert end != Reason.INTERNAL_ERROR
        self.ends[end] += 1
        return end

    def _along(self, paths: list[Path], directory: Path) -> str:
        """Door, headers, routing facts, eligibility, pixels, derivation, verification."""
        from dicom_node.imaging.eligibility import AssemblyPolicy
        from dicom_node.imaging.provenance import Provenance
        from dicom_node.imaging.series import (
            derive_source,
            judge_series,
            read_headers_of,
            read_source,
            verify_source,
        )

        headers = read_headers_of(paths)
        summarise(headers, calling_ae="A", called_ae="B")
        policy = AssemblyPolicy(minimum_slices=2)
        judge_series(headers, policy)
        source = read_source(paths, policy, decoders=self._decoders)
        made_by = Provenance("identity", "1", "0" * 64, "Fuzz", 0.0, {}, "0", NOW)
        derived = derive_source(
            source,
            [part.volume for part in source.volumes],
            provenance=made_by,
            policy=DerivationPolicy(),
            uids=UidPlan("fuzz"),
            directory=directory,
        )
        report = verify_source(
            paths,
            [instance.path for instance in derived],
            policy=DerivationPolicy(),
            left_out=frozenset(entry.sop_instance_uid for entry in source.left_out),
            decoders=self._decoders,
        )
        failed = [f"{check.number}: {check.detail}" for check in report.checks if not check.passed]
        return "ENHANCED" if not failed else f"VERIFY_FAILED {failed}"


def resident_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@st.composite
def damaged_headers(draw: DrawFn) -> tuple[int, int, list[tuple[str, bytes | None]]]:
    """An encoding, which slices (-1: all), and attributes to set to bytes or to remove."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(KEYWORDS),
                st.none() | st.sampled_from(NASTY) | st.binary(max_size=40) | numbers_as_text(),
            ),
            min_size=1,
            max_size=4,
        )
    )
    return draw(st.integers(0, len(SYNTAXES) - 1)), draw(st.integers(-1, SLICES - 1)), edits


def numbers_as_text() -> st.SearchStrategy[bytes]:
    """Decimal strings as DS and IS hold them, some of them no numbers."""
    one = st.floats(allow_nan=True, width=32) | st.integers(-(2**40), 2**40)
    return st.lists(one, min_size=1, max_size=7).map(lambda many: "\\".join(map(str, many)).encode())


@st.composite
def damage(draw: DrawFn) -> list[tuple[str, int, int, bytes]]:
    """Blows to the bytes of a file: what, where (per mille), how much, with what."""
    kinds = st.sampled_from(["cut", "flip", "drop", "repeat", "insert", "length", "nest", "splice"])
    blow = st.tuples(kinds, st.integers(0, 1000), st.integers(0, 400), st.binary(min_size=1, max_size=24))
    return draw(st.lists(blow, min_size=1, max_size=5))


def apply_edits(content: bytes, folder: Path, edits: list[tuple[str, bytes | None]]) -> bytes:
    """Set or remove attributes, byte for byte."""
    path = folder / "edited.dcm"
    path.write_bytes(content)
    with quiet():
        ds = dcmread(path)
        for keyword, value in edits:
            tag = BaseTag(tag_for_keyword(keyword) or 0)
            ds._dict.pop(tag, None)
            if value is not None:
                vr = dictionary_VR(tag)[:2]
                even = value + b" " * (len(value) % 2)
                if vr not in ("OB", "OW", "UN", "SQ", "UT"):
                    even = even[:0xFFFE]
                ds._dict[tag] = RawDataElement(tag, vr, len(even), even, 0, False, True)
        return written(ds, path)


def written(ds: object, path: Path) -> bytes:
    """The elements as they stand, in Explicit VR Little Endian or the encoding of the file."""
    from dicom_node.imaging.elements import element_bytes
    from dicom_node.imaging.encoding import Element, encode

    body = {}
    for tag in [int(key) for key in ds.keys()]:  # type: ignore[attr-defined]  # noqa: SIM118
        element = ds.get_item(tag)  # type: ignore[attr-defined]
        if tag == 0x7FE00010:
            continue
        body[tag] = Element(str(element.VR or dictionary_VR(tag))[:2], element_bytes(element))
    head, pixels = path.read_bytes(), b""
    meta_end = 144 + struct.unpack("<L", head[140:144])[0]
    start = head.rfind(b"\xe0\x7f\x10\x00OW")
    if start < 0:
        start = head.rfind(b"\xe0\x7f\x10\x00OB")
    pixels = head[start:] if start > 0 else b""
    meta = head[:meta_end].replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2\0")
    return meta + encode(body) + pixels


def strike(content: bytes, blows: list[tuple[str, int, int, bytes]], other: bytes) -> bytes:
    """Apply the blows one after the other."""
    data = bytearray(content)
    for kind, place, size, filler in blows:
        at = min(len(data), 132 + place * max(len(data) - 132, 0) // 1000)
        if kind == "cut":
            del data[at:]
        elif kind == "flip":
            for offset in range(min(size % 16 + 1, len(data) - at)):
                data[at + offset] ^= filler[offset % len(filler)]
        elif kind == "drop":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = bytes(data[at : at + size]) * 2
        elif kind == "insert":
            data[at:at] = filler
        elif kind == "length":
            data[at : at + 4] = struct.pack("<L", [0, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, size][size % 5])
        elif kind == "nest":
            item = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
            data[at:at] = item * (size + 1)
        else:
            data[at : at + size] = other[at : at + 2 * size]
    return bytes(data)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The line with a warm start, so that memory is measured against what it needs anyway."""
    made = Bench(tmp_path_factory.mktemp("fuzz"))
    for series in made.series:
        assert made.take(series) == "ENHANCED"
    yield made
    made.close()


def check_headers(bench: Bench, case: tuple[int, int, list[tuple[str, bytes | None]]]) -> None:
    """Damage headers and go along the line."""
    syntax, which, edits = case
    files = list(bench.series[syntax if syntax != 1 else 0])
    for index in range(SLICES):
        if which in (-1, index):
            files[index] = apply_edits(files[index], bench._folder, edits)
    bench.take(files)


def check_bytes(bench: Bench, syntax: int, which: int, blows: list[tuple[str, int, int, bytes]]) -> None:
    """Damage bytes and go to the door and along the line."""
    files = list(bench.series[syntax])
    files[which] = strike(files[which], blows, bench.series[(syntax + 1) % len(SYNTAXES)][which])
    data = memoryview(files[which])[132 + 12 :]
    for encoding in (Encoding(), Encoding(explicit=False), Encoding(big_endian=True)):
        try:
            scan_elements(data, encoding, frozenset({0x00080018}))
        except MalformedDataSetError:
            continue
    bench.take(files)


def explore(check: Callable[..., None], *, examples: int, number: int, **strategies: object) -> None:
    """Run a check over examples of its own seed."""
    quick = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(quick(given(**strategies)(check)))()  # type: ignore[arg-type]


def explore_both(bench: Bench, *, examples: int, number: int) -> None:
    """A batch of damaged headers and a batch of damaged bytes."""
    explore(lambda case: check_headers(bench, case), examples=examples, number=number, case=damaged_headers())
    explore(
        lambda syntax, which, blows: check_bytes(bench, syntax, which, blows),
        examples=examples,
        number=number,
        syntax=st.integers(0, len(SYNTAXES) - 1),
        which=st.integers(0, SLICES - 1),
        blows=damage(),
    )


def test_damage_ends_with_a_reason_in_bounded_memory(bench: Bench) -> None:
    before = resident_mib()
    explore_both(bench, examples=60, number=20261126)
    assert resident_mib() - before < MEMORY_MIB


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_ten_minutes_of_damage(bench: Bench) -> None:
    """Seeds count up from the time, so that no two runs are the same; the seed is printed to repeat one."""
    before, end, number = resident_mib(), time.monotonic() + FUZZ_S, int(time.time())
    while time.monotonic() < end:
        print(f"seed {number}: {sum(bench.ends.values())} series so far", flush=True)
        explore_both(bench, examples=200, number=number)
        number += 1
    print("\n".join(f"{count:7d}  {end}" for end, count in bench.ends.most_common()))
    assert resident_mib() - before < MEMORY_MIB
