"""Every C-STORE response status has one meaning for a delivery."""

from __future__ import annotations

import pytest

from dicom_node.sinks.outcome import Verdict, judge


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_success_warnings_and_duplicates_are_delivered(status: int) -> None:
    assert judge(status) is Verdict.DELIVERED


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0110, 0x0210, 0x0213])
def test_out_of_resources_asks_for_patience(status: int) -> None:
    assert judge(status) is Verdict.LATER


@pytest.mark.parametrize("status", [0xA900, 0xA901, 0xC000, 0xC211, 0x0122, 0x0124, 0x0117, 0xB001, 0xFE00])
def test_everything_else_is_a_refusal(status: int) -> None:
    assert judge(status) is Verdict.REFUSED
