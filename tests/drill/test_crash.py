"""The crash drill: a few deaths with every run of the suite, all of them with `pytest -m drill`."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.drill.crash import run, run_world
from tests.drill.points import CHILD, CallPoint

# A receiver between two syncs, an enhancement between two files; tests/system has the deaths of the others.
A_FEW = [
    CallPoint("receiver", "fsync", 4),
    CallPoint(CHILD, "fsync", 2),
]


@pytest.fixture(autouse=True)
def _strace_is_here(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")


@pytest.mark.timeout(1200)
def test_a_death_at_any_of_a_few_points_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    # How long the return takes is judged by the full drill, which has the machine to itself.
    outcomes, faults = run_world(tmp_path / "world", list(A_FEW), 8, print, return_limit_s=600.0)

    assert faults == []
    assert [fault for outcome in outcomes for fault in outcome.faults] == []
    assert sum(outcome.died for outcome in outcomes) >= 1


@pytest.mark.drill
@pytest.mark.timeout(0)
def test_a_death_at_any_point_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """DRILL_SEED and DRILL_POINTS choose; DRILL_REPORT names the file for the report."""
    seed = int(os.environ.get("DRILL_SEED") or random.SystemRandom().randrange(10**6))
    points = os.environ.get("DRILL_POINTS")

    report = run(
        tmp_path, points=int(points) if points else None, seed=seed, say=lambda line: print(line, flush=True)
    )

    path = Path(os.environ.get("DRILL_REPORT") or tmp_path / "report.json")
    path.write_text(json.dumps(report, default=vars, indent=2))
    print(
        f"seed {seed}: {report.points} points, {report.died} deaths, {report.failed} failed; report in {path}"
    )
    assert report.faults == []
    assert report.failed == 0
