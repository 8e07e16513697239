"""Rejected callers: each is told, a flood is not."""

from __future__ import annotations

from dicom_node.intake.alerts import AlertGate


def test_the_same_caller_is_told_once_a_minute_with_the_number_left_out() -> None:
    now = [0.0]
    gate = AlertGate(lambda: now[0])

    assert gate.passes("a") == 0
    assert [gate.passes("a") for _ in range(5)] == [None] * 5
    now[0] = 61.0
    assert gate.passes("a") == 5


def test_callers_that_change_their_name_are_told_twenty_times_a_minute_at_most() -> None:
    now = [0.0]
    gate = AlertGate(lambda: now[0])

    assert sum(gate.passes(number) is not None for number in range(1000)) == 20
    now[0] = 61.0
    assert gate.passes("another") == 980
