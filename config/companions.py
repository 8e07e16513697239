"""Objects that may accompany a derived series; every one is off until a route asks for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.base import Section

_Switch = Annotated[bool, Field(strict=True)]


class RouteCompanions(Section):
    """What a route wants beside the derived series.

    uncertainty_map  a Parametric Map of the standard deviation of each enhanced value, where the enhancer
                     estimates one
    quality_report   a structured report with the noise before and after, and the identity of the model
    """

    uncertainty_map: _Switch = False
    quality_report: _Switch = False
