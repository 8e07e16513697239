"""The enhancement process: whatever happens to it becomes a reason, and the next attempt goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from dicom_node.errors import Reason
from dicom_node.pipeline.attempt import AttemptSpec
from dicom_node.pipeline.executor import AttemptCanceledError, AttemptFailedError, EnhancementProcess

MINUTE = timedelta(minutes=1)
MakeSpec = Callable[..., AttemptSpec]


@pytest.fixture(scope="module")
def process() -> Iterator[EnhancementProcess]:
    """One for all, as a worker has it: whatever one test does to it, it serves the next."""
    running = EnhancementProcess()
    yield running
    running.stop()


def ignore(_message: Mapping[str, Any]) -> None:
    pass


def test_an_attempt_yields_derived_files_and_names_its_stages_in_order(
    process: EnhancementProcess, make_spec: MakeSpec
) -> None:
    heard: list[Mapping[str, Any]] = []
    result = process.run(make_spec(), time_limit=MINUTE, heard=heard.append)
    assert [message["stage"] for message in heard if "stage" in message] == [
        "READ",
        "ENHANCE",
        "GUARD",
        "DERIVE",
        "VERIFY",
    ]
    assert len(result["derived"]) == 10
    assert all(Path(derived["path"]).is_file() for derived in result["derived"])
    assert result["facts"]["noise_after"] < result["facts"]["noise_before"]


def test_the_process_stays_warm_for_the_next_attempt(
    process: EnhancementProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    process.run(make_spec(), time_limit=MINUTE, heard=ignore)
    first = process.pid
    (tmp_path / "next").mkdir()
    process.run(make_spec(directory=tmp_path / "next"), time_limit=MINUTE, heard=ignore)
    assert process.pid == first


def test_equal_specs_give_equal_uids_and_equal_pixels(
    process: EnhancementProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.append(process.run(make_spec(directory=tmp_path / name), time_limit=MINUTE, heard=ignore))
    one, two = ([(d["sop_instance_uid"], d["digest"]) for d in run["derived"]] for run in runs)
    assert one == two


def test_a_killed_process_is_a_failed_attempt_and_is_replaced(
    process: EnhancementProcess, make_spec: MakeSpec
) -> None:
    def kill(message: Mapping[str, Any]) -> None:
        if message.get("stage") == "ENHANCE" and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(AttemptFailedError) as caught:
        process.run(make_spec(), time_limit=MINUTE, heard=kill)
    assert caught.value.reason is Reason.WORKER_DIED
    assert "signal 9" in caught.value.message
    assert process.run(make_spec(), time_limit=MINUTE, heard=ignore)["derived"]


def test_a_process_that_hangs_is_killed_at_the_time_limit(
    process: EnhancementProcess, make_spec: MakeSpec
) -> None:
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(AttemptFailedError) as caught:
        process.run(make_spec(), time_limit=timedelta(seconds=1), heard=ignore)
    assert caught.value.reason is Reason.TIME_LIMIT
    assert time.monotonic() - begin < 10
    assert process.pid is None


def test_a_cancel_ends_the_attempt_even_when_the_process_does_not_listen(
    process: EnhancementProcess, make_spec: MakeSpec
) -> None:
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    Timer(0.3, process.cancel).start()
    with pytest.raises(AttemptCanceledError):
        process.run(make_spec(), time_limit=MINUTE, heard=ignore)


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux")
def test_a_process_that_is_out_of_memory_goes_before_the_receiver(
    process: EnhancementProcess, make_spec: MakeSpec
) -> None:
    process.run(make_spec(enhancer="identity"), time_limit=MINUTE, heard=ignore)
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"


def test_a_changed_source_is_refused_before_anything_is_computed(
    process: EnhancementProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec()
    damaged = tmp_path / "damaged.dcm"
    content = bytearray(spec.sources[0].path.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    sources = (replace(spec.sources[0], path=damaged), *spec.sources[1:])
    with pytest.raises(AttemptFailedError) as caught:
        process.run(replace(spec, sources=sources), time_limit=MINUTE, heard=ignore)
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert list(spec.directory.iterdir()) == []


def test_an_unknown_enhancer_is_an_error_with_a_message_not_a_crash(
    process: EnhancementProcess, make_spec: MakeSpec
) -> None:
    with pytest.raises(AttemptFailedError) as caught:
        process.run(make_spec(enhancer="no-such-thing"), time_limit=MINUTE, heard=ignore)
    assert caught.value.reason is Reason.ENGINE_REFUSED
    assert process.pid is not None
