"""Intervals and tests against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from engine.evaluation.intervals import bootstrap, compare_paired, holm, wilcoxon_p


def test_the_interval_of_many_crops_is_that_of_a_normal_mean() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, 100)
    found = bootstrap({("a", i): float(v) for i, v in enumerate(values)})
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.12)


def test_scans_that_differ_widen_the_interval() -> None:
    spread = {(scan, i): mean for scan, mean in (("a", 0.0), ("b", 1.0)) for i in range(50)}
    found = bootstrap(spread)
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_single_crop_has_no_interval() -> None:
    found = bootstrap({("a", 0): 3.0})
    assert (found.mean, found.low, found.high, found.units) == (3.0, 3.0, 3.0, 1)


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_six_wins_of_six_are_the_least_that_wilcoxon_believes() -> None:
    assert wilcoxon_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 2**6)
    assert wilcoxon_p([0.0, 0.0]) == 1.0


def test_pairs_are_compared_and_the_worst_is_named() -> None:
    ours = {"x": {("a", 0): 3.0, ("a", 1): 1.0, ("b", 0): 9.0}}
    theirs = {"bm4d": {"x": {("a", 0): 2.0, ("a", 1): 2.0}}}
    (row,) = compare_paired("psnr", ours, theirs)
    assert row.difference.mean == 0.0
    assert (row.worst, row.worst_unit, row.difference.units) == (-1.0, "a crop 1", 2)
