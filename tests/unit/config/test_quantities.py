"""Quantities are written with a unit and come back exactly."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.quantities import (
    QuantityError,
    format_duration,
    format_length,
    format_percent,
    format_size,
    parse_duration,
    parse_length,
    parse_percent,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 s", timedelta(seconds=30)),
        ("30s", timedelta(seconds=30)),
        ("15 min", timedelta(minutes=15)),
        ("2 h", timedelta(hours=2)),
        ("14 d", timedelta(days=14)),
        ("250 ms", timedelta(milliseconds=250)),
        ("1.5 h", timedelta(minutes=90)),
    ],
)
def test_duration_is_read_with_its_unit(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("128 KiB", 131072), ("10 GB", 10**10), ("1.5 MiB", 3 * 2**19), ("16384 B", 16384), ("2 TiB", 2**41)],
)
def test_size_is_read_in_bytes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


def test_percent_and_length_are_read_as_plain_numbers() -> None:
    assert parse_percent("80 %") == 80.0
    assert parse_percent("12.5%") == 12.5
    assert parse_length("0.625 mm") == 0.625


def test_bare_number_is_refused_with_what_to_write() -> None:
    with pytest.raises(QuantityError, match=r"^60 is a bare number; write 60 s$"):
        parse_duration("60")


@pytest.mark.parametrize("text", ["5 m", "5 M", "5 sec", "5 GB", "5 %"])
def test_wrong_unit_is_refused_with_the_units_that_are_known(text: str) -> None:
    with pytest.raises(QuantityError, match=r"is not known here; write one of ms, s, min, h, d$"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "s", "soon", "1e3 s", "1,5 s", "1 h 30 min", "inf s", "0x10 s"])
def test_text_that_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(QuantityError, match="such as 60 s"):
        parse_duration(text)


def test_duration_beyond_any_calendar_is_refused() -> None:
    with pytest.raises(QuantityError, match="longer than any duration"):
        parse_duration("99999999999999999999 d")


@given(st.timedeltas())
def test_every_duration_survives_its_written_form(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@given(st.integers(min_value=0, max_value=10**15))
def test_every_size_survives_its_written_form(value: int) -> None:
    assert parse_size(format_size(value)) == value


@given(st.floats(min_value=0.0, max_value=10_000.0))
def test_every_length_and_percentage_survives_its_written_form(value: float) -> None:
    assert parse_length(format_length(value)) == value
    assert parse_percent(format_percent(value)) == value


def test_written_form_uses_the_largest_exact_unit() -> None:
    assert format_duration(timedelta(seconds=90)) == "90 s"
    assert format_duration(timedelta(hours=24)) == "1 d"
    assert format_duration(timedelta(0)) == "0 s"
    assert format_size(131072) == "128 KiB"
    assert format_size(10**9) == "1 GB"
    assert format_size(1001) == "1001 B"
