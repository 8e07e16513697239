"""Which series are taken apart and enhanced, and how the derived series presents itself; both also per route.

A route states only what it changes; what it leaves out is as in the sections `assembly` and `derivation`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from config.base import Section, whole
from config.names import LongText, ShortText, UidRoot

Offset = Annotated[int, whole(at_least=1, at_most=1_000_000_000)]
Odd = Literal["leave_out", "refuse"]
Take = Literal["enhance", "refuse"]
Contrast = Literal["if_measurable", "leave_alone"]
Equipment = Literal["standard", "inherit"]
Overlays = Literal["drop", "keep"]


class AssemblySection(Section):
    """What becomes of series that are not simply one regular volume."""

    odd_slices: Odd = "leave_out"
    several_volumes: Take = "enhance"
    irregular: Take = "enhance"
    diffusion: Contrast = "if_measurable"
    monoenergetic: Contrast = "leave_alone"
    most_slices: Annotated[int, whole(at_least=1, at_most=100_000)] = 5000
    most_voxels: Annotated[int, whole(at_least=1, at_most=100_000_000_000)] = 1_500_000_000


class RouteAssembly(Section):
    """What a route changes about the assembly."""

    odd_slices: Odd | None = None
    several_volumes: Take | None = None
    irregular: Take | None = None
    diffusion: Contrast | None = None
    monoenergetic: Contrast | None = None
    most_slices: Annotated[int, whole(at_least=1, at_most=100_000)] | None = None
    most_voxels: Annotated[int, whole(at_least=1, at_most=100_000_000_000)] | None = None

    def over(self, general: AssemblySection) -> AssemblySection:
        """The general section with what the route states instead."""
        return general.model_copy(update=self.model_dump(exclude_none=True))


class DerivationSection(Section):
    """How the derived series describes itself."""

    series_number_offset: Offset = 7000
    description_suffix: ShortText = "[AI-DN]"
    equipment_policy: Equipment = "standard"
    manufacturer: LongText = "DICOM Enhancement Node"
    station_name: ShortText | None = None
    comment: bool = True
    content_qualification: Literal["RESEARCH"] = "RESEARCH"
    image_type_term: bool = True
    overlays: Overlays = "drop"
    uid_root: UidRoot | None = None


class RouteDerivation(Section):
    """What a route changes about how its derived series describe themselves."""

    series_number_offset: Offset | None = None
    description_suffix: ShortText | None = None
    equipment_policy: Equipment | None = None
    manufacturer: LongText | None = None
    station_name: ShortText | None = None
    comment: bool | None = None
    image_type_term: bool | None = None
    overlays: Overlays | None = None

    def over(self, general: DerivationSection) -> DerivationSection:
        """The general section with what the route states instead."""
        return general.model_copy(update=self.model_dump(exclude_none=True))
