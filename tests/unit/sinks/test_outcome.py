"""Every C-STORE response status has one meaning for a delivery."""

from __future__ import annotations

import pytest

from dicom_node.sinks.outcome import Verdict, is_warning, judge

BY_VERDICT = {
    Verdict.DELIVERED: [0x0000, 0x0111, 0xB000, 0xB006, 0xB007, 0xB001],
    Verdict.BUSY: [0xA700, 0xA701, 0xA7FF, 0x0213],
    Verdict.LATER: [0x0110, 0x0210],
    Verdict.RENEGOTIATE: [0x0122],
    Verdict.PAUSE: [0x0124],
    Verdict.REFUSED: [0xA800, 0xA900, 0xA9FF, 0xC000, 0xC211, 0x0117, 0x0211, 0xFE00, 0xFF00],
}


@pytest.mark.parametrize(
    ("status", "verdict"), [(status, verdict) for verdict, row in BY_VERDICT.items() for status in row]
)
def test_a_status_has_the_verdict_of_its_row(status: int, verdict: Verdict) -> None:
    assert judge(status) is verdict


def test_every_status_there_can_be_has_a_verdict_and_only_known_ones_count_as_delivered() -> None:
    delivered = {status for status in range(0x10000) if judge(status) is Verdict.DELIVERED}
    assert delivered == {0x0000, 0x0111, *range(0xB000, 0xC000)}


def test_a_warning_is_told_apart_from_plain_success() -> None:
    assert [is_warning(status) for status in (0x0000, 0x0111, 0xB000, 0xB007)] == [False, False, True, True]
