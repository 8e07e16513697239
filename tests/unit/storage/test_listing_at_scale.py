"""Lists and searches over 100,000 jobs and 1,000,000 instances: `pytest -m drill -s -k at_scale`."""

from __future__ import annotations

import pytest

from dicom_node.demo.desk_load import measure

JOBS, INSTANCES, LIMIT_MS = 100_000, 1_000_000, 300.0


@pytest.mark.drill
@pytest.mark.timeout(2400)
def test_lists_and_searches_answer_at_scale(empty_url, tmp_path):
    found = measure(
        empty_url,
        tmp_path / "data",
        jobs=JOBS,
        instances=INSTANCES,
        repeats=40,
        heard=print,
    )

    kind = empty_url.split(":")[0].split("+")[0]
    for name, timing in found.items():
        print(f"{kind:12} {name:36} median {timing.median_ms:7.1f} p95 {timing.p95_ms:7.1f} ms")
    assert {name: timing.p95_ms for name, timing in found.items() if timing.p95_ms > LIMIT_MS} == {}
