"""Which slices of a series form which volumes, and which slices are left out: decided from headers alone.

A series is cut in three steps: by what lies on one grid (matrix, pixel spacing, orientation), by what tells
slices at one position apart (echo, phase, b-value, ...), and into runs of equal distance. Each run is a
volume on its own native grid, tilted or not. What fits nowhere is left out and named; nothing is resampled,
interpolated or invented.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dicom_node.errors import HoldSeriesError, Reason, SkipSeriesError
from dicom_node.imaging.evidence import Evidence, LeftOut, VolumeFacts, gather
from dicom_node.imaging.geometry import (
    SHEAR_LIMIT_DEG,
    Stack,
    grid_groups,
    has_jitter,
    has_place,
    make_stack,
)
from dicom_node.imaging.headers import InstanceHeader
from dicom_node.imaging.runs import are_losses, find_gaps, gaps_between, part_of, regular_runs
from dicom_node.imaging.volume_split import split_volumes

_SMALLEST_SHARE = 0.5
"""A series of which less than this share of the slices forms volumes is no series of volumes."""

_FEWEST_RELEASED = 4
"""Depth of the blocks that noise is measured in."""


@dataclass(frozen=True)
class AssemblyPolicy:
    """What may be assembled and enhanced; mirrors the assembly section of the configuration.

    minimum_slices    fewest slices of a volume
    allow_lossy       whether images compressed with loss are taken
    odd_slices        localizers and other single images among the slices: leave them out, or refuse all
    several_volumes   a series of several volumes: enhance each, or refuse
    irregular         gantry tilt and blocks of different spacing: enhance block by block, or refuse
    diffusion, monoenergetic   contrasts the enhancement was not made for: enhance where the noise can be
                      measured (the enhancer refuses otherwise), or leave alone
    released          a person looked at the series and let it pass: missing and duplicate slices are no
                      reason to wait any more
    most_slices, most_voxels   how large a series may be to be taken
    """

    minimum_slices: int = 8
    allow_lossy: bool = True
    odd_slices: Literal["leave_out", "refuse"] = "leave_out"
    several_volumes: Literal["enhance", "refuse"] = "enhance"
    irregular: Literal["enhance", "refuse"] = "enhance"
    diffusion: Literal["if_measurable", "leave_alone"] = "if_measurable"
    monoenergetic: Literal["if_measurable", "leave_alone"] = "leave_alone"
    released: bool = False
    most_slices: int = 5000
    most_voxels: int = 1_500_000_000


@dataclass(frozen=True, eq=False)
class PlannedVolume:
    """Slices that form one volume.

    members  indices into the headers, ascending along the normal: member i is slice i of the volume
    stack    their geometry, in the same order
    label    what tells the volume from the others of its series, ASCII, empty for an only one
    """

    members: tuple[int, ...]
    stack: Stack
    label: str = ""


@dataclass(frozen=True, eq=False)
class SeriesPlan:
    """The volumes of a series in the order they are worked on, and what is to be said about the rest."""

    volumes: tuple[PlannedVolume, ...]
    evidence: Evidence

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The slices no volume holds, each with its reason."""
        return self.evidence.left_out


def assemble(
    headers: Sequence[InstanceHeader],
    policy: AssemblyPolicy,
    evidence: Evidence | None = None,
    chosen: Sequence[int] | None = None,
) -> SeriesPlan:
    """Return the volumes that the chosen slices (all, by default) form.

    Raises `SkipSeriesError` (NO_GEOMETRY, MIXED_GEOMETRY, SEVERAL_VOLUMES, GANTRY_TILT, IRREGULAR_SPACING,
    TOO_FEW_SLICES) or `HoldSeriesError` (DUPLICATE_POSITION, MISSING_SLICE), each with the evidence.
    """
    members = tuple(range(len(headers))) if chosen is None else tuple(chosen)
    work = _Assembly(headers, policy, evidence or gather(headers))
    try:
        placed = work.placed(members)
        for group in grid_groups([headers[i] for i in placed]):
            work.add_grid(tuple(placed[i] for i in group))
        return work.finish(members)
    except (SkipSeriesError, HoldSeriesError) as exc:
        exc.evidence = {**work.evidence.as_json(), **exc.evidence}
        raise


