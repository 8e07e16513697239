"""The condition of a route: what the operator writes under `when`.

Several keys in one mapping must all hold. Texts are compared without case and may hold `*`; there are no
regular expressions, so no pattern can be slow or surprising.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from config.errors import refusal
from config.quantities import LengthBetween

Orientation = Literal["axial", "sagittal", "coronal", "oblique", "unknown"]
ALWAYS = "always"
_NO_TEXT = "the text is empty; write a value, or * for any"


def one_or_many(value: Any) -> Any:
    """Let a list of plain texts be written as the one text it holds."""
    return (value,) if isinstance(value, str) else value


def _normal_text(value: str) -> str:
    text = value.strip()
    if not text:
        raise refusal(_NO_TEXT)
    return text


def normal_modality(value: str) -> str:
    """Return a modality in capitals (CS, PS3.5 6.2); refuse what is no such code."""
    text = value.strip().upper()
    if not text or len(text) > 16 or not text.replace("_", "").isalnum() or not text.isascii():
        raise refusal("a modality is a DICOM code such as CT or MR, without wildcards")
    return text


Texts = Annotated[
    tuple[Annotated[str, Field(strict=True), AfterValidator(_normal_text)], ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
]
Modalities = Annotated[
    tuple[Annotated[str, Field(strict=True), AfterValidator(normal_modality)], ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
]
Orientations = Annotated[tuple[Orientation, ...], BeforeValidator(one_or_many), Field(min_length=1)]


class _Range(BaseModel):
    """A range with one or two ends, both of them inside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_single_value(cls, value: Any) -> Any:
        if isinstance(value, (dict, _Range)):
            return value
        raise refusal("expected a range; write {at_least: ..., at_most: ...} or one of the two")


class CountRange(_Range):
    """A range of whole numbers."""

    at_least: Annotated[int, Field(strict=True, ge=0)] | None = None
    at_most: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> CountRange:
        _check_ends(self.at_least, self.at_most)
        return self


class LengthRange(_Range):
    """A range of lengths in mm, written with the unit."""

    at_least: Annotated[float, LengthBetween(at_least=0.0, at_most=10_000.0)] | None = None
    at_most: Annotated[float, LengthBetween(at_least=0.0, at_most=10_000.0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LengthRange:
        _check_ends(self.at_least, self.at_most)
        return self


def _check_ends(at_least: float | None, at_most: float | None) -> None:
    if at_least is None and at_most is None:
        raise refusal("the range has no end; write at_least, at_most or both")
    if at_least is not None and at_most is not None and at_least > at_most:
        raise refusal("at_least is larger than at_most, so nothing can match")


class Condition(BaseModel):
    """What a series must be for its route to match. Without any key it always holds.

    modality, orientation     one value or several; one of them must be equal
    calling_ae .. manufacturer  one text or several with `*`; one of them must match
    slice_count, slice_thickness  a range; an unknown thickness never matches
    contrast                  whether a contrast agent was given
    all_, any_, not_          written `all`, `any`, `not`: other conditions, combined
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modalities | None = None
    calling_ae: Texts | None = None
    called_ae: Texts | None = None
    body_part: Texts | None = None
    series_description: Texts | None = None
    kernel: Texts | None = None
    manufacturer: Texts | None = None
    orientation: Orientations | None = None
    slice_count: CountRange | None = None
    slice_thickness: LengthRange | None = None
    contrast: bool | None = None
    all_: Annotated[tuple[Condition, ...], Field(min_length=1)] | None = Field(default=None, alias="all")
    any_: Annotated[tuple[Condition, ...], Field(min_length=1)] | None = Field(default=None, alias="any")
    not_: Condition | None = Field(default=None, alias="not")

    @model_validator(mode="before")
    @classmethod
    def _read_form(cls, value: Any) -> Any:
        """Take the word `always` for the condition without keys."""
        if value == ALWAYS:
            return {}
        if not isinstance(value, (dict, Condition)):
            raise refusal("expected conditions such as {modality: CT}, or the word always")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty_key(cls, value: Any) -> Any:
        """A key left empty would widen the rule unseen."""
        if value is None:
            raise refusal("nothing is written here; give a value or remove the key")
        return value

    @model_serializer(mode="wrap")
    def _write_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the keys that are set, under the names the operator uses."""
        written: dict[str, Any] = handler(self)
        return {key.rstrip("_"): item for key, item in written.items() if item is not None}

    @property
    def always(self) -> bool:
        """Whether the condition holds for every series."""
        return not self.model_fields_set
