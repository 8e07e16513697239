"""Whether a stack of slices is one regular volume, and what is wrong with it where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import atan, cos, radians, sqrt

import numpy as np

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.evidence import Evidence, Gap
from dicom_node.imaging.geometry import (
    SAME_POSITION_MM,
    SHEAR_LIMIT_DEG,
    SPACING_TOLERANCE_MM,
    Stack,
    make_stack,
)
from dicom_node.imaging.headers import InstanceHeader

_SIDEWAYS_LIMIT_MM = SPACING_TOLERANCE_MM * sqrt(3)
_ISOLATED_SHARE = 0.1
"""Holes in at most this share of the intervals are lost slices, whatever the numbering says."""
_PLAIN_SHARE = 0.25
"""At least this share of the intervals must be whole before the others count as holes."""
_THICKNESS_SHARE = 0.01


def arrange(headers: Sequence[InstanceHeader], evidence: Evidence) -> tuple[Stack, Evidence]:
    """Return the slices as one regular stack, with the evidence completed.

    Raises `SkipSeriesError` (NO_GEOMETRY, MIXED_GEOMETRY, SEVERAL_VOLUMES, GANTRY_TILT,
    IRREGULAR_SPACING, TOO_FEW_SLICES) or `HoldSeriesError` (DUPLICATE_POSITION, MISSING_SLICE).
    """
    stack = make_stack(headers)
    if len(headers) < 2:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, "One slice is no volume.", evidence.as_json())
    ordered = [headers[i] for i in stack.order]
    _require_distinct_positions(stack, ordered, evidence)
    evidence = evidence.with_stack(spacing_mm=stack.spacing_mm, shear_deg=stack.shear_deg)
    if stack.shear_deg > SHEAR_LIMIT_DEG:
        raise SkipSeriesError(Reason.GANTRY_TILT, f"{stack.shear_deg:.1f} degrees.", evidence.as_json())
    if stack.sideways_mm > _SIDEWAYS_LIMIT_MM:
        raise SkipSeriesError(
            Reason.MIXED_GEOMETRY, "The slices are shifted against each other.", evidence.as_json()
        )
    _require_one_thickness(headers, evidence)
    if not stack.is_uniform:
        _explain_spacing(stack, ordered, evidence)
    _require_volume(stack, evidence)
    return stack, evidence


def _require_distinct_positions(stack: Stack, ordered: Sequence[InstanceHeader], evidence: Evidence) -> None:
    """Every slice has a position of its own; otherwise say whether something tells them apart."""
    starts = np.flatnonzero(np.diff(stack.distances, prepend=-np.inf) > SAME_POSITION_MM)
    groups = [list(group) for group in np.split(np.arange(len(ordered)), starts[1:])]
    shared = [group for group in groups if len(group) > 1]
    if not shared:
        return
    evidence = replace(evidence, duplicates=sum(len(group) for group in shared))
    names = telling_apart([[ordered[i] for i in group] for group in shared], len(groups))
    if names:
        raise SkipSeriesError(
            Reason.SEVERAL_VOLUMES, f"They differ in {', '.join(names)}.", evidence.as_json()
        )
    raise HoldSeriesError(Reason.DUPLICATE_POSITION, f"{len(shared)} positions.", evidence.as_json())


def telling_apart(groups: Sequence[Sequence[InstanceHeader]], positions: int) -> list[str]:
    """Return the attributes that tell slices at one position apart; none when some stay alike.

    A weak one (a time) counts only where each of its values covers every position once.
    """
    varying: set[str] = set()
    for group in groups:
        values = [h.discriminators for h in group]
        if len(set(values)) < len(group):
            return _weak_names(groups, positions)
        columns = zip(*values, strict=True)
        varying |= {column[0][0] for column in columns if len({value for _, value in column}) > 1}
    return sorted(varying)


def _weak_names(groups: Sequence[Sequence[InstanceHeader]], positions: int) -> list[str]:
    """Times that cut the series into whole volumes."""
    found = []
    for index, (name, _) in enumerate(groups[0][0].weak_discriminators):
        columns = [[h.weak_discriminators[index][1] for h in group] for group in groups]
        clean = all(sorted(column) == sorted(columns[0]) for column in columns)
        if clean and len(set(columns[0])) == len(columns[0]) and len(groups) == positions:
            found.append(name)
    return found


def _require_one_thickness(headers: Sequence[InstanceHeader], evidence: Evidence) -> None:
    """The slice thickness does not change; slices that state none do not speak against it."""
    known = [
        h.geometry.slice_thickness_mm for h in headers if h.geometry.slice_thickness_mm not in (None, 0.0)
    ]
    thickness = np.array(known, dtype=np.float64)
    if thickness.size and np.ptp(thickness) > _THICKNESS_SHARE * np.abs(thickness).max():
        raise SkipSeriesError(Reason.IRREGULAR_SPACING, "The thickness changes.", evidence.as_json())


def _explain_spacing(stack: Stack, ordered: Sequence[InstanceHeader], evidence: Evidence) -> None:
    """Raise for a stack whose spacing is not uniform: slices are missing, or it never was."""
    gaps = find_gaps(stack)
    if gaps and _are_losses(gaps, len(ordered) - 1, [h.instance_number for h in ordered]):
        missing = sum(gap.missing for gap in gaps)
        evidence = replace(evidence, gaps=gaps)
        raise HoldSeriesError(
            Reason.MISSING_SLICE, f"{missing} missing in {len(gaps)} places.", evidence.as_json()
        )
    raise SkipSeriesError(Reason.IRREGULAR_SPACING, "", evidence.as_json())


def find_gaps(stack: Stack) -> tuple[Gap, ...]:
    """Return the holes, if every interval is a whole multiple of the smallest one; else nothing."""
    steps = np.diff(stack.distances)
    base = float(np.median(steps[steps <= 1.2 * steps.min()]))
    multiples = np.rint(steps / base).astype(int)
    # Both ends of an interval may be off by the tolerance.
    off = np.abs(steps - multiples * base)
    if (off > 2 * stack.tolerance_mm(base)).any():
        return ()
    return tuple(
        Gap(after_index=int(i), distance_mm=float(steps[i]), missing=int(multiples[i]) - 1)
        for i in np.flatnonzero(multiples > 1)
    )


def _are_losses(gaps: Sequence[Gap], intervals: int, numbers: Sequence[int | None]) -> bool:
    """Whether holes are lost slices rather than a protocol that changes its spacing midway.

    A few holes are always losses. Many are losses when the InstanceNumbers have holes too: a protocol
    numbers its slices without.
    """
    if len(gaps) <= max(1, int(_ISOLATED_SHARE * intervals)):
        return True
    known = [number for number in numbers if number is not None]
    consecutive = len(known) == len(numbers) and set(np.diff(known)) in ({1}, {-1})
    return not consecutive and intervals - len(gaps) >= _PLAIN_SHARE * intervals


def _require_volume(stack: Stack, evidence: Evidence) -> None:
    """Ask highdicom for the same verdict and the same order, with the tolerances spelled out.

    Its test for "perpendicular" looks from the first slice to each other one, so rounded positions of
    thin slices need the angle that rounding alone can make on top of the limit.
    """
    from highdicom.spatial import get_volume_positions

    spacing = stack.spacing_mm
    angle = radians(SHEAR_LIMIT_DEG) + atan(_SIDEWAYS_LIMIT_MM / spacing)
    found, index = get_volume_positions(
        stack.positions.tolist(),
        [*stack.row, *stack.column],
        atol=2 * stack.tolerance_mm(spacing),
        perpendicular_tol=1 - cos(angle),
    )
    ranks = list(range(len(stack.order)))
    # Its plane 0 may be either end; what must hold is the order along the normal.
    if found is None or index not in (ranks, ranks[::-1]):
        raise SkipSeriesError(Reason.IRREGULAR_SPACING, "No regular volume.", evidence.as_json())
