"""Telling apart the volumes of one series: echoes, phases, b-values and directions, time points, kernels.

Two slices at one position belong to two volumes. Which attribute tells them apart is searched for: the
fewest attributes whose values cut the series into volumes that each hold every position once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dicom_node.imaging.geometry import SAME_POSITION_MM, Floats
from dicom_node.imaging.headers import InstanceHeader

Places = NDArray[np.intp]  # (slices,), the number of the position of each

_NUMBERING = ("EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "ComplexImageComponent")
"""Attributes that number volumes: several values mean several volumes even where no position repeats."""
_MOST_TOGETHER = 3
"""Attributes that are tried together before all of them are."""


@dataclass(frozen=True)
class Split:
    """How slices fall into volumes.

    names    attributes that tell the volumes apart, none for a single volume
    labels   one per volume, such as ``EchoNumbers 2``, ASCII
    volumes  indices of the slices of each volume, in their order
    even     whether every volume has a slice at every position
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    volumes: tuple[tuple[int, ...], ...]
    even: bool


def split_volumes(headers: Sequence[InstanceHeader], distances: Floats) -> Split | None:
    """Return how the slices fall into volumes, or None when slices at one position cannot be told apart.

    `distances` are the positions along the normal, mm, in the order of the headers. Times and instance
    numbers are weak: they count only where they cut the series into whole volumes.
    """
    places = _places(distances)
    numbering = _numbering(headers)
    if len(np.unique(places)) == len(places) and not numbering:
        return Split((), ("",), (tuple(range(len(headers))),), even=True)
    columns = _columns(headers)
    uneven = None
    for names in _choices(columns, places, numbering):
        split = _by(headers, places, columns, names)
        if split is None:
            continue
        if split.even:
            return split
        uneven = uneven or split
    return _by_weak(headers, places) or uneven


def _places(distances: Floats) -> Places:
    """Number of the position of each slice; slices closer than `SAME_POSITION_MM` share one."""
    order = np.argsort(distances, kind="stable")
    apart = np.diff(distances[order], prepend=-np.inf) > SAME_POSITION_MM
    places = np.empty(len(distances), np.intp)
    places[order] = np.cumsum(apart) - 1
    return places


def _columns(headers: Sequence[InstanceHeader]) -> dict[str, tuple[str, ...]]:
    """Attribute to its value in every slice; an absent number of a volume counts as zero."""
    rows = [header.discriminators for header in headers]
    return {
        column[0][0]: tuple(value or ("0" if column[0][0] in _NUMBERING else "") for _, value in column)
        for column in zip(*rows, strict=True)
    }


def _numbering(headers: Sequence[InstanceHeader]) -> tuple[str, ...]:
    """Numbering attributes with several values."""
    columns = _columns(headers)
    return tuple(name for name in _NUMBERING if len(set(columns[name])) > 1)


def _choices(
    columns: dict[str, tuple[str, ...]],
    places: Places,
    numbering: tuple[str, ...],
) -> Iterator[tuple[str, ...]]:
    """Sets of attributes to try, the smallest first; those that number volumes always take part."""
    varying = [name for name in columns if name in numbering or _varies(columns[name], places)]
    free = [name for name in varying if name not in numbering]
    for count in range(min(len(free), _MOST_TOGETHER) + 1):
        for chosen in combinations(free, count):
            if chosen or numbering:
                yield (*numbering, *chosen)
    if len(free) > _MOST_TOGETHER:
        yield (*numbering, *free)


def _varies(values: Sequence[str], places: Places) -> bool:
    """Whether an attribute takes several values at one position."""
    seen: dict[int, str] = {}
    return any(
        seen.setdefault(int(place), value) != value for place, value in zip(places, values, strict=True)
    )


def _by(
    headers: Sequence[InstanceHeader],
    places: Places,
    columns: dict[str, tuple[str, ...]],
    names: tuple[str, ...],
) -> Split | None:
    """The split by these attributes; None where a volume would hold one position twice."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index in range(len(headers)):
        groups[tuple(columns[name][index] for name in names)].append(index)
    labels = tuple(", ".join(_label(n, v) for n, v in zip(names, key, strict=True)) for key in groups)
    return _split(names, labels, list(groups.values()), places)


def _label(name: str, value: str) -> str:
    """One attribute as the job log shows it."""
    return f"{name} {value.replace(chr(92), '/') or 'none'}".encode("ascii", "replace").decode("ascii")


def _split(
    names: tuple[str, ...],
    labels: tuple[str, ...],
    groups: list[list[int]],
    places: Places,
) -> Split | None:
    """The split into these groups, unless one of them holds a position twice."""
    found = [places[group] for group in groups]
    if any(len(np.unique(part)) < len(part) for part in found):
        return None
    whole = set(places.tolist())
    even = all(set(part.tolist()) == whole for part in found)
    return Split(names, labels, tuple(tuple(group) for group in groups), even)


def _by_weak(headers: Sequence[InstanceHeader], places: Places) -> Split | None:
    """The split by a time, or by InstanceNumbers that run through the positions volume after volume."""
    for index, (name, _) in enumerate(headers[0].weak_discriminators):
        groups: dict[str, list[int]] = defaultdict(list)
        for number, header in enumerate(headers):
            groups[header.weak_discriminators[index][1]].append(number)
        split = _split((name,), tuple(_label(name, value) for value in groups), list(groups.values()), places)
        if split is not None and split.even and len(groups) > 1:
            return split
    return _by_number(headers, places)


def _by_number(headers: Sequence[InstanceHeader], places: Places) -> Split | None:
    """Volumes that follow each other in the InstanceNumbers."""
    numbers = [header.instance_number for header in headers]
    size = len(np.unique(places))
    if size < 2 or None in numbers or len(set(numbers)) < len(numbers) or len(numbers) % size:
        return None  # one position, or none in common: numbers alone make no volumes of that
    order = sorted(range(len(numbers)), key=lambda index: numbers[index] or 0)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    labels = tuple(f"InstanceNumber pass {number}" for number in range(1, len(groups) + 1))
    split = _split(("InstanceNumber",), labels, groups, places)
    return split if split is not None and split.even and len(groups) > 1 else None
