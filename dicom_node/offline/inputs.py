"""What is in INPUT: NIfTI volumes and DICOM series that may be enhanced, and the rest with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicom_node.errors import HoldSeriesError, Reason, ReasonedError, SkipSeriesError, UnreadableInstanceError
from dicom_node.imaging.eligibility import AssemblyPolicy
from dicom_node.imaging.headers import InstanceHeader, read_header
from dicom_node.imaging.multiframe import SINGLE_FRAME_CLASSES
from dicom_node.imaging.nifti import Modality, is_nifti_name, modality_beside
from dicom_node.imaging.series import judge_series, read_headers_of
from dicom_node.imaging.source_rules import CT_IMAGE
from dicom_node.offline.request import MINIMUM_SLICES, EnhanceRequest, OfflineError

_MAGIC_AT: Final = 128  # of "DICM", after the preamble (PS3.10 7.1)
_LONGEST_FIRST: Final = 64  # bytes of the first value of a data set: a UID, a group length, a character set

Pieces = list[tuple[Path, InstanceHeader]]


@dataclass(frozen=True)
class NiftiItem:
    """One NIfTI file; `name` is its path below OUTPUT, empty when OUTPUT is the file itself.

    compressed  whether the enhanced file is
    """

    path: Path
    name: str
    modality: Modality
    compressed: bool

    @property
    def written(self) -> frozenset[str]:
        """Names below OUTPUT of what enhancing it writes."""
        return frozenset({self.name})


@dataclass(frozen=True)
class SeriesItem:
    """One DICOM series; `name` is its folder below OUTPUT, empty when OUTPUT is that folder itself.

    neighbours  an instance of each other series of the study
    """

    paths: tuple[Path, ...]
    uids: tuple[str, ...] = field(repr=False)
    name: str
    modality: Modality
    series_instance_uid: str
    neighbours: tuple[Path, ...]

    @property
    def written(self) -> frozenset[str]:
        """Names below OUTPUT of what enhancing it writes."""
        lead = f"{self.name}/" if self.name else ""
        return frozenset(f"{lead}{number + 1:05d}.dcm" for number in range(len(self.paths)))


Item = NiftiItem | SeriesItem


@dataclass(frozen=True)
class Refusal:
    """An input that is not enhanced.

    proper  whether leaving it alone is the right outcome; otherwise a person has to look
    """

    what: str
    reason: str
    message: str
    proper: bool


@dataclass(frozen=True)
class Inputs:
    """Everything found. `in_folder` says that OUTPUT is a folder around the items, not one item itself."""

    items: tuple[Item, ...]
    refused: tuple[Refusal, ...]
    in_folder: bool

    @property
    def written(self) -> frozenset[str]:
        """Names below OUTPUT of everything that would be written."""
        return frozenset().union(*(item.written for item in self.items))


def find_inputs(request: EnhanceRequest) -> Inputs:
    """Look through INPUT; raises `OfflineError` when it holds nothing of the two kinds.

    Only headers are read. What lies below OUTPUT already is not looked at.
    """
    source = request.source
    if source.is_file():
        return _single_file(source, request)
    volumes, instances, unreadable = _sort(source, request.output.resolve())
    series = _by_series(instances)
    if not volumes and not series and not unreadable:
        raise OfflineError(f"{source} holds neither a NIfTI file nor a DICOM series")
    items: list[Item] = []
    refused = [_unreadable(path, message) for path, message in unreadable.items()]
    for path in volumes:
        modality = request.modality or modality_beside(path)
        if modality is None:
            refused.append(_unknown(path))
        else:
            items.append(NiftiItem(path, str(path.relative_to(source)), modality, _is_compressed(path)))
    alone = not volumes and len(series) == 1
    doubtful = {path.parent for path in unreadable}
    for uid, pieces in series.items():
        judged = _judge(uid, pieces, request.modality, doubtful)
        if judged is not None:
            refused.append(judged)
            continue
        name = "" if alone else _folder_name(uid, pieces)
        items.append(_series(uid, pieces, name, tuple(_neighbours(uid, series))))
    return Inputs(tuple(items), tuple(refused), in_folder=not alone)


def _single_file(path: Path, request: EnhanceRequest) -> Inputs:
    """INPUT is one NIfTI file."""
    if not is_nifti_name(path):
        kind = (
            "one DICOM file; name the folder of its series" if _is_part10(path) else "no .nii or .nii.gz file"
        )
        raise OfflineError(f"{path} is {kind}")
    if not is_nifti_name(request.output):
        raise OfflineError(f"{request.output}: the enhanced file of a NIfTI file is named .nii or .nii.gz")
    modality = request.modality or modality_beside(path)
    if modality is None:
        return Inputs((), (_unknown(path),), in_folder=False)
    return Inputs((NiftiItem(path, "", modality, _is_compressed(request.output)),), (), in_folder=False)


def _sort(folder: Path, output: Path) -> tuple[list[Path], Pieces, dict[Path, str]]:
    """NIfTI files, DICOM instances with their headers, and DICOM files that cannot be parsed, each with why."""
    volumes, instances, unreadable = [], [], dict[Path, str]()
    for path in _files(folder, output):
        if is_nifti_name(path):
            volumes.append(path)
        elif _is_part10(path):
            try:
                header = read_header(path)
            except UnreadableInstanceError:
                unreadable[path] = "The DICOM file cannot be parsed."
                continue
            if header.series_instance_uid:  # a DICOMDIR has none
                instances.append((path, header))
        elif _is_bare(path):
            unreadable[path] = "The DICOM file lacks its preamble (PS3.10 7.1); dcmconv of DCMTK writes one."
    return volumes, instances, unreadable


def _files(folder: Path, output: Path) -> Iterator[Path]:
    """Every visible file below the folder, sorted."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and output not in (path.resolve(), *path.resolve().parents):
            yield path