class _Assembly:
    """One series under assembly: collects volumes, slices left out and notes."""

    def __init__(self, headers: Sequence[InstanceHeader], policy: AssemblyPolicy, evidence: Evidence) -> None:
        self._headers = headers
        self._policy = policy
        self._volumes: list[PlannedVolume] = []
        self._grids = 0
        self.evidence = evidence

    def placed(self, members: Sequence[int]) -> tuple[int, ...]:
        """The slices that say where they lie; the others can belong to no volume."""
        found = tuple(i for i in members if has_place(self._headers[i]))
        if not found:
            detail = f"None of {len(members)} slices states a usable position, orientation and spacing."
            raise SkipSeriesError(Reason.NO_GEOMETRY, detail)
        self._leave_out([i for i in members if i not in set(found)], Reason.NO_GEOMETRY)
        return found

    def add_grid(self, members: tuple[int, ...]) -> None:
        """Cut the slices of one grid into volumes."""
        if len(members) < 2:
            self._leave_out(members, Reason.MIXED_GEOMETRY)
            return
        self._grids += 1
        stack = make_stack([self._headers[i] for i in members])
        if has_jitter([self._headers[i] for i in members]):
            self._note(Reason.ORIENTATION_JITTER)
        members = tuple(members[i] for i in stack.order)  # sorted, as the stack is
        split = split_volumes([self._headers[i] for i in members], stack.distances)
        if split is None:
            members, stack = self._without_duplicates(members, stack)
            self._add_volume(members, stack, "")
            return
        if len(members) > 1 and len(stack.first_at_each_position) == 1:
            raise SkipSeriesError(Reason.TOO_FEW_SLICES, f"{len(members)} images of one position.")
        if len(split.volumes) > 1:
            self._admit_several(split.names, even=split.even)
        for label, part in zip(split.labels, split.volumes, strict=True):
            chosen = tuple(sorted(part))
            self._add_volume(tuple(members[i] for i in chosen), _chosen(stack, chosen), label)

    def _admit_several(self, names: Sequence[str], *, even: bool) -> None:
        """Several volumes at one place: allowed by policy, and all of them complete."""
        detail = f"They differ in {', '.join(names)}."
        if self._policy.several_volumes == "refuse":
            raise SkipSeriesError(Reason.SEVERAL_VOLUMES, detail)
        if not even and not self._policy.released:
            raise HoldSeriesError(
                Reason.MISSING_SLICE, f"Its volumes do not cover the same positions. {detail}"
            )
        self._note(Reason.SEVERAL_VOLUMES)

    def _without_duplicates(self, members: tuple[int, ...], stack: Stack) -> tuple[tuple[int, ...], Stack]:
        """The first slice of each position, once a person has let the series pass."""
        first = stack.first_at_each_position
        twice = len(members) - len(first)
        self.evidence = replace(self.evidence, duplicates=self.evidence.duplicates + 2 * twice)
        if not self._policy.released:
            raise HoldSeriesError(Reason.DUPLICATE_POSITION, f"{twice} slices share a position with another.")
        kept = set(first)
        self._leave_out([m for i, m in enumerate(members) if i not in kept], Reason.DUPLICATE_POSITION)
        return tuple(members[i] for i in first), _chosen(stack, first)

    def _add_volume(self, members: tuple[int, ...], stack: Stack, label: str) -> None:
        """Cut slices at distinct positions into regular runs and keep those that are long enough."""
        thick = [self._headers[i].geometry.slice_thickness_mm for i in members]
        self._require_no_losses(members, stack)
        runs = regular_runs(stack, thick)
        gaps = gaps_between(stack, runs, thick)
        if gaps:
            self._admit_gaps(tuple(gaps))
        long = [run for run in runs if run[1] - run[0] >= self._fewest]
        if len(runs) > 1 and self._policy.irregular == "refuse":
            raise SkipSeriesError(Reason.IRREGULAR_SPACING, f"{len(runs)} runs of slices.")
        if len(long) > 1 or (long and len(runs) > 1):
            self._note(Reason.BLOCKS)
        for number, (first, last) in enumerate(runs, 1):
            part = members[first:last]
            if (first, last) not in long:
                self._leave_out(part, Reason.SHORT_RUN)
                continue
            words = [label] if label else []
            words += [f"block {number}"] if len(runs) > 1 else []
            self._add_run(part, part_of(stack, first, last), ", ".join(words))

    def _add_run(self, members: tuple[int, ...], stack: Stack, label: str) -> None:
        """Keep one regular grid."""
        if stack.shear_deg > SHEAR_LIMIT_DEG:
            if self._policy.irregular == "refuse":
                raise SkipSeriesError(Reason.GANTRY_TILT, f"{stack.shear_deg:.1f} degrees.")
            self._note(Reason.GANTRY_TILT)
        self._volumes.append(PlannedVolume(members, stack, label))

    def _require_no_losses(self, members: tuple[int, ...], stack: Stack) -> None:
        """Hold a stack with holes that lost slices left."""
        gaps = find_gaps(stack)
        numbers = [self._headers[i].instance_number for i in members]
        if gaps and are_losses(gaps, len(members) - 1, numbers):
            self._admit_gaps(gaps)

    def _admit_gaps(self, gaps: tuple[Any, ...]) -> None:
        """Holes hold a series until a person releases it."""
        self.evidence = replace(self.evidence, gaps=gaps)
        if not self._policy.released:
            missing = sum(gap.missing for gap in gaps)
            raise HoldSeriesError(Reason.MISSING_SLICE, f"{missing} missing in {len(gaps)} places.")
        self._note(Reason.GAP)

    def _leave_out(self, members: Sequence[int], reason: Reason) -> None:
        """Remember slices that no volume holds."""
        more = tuple(LeftOut(self._headers[i].sop_instance_uid, reason) for i in members)
        self.evidence = replace(self.evidence, left_out=self.evidence.left_out + more)

    def _note(self, reason: Reason) -> None:
        """Remember once what is unusual about the series."""
        if reason not in self.evidence.notes:
            self.evidence = replace(self.evidence, notes=(*self.evidence.notes, reason))

    def finish(self, members: Sequence[int]) -> SeriesPlan:
        """Return the plan, unless too little of the series is left."""
        taken = sum(len(volume.members) for volume in self._volumes)
        left = [entry.reason for entry in self.evidence.left_out]
        if taken < max(_SMALLEST_SHARE * len(members), 1):
            self._refuse(len(members), left)
        if left and self._policy.odd_slices == "refuse":
            common = Counter(left).most_common(1)[0][0]
            raise SkipSeriesError(common, f"{len(left)} of {len(members)} slices fit no volume.")
        if not all(self._headers[i].frame_of_reference_uid for i in members):
            self._note(Reason.NO_FRAME_OF_REFERENCE)
        facts = tuple(
            VolumeFacts(volume.label, len(volume.members), volume.stack.spacing_mm, volume.stack.shear_deg)
            for volume in self._volumes
        )
        first = self._volumes[0].stack
        self.evidence = replace(
            self.evidence, volumes=facts, spacing_mm=first.spacing_mm, shear_deg=first.shear_deg
        )
        return SeriesPlan(tuple(self._volumes), self.evidence)

    def _refuse(self, count: int, left: Sequence[Reason]) -> None:
        """Say why a series is no series of volumes."""
        if count > 1 and (self._grids != 1 or Reason.MIXED_GEOMETRY in left):
            raise SkipSeriesError(Reason.MIXED_GEOMETRY, f"{self._grids} grids, none with enough slices.")
        if count >= self._fewest:  # there would have been enough, had they been one run
            raise SkipSeriesError(
                Reason.IRREGULAR_SPACING, f"Too few slices in runs of at least {self._fewest}."
            )
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, f"{count} of at least {self._fewest}.")

    @property
    def _fewest(self) -> int:
        """Slices of the shortest run that is enhanced; a person's release lets shorter pieces pass."""
        fewest = self._policy.minimum_slices
        return max(min(fewest, _FEWEST_RELEASED) if self._policy.released else fewest, 2)


def _chosen(stack: Stack, indices: Sequence[int]) -> Stack:
    """The slices of a stack at these (ascending) places as a stack."""
    places = list(indices)
    return replace(
        stack,
        order=tuple(stack.order[i] for i in places),
        positions=stack.positions[places],
        distances=stack.distances[places],
    )
