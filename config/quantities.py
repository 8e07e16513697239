"""Quantities with their unit: "30 s", "128 KiB", "80 %", "2.5 mm".

In the file a quantity is written with its unit; a bare number is refused, because nobody can tell
seconds from minutes. In code the attribute holds the plain value (`timedelta`, bytes, percent, mm), and
the same plain value is accepted, except that a duration is always a `timedelta` or carries its unit.
The JSON form is the written form, so it can be read back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import core_schema

from config.errors import refusal

WRITTEN = "written"
"""Key of the validation context that says: these values come from the file, so units are required."""

_QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*([^\W\d_]+|%)?", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)
_DURATION_UNITS = {
    "ms": Decimal(1_000),
    "s": Decimal(1_000_000),
    "min": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
    "d": Decimal(86_400_000_000),
}  # in microseconds, the resolution of timedelta
_SIZE_UNITS = {
    "B": Decimal(1),
    "kB": Decimal(10**3),
    "KiB": Decimal(2**10),
    "MB": Decimal(10**6),
    "MiB": Decimal(2**20),
    "GB": Decimal(10**9),
    "GiB": Decimal(2**30),
    "TB": Decimal(10**12),
    "TiB": Decimal(2**40),
}
_PERCENT_UNITS = {"%": Decimal(1)}
_LENGTH_UNITS = {"mm": Decimal(1)}


class QuantityError(ValueError):
    """A text is no quantity of the wanted kind; the message says what to write."""


def parse_amount(text: str, units: Mapping[str, Decimal], *, example: str) -> Decimal:
    """Return the amount in the smallest unit of `units`. Raises `QuantityError`.

    `example` is a well-formed quantity, quoted in the message.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise QuantityError(f"{_shown(text)} is not understood; write a number and a unit, such as {example}")
    number, unit = found.groups()
    if unit is None:
        raise QuantityError(_bare_number(number, example))
    if unit not in units:
        raise QuantityError(f"the unit {unit!r} is not known here; write one of {', '.join(units)}")
    return Decimal(number) * units[unit]


def parse_duration(text: str) -> timedelta:
    """Parse "30 s", "15 min", "2 h", "14 d" or "250 ms". Raises `QuantityError`."""
    microseconds = parse_amount(text, _DURATION_UNITS, example="60 s")
    try:
        return timedelta(microseconds=int(microseconds))
    except OverflowError as exc:
        raise QuantityError(f"{_shown(text)} is longer than any duration can be") from exc


def parse_size(text: str) -> int:
    """Parse "128 KiB" or "10 GB" to bytes. Raises `QuantityError`."""
    return int(parse_amount(text, _SIZE_UNITS, example="128 KiB"))


def parse_percent(text: str) -> float:
    """Parse "80 %" to 80.0. Raises `QuantityError`."""
    return float(parse_amount(text, _PERCENT_UNITS, example="80 %"))


def parse_length(text: str) -> float:
    """Parse "2.5 mm" to millimetres. Raises `QuantityError`."""
    return float(parse_amount(text, _LENGTH_UNITS, example="3 mm"))


def format_duration(value: timedelta) -> str:
    """Write a duration so that `parse_duration` returns exactly the same value."""
    microseconds = value // _MICROSECOND
    for unit in ("d", "h", "min", "s", "ms"):
        count, rest = divmod(microseconds, int(_DURATION_UNITS[unit]))
        if rest == 0 and count != 0:
            return f"{count} {unit}"
    return f"{Decimal(microseconds) / 1_000_000:f} s"