def _is_part10(path: Path) -> bool:
    """Whether the file starts with a preamble and DICM."""
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + 4)[_MAGIC_AT:] == b"DICM"
    except OSError as exc:
        raise OfflineError(f"{path}: cannot be read ({exc.strerror})") from exc


def _is_bare(path: Path) -> bool:
    """Whether the file starts with DICM, or with an element of group 0002 or 0008 as a data set does."""
    with path.open("rb") as file:
        head = file.read(8)
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    told = head[4:6].isalpha() and head[4:6].isupper()
    short = len(head) == 8 and int.from_bytes(head[4:], "little") <= _LONGEST_FIRST
    return head[:4] == b"DICM" or (group in (0x0002, 0x0008) and element <= 0x0018 and (told or short))


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _unknown(path: Path) -> Refusal:
    """A NIfTI header has no place for the modality."""
    message = "a NIfTI file does not say what it shows; add --modality CT or --modality MR"
    return Refusal(str(path), Reason.MODALITY_UNKNOWN, message, proper=False)


def _by_series(instances: Pieces) -> Mapping[str, Pieces]:
    """Instances by Series Instance UID, in the order they were found."""
    groups: dict[str, Pieces] = {}
    for path, header in instances:
        groups.setdefault(header.series_instance_uid, []).append((path, header))
    return groups


def _judge(uid: str, pieces: Pieces, asked: Modality | None, doubtful: set[Path]) -> Refusal | None:
    """Why a series is not enhanced, None when it may be."""
    what = f"series {uid}"
    if any(path.parent in doubtful for path, _ in pieces):
        message = "A file beside its instances cannot be parsed; it may be one of them."
        return Refusal(what, Reason.UNREADABLE, message, proper=False)
    try:
        judge_series(_headers(pieces), AssemblyPolicy(minimum_slices=MINIMUM_SLICES))
    except (SkipSeriesError, HoldSeriesError) as exc:
        return refusal_of(what, exc)
    modality = _modality(pieces)
    if asked is not None and asked != modality:
        message = f"The series is {modality}, and --modality {asked} was asked for."
        return Refusal(what, Reason.OTHER_MODALITY, message, proper=True)
    return None


def _headers(pieces: Pieces) -> Sequence[InstanceHeader]:
    """The headers of a series, frame by frame where it has frames."""
    headers = [header for _, header in pieces]
    if any(header.sop_class_uid in SINGLE_FRAME_CLASSES for header in headers):
        return read_headers_of([path for path, _ in pieces])
    return headers


def refusal_of(what: str, error: ReasonedError) -> Refusal:
    """The refusal that an error of the line amounts to."""
    return Refusal(what, str(error.reason), error.message, proper=isinstance(error, SkipSeriesError))


def _unreadable(path: Path, message: str) -> Refusal:
    return Refusal(str(path), Reason.UNREADABLE, message, proper=False)


def _series(uid: str, pieces: Pieces, name: str, neighbours: tuple[Path, ...]) -> SeriesItem:
    return SeriesItem(
        paths=tuple(path for path, _ in pieces),
        uids=tuple(header.sop_instance_uid for _, header in pieces),
        name=name,
        modality=_modality(pieces),
        series_instance_uid=uid,
        neighbours=neighbours,
    )


def _modality(pieces: Pieces) -> Modality:
    """By SOP class: an eligible series is CT or MR."""
    found = pieces[0][1].sop_class_uid
    return "CT" if SINGLE_FRAME_CLASSES.get(found, found) == CT_IMAGE else "MR"


def _folder_name(uid: str, pieces: Pieces) -> str:
    """A name that sorts well, is one series' own and holds nothing a person typed into the series."""
    number = pieces[0][1].series_number or 0
    return f"{_modality(pieces)}-{number:04d}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def _neighbours(uid: str, series: Mapping[str, Pieces]) -> Iterator[Path]:
    """An instance of each other series of the same study."""
    study = series[uid][0][1].study_instance_uid
    for other, pieces in series.items():
        if other != uid and pieces[0][1].study_instance_uid == study:
            yield pieces[0][0]
