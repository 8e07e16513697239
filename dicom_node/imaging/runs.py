"""Cutting a stack of slices into runs of equal distance, direction and thickness.

A protocol may change its slice distance midway, a table may have moved, a slice may be missing: each run is
a regular grid of its own, tilted or not, and nothing is interpolated between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt

import numpy as np

from dicom_node.imaging.evidence import Gap
from dicom_node.imaging.geometry import SPACING_TOLERANCE_MM, Floats, Stack

SIDEWAYS_LIMIT_MM = SPACING_TOLERANCE_MM * sqrt(3)
"""How far a slice may lie beside the line through its run: three coordinates, each rounded to 0.1 mm."""
_THICKNESS_SHARE = 0.01
_ISOLATED_SHARE = 0.1
"""Holes in at most this share of the intervals are lost slices, whatever the numbering says."""
_PLAIN_SHARE = 0.25
"""At least this share of the intervals must be whole before the others count as holes."""


def part_of(stack: Stack, first: int, last: int) -> Stack:
    """Return the slices `first` to `last` - 1 of a stack as a stack."""
    return replace(
        stack,
        order=stack.order[first:last],
        positions=stack.positions[first:last],
        distances=stack.distances[first:last],
    )


def regular_runs(stack: Stack, thickness_mm: Sequence[float | None]) -> list[tuple[int, int]]:
    """Cut a stack into half-open ranges of slices, each on one line at one distance.

    `thickness_mm` belongs to the sorted slices; None speaks against no neighbour. A slice that fits neither
    side is a run of one.
    """
    steps = np.diff(stack.positions, axis=0)  # (slices - 1, 3), mm
    heights = np.diff(stack.distances)
    thick = _same_thickness(thickness_mm)
    runs, start, count = [], 0, len(stack.order)
    while start < count:
        end = start + 1
        while end < count and thick[end - 1] and _goes_on(stack, steps, heights, start, end):
            end += 1
        if end - start == 2 and end < count and thick[end - 1]:
            end = start + 1  # two slices of a distance that occurs only once: the second may begin a run
        runs.append((start, end))
        start = end
    return [run for first, last in runs for run in _checked(stack, first, last)]


def _same_thickness(thickness_mm: Sequence[float | None]) -> list[bool]:
    """For each interval, whether the slices on both sides are equally thick."""
    same = []
    for one, other in pairwise(thickness_mm):
        known = one not in (None, 0.0) and other not in (None, 0.0)
        same.append(
            not known
            or one is None
            or other is None
            or abs(one - other) <= _THICKNESS_SHARE * max(abs(one), abs(other))
        )
    return same


def _goes_on(stack: Stack, steps: Floats, heights: Floats, start: int, end: int) -> bool:
    """Whether the step to slice `end` is like the steps of the run that began at `start`."""
    if end == start + 1:
        return True
    typical = np.median(steps[start : end - 1], axis=0)
    height = float(np.median(heights[start : end - 1]))
    # Both ends of an interval may be off by the tolerance.
    off = abs(float(heights[end - 1]) - height) > 2 * stack.tolerance_mm(height)
    step = steps[end - 1] - typical
    sideways = float(np.linalg.norm(step - stack.normal * (step @ stack.normal)))
    return not off and sideways <= 2 * SIDEWAYS_LIMIT_MM


def _checked(stack: Stack, first: int, last: int) -> list[tuple[int, int]]:
    """The run if its slices lie on one line, else every slice alone: small steps can add up to a curve."""
    if last - first < 3:
        return [(first, last)]
    run = part_of(stack, first, last)
    if run.is_uniform and run.sideways_mm <= 2 * SIDEWAYS_LIMIT_MM:
        return [(first, last)]
    return [(index, index + 1) for index in range(first, last)]


def find_gaps(stack: Stack) -> tuple[Gap, ...]:
    """The holes, if every interval is a whole multiple of the smallest one; else nothing."""
    steps = np.diff(stack.distances)
    if not len(steps):
        return ()
    base = float(np.median(steps[steps <= 1.2 * steps.min()]))
    multiples = np.rint(steps / base).astype(int)
    off = np.abs(steps - multiples * base)
    if (off > 2 * stack.tolerance_mm(base)).any():
        return ()
    return tuple(
        Gap(after_index=int(i), distance_mm=float(steps[i]), missing=int(multiples[i]) - 1)
        for i in np.flatnonzero(multiples > 1)
    )


def are_losses(gaps: Sequence[Gap], intervals: int, numbers: Sequence[int | None]) -> bool:
    """Whether holes are lost slices rather than a protocol that changes its spacing midway.

    A few holes are always losses. Many are losses when the InstanceNumbers have holes too: a protocol
    numbers its slices without.
    """
    if len(gaps) <= max(1, int(_ISOLATED_SHARE * intervals)):
        return True
    known = [number for number in numbers if number is not None]
    consecutive = len(known) == len(numbers) and set(np.diff(known)) in ({1}, {-1})
    return not consecutive and intervals - len(gaps) >= _PLAIN_SHARE * intervals


def gaps_between(stack: Stack, runs: Sequence[tuple[int, int]], thick: Sequence[float | None]) -> list[Gap]:
    """Holes between neighbouring runs of equal distance and thickness: a block that lost a slice."""
    found = []
    for (first, middle), (_, last) in pairwise(runs):
        if middle - first < 2 or last - middle < 2 or not _same_thickness(thick[middle - 1 : middle + 1])[0]:
            continue
        one, other = part_of(stack, first, middle).spacing_mm, part_of(stack, middle, last).spacing_mm
        limit = 2 * stack.tolerance_mm(one)
        hole = float(stack.distances[middle] - stack.distances[middle - 1])
        missing = round(hole / one) - 1
        if abs(one - other) <= limit and missing >= 1 and abs(hole - (missing + 1) * one) <= limit:
            found.append(Gap(after_index=middle - 1, distance_mm=hole, missing=missing))
    return found
