"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def whole(*, at_least: int, at_most: int) -> Any:
    """A whole number within a range; true and false are no numbers."""
    return Field(strict=True, ge=at_least, le=at_most)
