"""Conditions decide and say which clause failed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from config.explain import matches_pattern
from config.rules import Condition, SeriesSummary, describe, explain

Summarise = Callable[..., SeriesSummary]


@pytest.mark.parametrize(
    ("written", "clause"),
    [
        ({"modality": "MR"}, "modality is CT, rule wants MR"),
        ({"modality": ["MR", "PT"]}, "modality is CT, rule wants MR or PT"),
        ({"calling_ae": "MR_*"}, "calling AE is CT_SCANNER_1, rule wants MR_*"),
        ({"called_ae": "OTHER"}, "called AE is ENHANCE, rule wants OTHER"),
        ({"body_part": ["CHEST", "ABD*"]}, "body part is HEAD, rule wants CHEST or ABD*"),
        ({"kernel": "B*"}, "kernel is H30s, rule wants B*"),
        ({"manufacturer": "GE*"}, "manufacturer is SIEMENS, rule wants GE*"),
        ({"orientation": "sagittal"}, "orientation is axial, rule wants sagittal"),
        ({"slice_count": {"at_least": 100}}, "slice count is 64, rule wants at least 100"),
        ({"slice_count": {"at_most": 10}}, "slice count is 64, rule wants at most 10"),
        ({"slice_thickness": {"at_most": "2.5 mm"}}, "slice thickness is 3 mm, rule wants at most 2.5 mm"),
        ({"contrast": True}, "series is without contrast, rule wants with"),
        ({"not": {"modality": "CT", "body_part": "HEAD"}}, "rule excludes modality CT and body part HEAD"),
        (
            {"any": [{"modality": "MR"}, {"body_part": "CHEST"}]},
            "none of the alternatives holds: modality is CT, rule wants MR; body part is HEAD, rule wants CHEST",
        ),
        ({"all": [{"modality": "CT"}, {"contrast": True}]}, "series is without contrast, rule wants with"),
    ],
)
def test_failed_clause_names_what_is_and_what_the_rule_wants(
    summarise: Summarise, written: dict[str, Any], clause: str
) -> None:
    verdict = explain(Condition.model_validate(written), summarise())

    assert not verdict.matched
    assert verdict.failed_clause == clause


@pytest.mark.parametrize(
    "written",
    [
        "always",
        {},
        {"modality": "ct"},
        {"modality": ["MR", "CT"]},
        {"calling_ae": "ct_*"},
        {"series_description": "*AXIAL"},
        {"kernel": ["B*", "h??s", "H*"]},
        {"orientation": ["coronal", "axial"]},
        {"slice_count": {"at_least": 64, "at_most": 64}},
        {"slice_thickness": {"at_least": "3 mm", "at_most": "3 mm"}},
        {"contrast": False},
        {"not": {"modality": "MR"}},
        {"not": {"not": {"modality": "CT"}}},
        {"any": [{"modality": "MR"}, {"body_part": "H*"}]},
        {"all": [{"modality": "CT"}, {"body_part": "HEAD"}]},
    ],
)
def test_condition_that_holds_has_no_failed_clause(summarise: Summarise, written: Any) -> None:
    verdict = explain(Condition.model_validate(written), summarise())

    assert verdict.matched
    assert verdict.failed_clause == ""


def test_several_keys_must_all_hold(summarise: Summarise) -> None:
    condition = Condition.model_validate({"modality": "CT", "body_part": "HEAD"})

    assert explain(condition, summarise()).matched
    assert not explain(condition, summarise(modality="MR")).matched
    assert not explain(condition, summarise(body_part="CHEST")).matched


def test_unknown_thickness_never_matches(summarise: Summarise) -> None:
    condition = Condition.model_validate({"slice_thickness": {"at_most": "5 mm"}})

    verdict = explain(condition, summarise(slice_thickness_mm=None))

    assert verdict.failed_clause == "slice thickness is unknown, rule wants at most 5 mm"


def test_absent_text_is_called_not_given(summarise: Summarise) -> None:
    verdict = explain(Condition(body_part=("HEAD",)), summarise(body_part=" "))

    assert verdict.failed_clause == "body part is not given, rule wants HEAD"


def test_series_description_is_never_repeated(summarise: Summarise) -> None:
    summary = summarise(series_description="Doe^Jane follow-up")
    wanted = {"any": [{"series_description": "*thin*"}, {"not": {"series_description": "doe*"}}]}

    verdict = explain(Condition.model_validate(wanted), summary)

    assert not verdict.matched
    assert "Jane" not in verdict.failed_clause
    assert "Jane" not in repr(summary)


def test_control_characters_of_a_sender_do_not_reach_the_clause(summarise: Summarise) -> None:
    summary = summarise(kernel="\x1b[2J\nB30" + "x" * 500)

    clause = explain(Condition(kernel=("H*",)), summary).failed_clause

    assert clause.isprintable()
    assert len(clause) < 120


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("*", "anything", True),
        ("a*c", "abbc", True),
        ("a*c", "ac", True),
        ("a*a", "a", False),
        ("*b*", "abc", True),
        ("*b*c*", "xcxb", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("a?c", "abc", False),
        ("STRASSE", "straße", True),
        ("ab*bc", "abc", False),
    ],
)
def test_only_the_star_is_a_wildcard(pattern: str, text: str, expected: bool) -> None:
    assert matches_pattern(pattern, text) is expected


def test_no_pattern_is_slow() -> None:
    begin = time.perf_counter()

    assert not matches_pattern("*a" * 200 + "b", "a" * 20_000)

    assert time.perf_counter() - begin < 1.0


@pytest.mark.parametrize(
    "written",
    [
        {"modality": None},
        {"modality": []},
        {"modality": ""},
        {"modality": "C*"},
        {"kernel": "  "},
        {"orientation": "diagonal"},
        {"slice_count": 40},
        {"slice_count": {}},
        {"slice_count": {"at_least": 2, "at_most": 1}},
        {"slice_thickness": {"at_most": "3 cm"}},
        {"any": []},
        {"not": []},
        {"flavour": "x"},
        "never",
        ["modality"],
    ],
)
def test_condition_that_says_nothing_sensible_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(written)


def test_condition_survives_its_json_form(summarise: Summarise) -> None:
    written = {
        "modality": ["CT"],
        "slice_thickness": {"at_most": "2.5 mm"},
        "all": [{"contrast": False}],
        "any": [{"kernel": "H*"}, {"not": {"body_part": "CHEST"}}],
    }
    condition = Condition.model_validate(written)

    copy = Condition.model_validate(json.loads(json.dumps(condition.model_dump(mode="json"))))

    assert copy == condition
    assert explain(copy, summarise()) == explain(condition, summarise())


def test_description_reads_like_a_sentence() -> None:
    condition = Condition.model_validate(
        {
            "modality": ["CT", "MR"],
            "slice_count": {"at_least": 40},
            "slice_thickness": {"at_most": "3 mm"},
            "contrast": False,
            "all": [{"orientation": "axial"}],
            "any": [{"kernel": "H*"}, {"kernel": "B*"}],
            "not": {"body_part": "CHEST"},
        }
    )

    assert describe(condition) == (
        "modality CT or MR and slice count at least 40 and slice thickness at most 3 mm and without contrast "
        "and orientation axial and (kernel H* or kernel B*) and not (body part CHEST)"
    )
    assert describe(Condition()) == "any series"
    assert Condition().always
    assert not condition.always