def format_size(value: int) -> str:
    """Write a number of bytes in the largest unit that is exact."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"):
        count, rest = divmod(value, int(_SIZE_UNITS[unit]))
        if rest == 0 and count != 0:
            return f"{count} {unit}"
    return f"{value} B"


def format_percent(value: float) -> str:
    """Write a percentage, 80.0 as "80 %"."""
    return f"{_plain(value)} %"


def format_length(value: float) -> str:
    """Write a length in mm, 2.5 as "2.5 mm"."""
    return f"{_plain(value)} mm"


def _plain(value: float) -> str:
    """The shortest decimal text that reads back as the same number, without an exponent."""
    text = f"{Decimal(repr(float(value))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bare_number(number: object, example: str) -> str:
    """60 with the example "60 s" becomes the sentence that tells the operator to write 60 s."""
    return f"{number} is a bare number; write {number} {example.rpartition(' ')[2]}"


@dataclass(frozen=True)
class _Quantity:
    """Annotation of a pydantic field: parses, checks the range, writes the JSON form."""

    kind: ClassVar[str] = "quantity"
    example: ClassVar[str] = ""

    at_least: Any = None
    at_most: Any = None
    more_than: Any = None

    def parse(self, text: str) -> Any:
        """Read the written form."""
        raise QuantityError(text)

    def format(self, value: Any) -> str:
        """Write the plain value as the operator would."""
        return str(value)

    def accept(self, value: Any) -> Any:
        """Return the plain value when code may give it as it is, else None."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        return None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validate and serialise by this quantity instead of by the plain type."""
        del source, handler
        return core_schema.with_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(self.format, when_used="json"),
        )

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        try:
            amount = self._read(value, written=bool((info.context or {}).get(WRITTEN)))
            self._check_range(amount)
        except QuantityError as exc:
            raise refusal(str(exc)) from exc
        return amount

    def _read(self, value: Any, *, written: bool) -> Any:
        if isinstance(value, str):
            return self.parse(value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        plain = None if is_number and written else self.accept(value)
        if plain is not None:
            return plain
        if is_number:
            raise QuantityError(_bare_number(value, self.example))
        raise QuantityError(f"expected a {self.kind}, such as {self.example}")

    def _check_range(self, amount: Any) -> None:
        if self.at_least is not None and amount < self.at_least:
            raise QuantityError(f"{self.format(amount)} is too little; at least {self.format(self.at_least)}")
        if self.more_than is not None and amount <= self.more_than:
            raise QuantityError(
                f"{self.format(amount)} is too little; more than {self.format(self.more_than)}"
            )
        if self.at_most is not None and amount > self.at_most:
            raise QuantityError(f"{self.format(amount)} is too much; at most {self.format(self.at_most)}")


class DurationBetween(_Quantity):
    """A `timedelta`, written "30 s"."""

    kind = "duration"
    example = "60 s"

    def parse(self, text: str) -> timedelta:
        """Read "30 s"."""
        return parse_duration(text)

    def format(self, value: timedelta) -> str:
        """Write "30 s"."""
        return format_duration(value)

    def accept(self, value: Any) -> timedelta | None:
        """Only a `timedelta`: a number has no unit, in code either."""
        return value if isinstance(value, timedelta) else None


class SizeBetween(_Quantity):
    """An `int` of bytes, written "128 KiB"."""

    kind = "size"
    example = "131072 B"

    def parse(self, text: str) -> int:
        """Read "128 KiB"."""
        return parse_size(text)

    def format(self, value: int) -> str:
        """Write "128 KiB"."""
        return format_size(value)

    def accept(self, value: Any) -> int | None:
        """Whole bytes."""
        return value if isinstance(value, int) and not isinstance(value, bool) else None


class PercentBetween(_Quantity):
    """A `float` of percent, written "80 %"."""

    kind = "percentage"
    example = "80 %"

    def parse(self, text: str) -> float:
        """Read "80 %"."""
        return parse_percent(text)

    def format(self, value: float) -> str:
        """Write "80 %"."""
        return format_percent(value)


class LengthBetween(_Quantity):
    """A `float` of millimetres, written "2.5 mm"."""

    kind = "length"
    example = "3 mm"

    def parse(self, text: str) -> float:
        """Read "2.5 mm"."""
        return parse_length(text)

    def format(self, value: float) -> str:
        """Write "2.5 mm"."""
        return format_length(value)
