"""Why a condition holds for a series or does not, in words for the operator.

Pure predicates over a small summary. No word of a series description is ever repeated: operators type
names into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from config.conditions import Condition, CountRange, LengthRange, Orientation
from config.quantities import format_length

_TEXT_KEYS = ("calling_ae", "called_ae", "body_part", "series_description", "kernel", "manufacturer")
_LONGEST_SHOWN = 64  # characters; LO holds no more (PS3.5 6.2)


@dataclass(frozen=True)
class SeriesSummary:
    """What the rules may ask about a series. Texts are empty where the series does not say."""

    modality: str
    calling_ae: str
    called_ae: str
    body_part: str
    series_description: str = field(repr=False)
    kernel: str
    manufacturer: str
    slice_count: int
    slice_thickness_mm: float | None
    orientation: Orientation
    contrast: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a condition holds; `failed_clause` names the first clause that does not, else is empty."""

    matched: bool
    failed_clause: str = ""


def explain(condition: Condition, summary: SeriesSummary) -> Verdict:
    """Decide whether `condition` holds for the series and name the first clause that fails.

    The clause reads like ``modality is MR, rule wants CT`` and holds no patient data.
    """
    for failed in _failures(condition, summary):
        return Verdict(matched=False, failed_clause=failed)
    return Verdict(matched=True)


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether the whole text matches; `*` stands for any run of characters, case does not count.

    Takes time proportional to the lengths, whatever the pattern.
    """
    folded = text.strip().casefold()
    first, *rest = pattern.strip().casefold().split("*")
    if not rest:
        return folded == first
    last = rest.pop()
    if len(folded) < len(first) + len(last) or not folded.startswith(first) or not folded.endswith(last):
        return False
    position, end = len(first), len(folded) - len(last)
    for part in rest:
        found = folded.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def describe(condition: Condition) -> str:
    """Say what a condition wants, such as ``modality CT or MR and slice count at least 40``."""
    clauses = list(_wants(condition))
    return " and ".join(clauses) if clauses else "any series"


def _failures(condition: Condition, summary: SeriesSummary) -> Iterator[str]:
    yield from _value_failures(condition, summary)
    yield from _text_failures(condition, summary)
    yield from _range_failures(condition, summary)
    for part in condition.all_ or ():
        yield from _failures(part, summary)
    if condition.any_ is not None:
        verdicts = [explain(part, summary) for part in condition.any_]
        if not any(verdict.matched for verdict in verdicts):
            yield "none of the alternatives holds: " + "; ".join(v.failed_clause for v in verdicts)
    if condition.not_ is not None and explain(condition.not_, summary).matched:
        yield f"rule excludes {describe(condition.not_)}"


def _value_failures(condition: Condition, summary: SeriesSummary) -> Iterator[str]:
    modality = summary.modality.strip().upper()
    if condition.modality is not None and modality not in condition.modality:
        yield _mismatch("modality", modality, condition.modality)
    if condition.orientation is not None and summary.orientation not in condition.orientation:
        yield _mismatch("orientation", summary.orientation, condition.orientation)
    if condition.contrast is not None and summary.contrast != condition.contrast:
        wanted = "with" if condition.contrast else "without"
        found = "with" if summary.contrast else "without"
        yield f"series is {found} contrast, rule wants {wanted}"


def _text_failures(condition: Condition, summary: SeriesSummary) -> Iterator[str]:
    for key in _TEXT_KEYS:
        patterns: tuple[str, ...] | None = getattr(condition, key)
        text: str = getattr(summary, key)
        if patterns is None or any(matches_pattern(pattern, text) for pattern in patterns):
            continue
        if key == "series_description":
            yield f"series description does not match, rule wants {' or '.join(patterns)}"
        else:
            yield _mismatch(_spoken(key), text, patterns)


def _range_failures(condition: Condition, summary: SeriesSummary) -> Iterator[str]:
    count, thickness = condition.slice_count, condition.slice_thickness
    if count is not None and not _inside(count, summary.slice_count):
        yield f"slice count is {summary.slice_count}, rule wants {_range_text(count)}"
    if thickness is None:
        return
    found = summary.slice_thickness_mm
    if found is None:
        yield f"slice thickness is unknown, rule wants {_range_text(thickness)}"
    elif not _inside(thickness, found):
        yield f"slice thickness is {format_length(round(found, 3))}, rule wants {_range_text(thickness)}"


def _inside(limits: CountRange | LengthRange, value: float) -> bool:
    low, high = limits.at_least, limits.at_most
    return (low is None or value >= low) and (high is None or value <= high)


def _range_text(limits: CountRange | LengthRange) -> str:
    def text(value: float) -> str:
        return format_length(value) if isinstance(limits, LengthRange) else str(value)

    low, high = limits.at_least, limits.at_most
    ends = [f"at least {text(low)}"] if low is not None else []
    ends += [f"at most {text(high)}"] if high is not None else []
    return " and ".join(ends)


def _mismatch(name: str, found: str, wanted: tuple[str, ...]) -> str:
    return f"{name} is {_safe(found) or 'not given'}, rule wants {' or '.join(wanted)}"


def _safe(text: str) -> str:
    """Keep what arrived over the network from steering a terminal or filling a log."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text.strip())
    return shown[:_LONGEST_SHOWN]


def _spoken(key: str) -> str:
    return key.replace("_ae", " AE").replace("_", " ")


def _wants(condition: Condition) -> Iterator[str]:
    for key in ("modality", *_TEXT_KEYS, "orientation"):
        values: tuple[str, ...] | None = getattr(condition, key)
        if values is not None:
            yield f"{_spoken(key)} {' or '.join(values)}"
    for name, limits in (
        ("slice count", condition.slice_count),
        ("slice thickness", condition.slice_thickness),
    ):
        if limits is not None:
            yield f"{name} {_range_text(limits)}"
    if condition.contrast is not None:
        yield "with contrast" if condition.contrast else "without contrast"
    yield from _wants_of_parts(condition)


def _wants_of_parts(condition: Condition) -> Iterator[str]:
    for part in condition.all_ or ():
        yield describe(part)
    if condition.any_ is not None:
        yield f"({' or '.join(describe(part) for part in condition.any_)})"
    if condition.not_ is not None:
        yield f"not ({describe(condition.not_)})"
