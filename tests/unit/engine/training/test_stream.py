"""Batches drawn ahead: the same for the same step, whoever draws them and wherever a run begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from engine.simulation.randomness import Draw
from engine.training.batches import Batch, with_pilot
from engine.training.config import TrainingConfig
from engine.training.stream import BatchStream, numbered_states, turned

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    name="stream",
    data="none",
    sources=(),
    shapes=((16, 16, 32), (16, 32, 32)),
    batch=1,
    repeats=3,
    memory=2,
)


@pytest.fixture
def stream() -> Iterator[BatchStream]:
    made = BatchStream([], CONFIG, CPU)
    yield made
    made.close()


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.scan, b.scan) and torch.equal(a.clean, b.clean) and torch.equal(a.pilot, b.pilot)


def test_a_resumed_run_sees_the_batches_it_would_have_seen(stream: BatchStream) -> None:
    whole = [stream.take(step) for step in range(8)]
    resumed = BatchStream([], CONFIG, CPU)

    assert all(same(resumed.take(step), whole[step]) for step in (5, 6, 7))


def test_processes_draw_what_the_run_itself_would_draw(stream: BatchStream) -> None:
    ahead = BatchStream([], replace(CONFIG, workers=2), CPU)
    try:
        assert all(same(ahead.take(step), stream.take(step)) for step in (0, 3, 6, 9))
    finally:
        ahead.close()


def test_every_batch_is_fresh_without_repeats() -> None:
    stream = BatchStream([], replace(CONFIG, repeats=1), CPU)
    sums = {round(float(stream.take(step).scan.double().sum()), 3) for step in range(4)}

    assert len(sums) == 4


def test_turning_keeps_scan_target_and_pilot_together() -> None:
    batch = with_pilot(numbered_states([], CONFIG, 1, CPU))
    for seed in range(6):
        new = turned(batch, Draw(seed))
        assert (new.scan - new.clean).abs().sum() == pytest.approx(
            float((batch.scan - batch.clean).abs().sum())
        )
        assert (new.scan - new.pilot).abs().sum() == pytest.approx(
            float((batch.scan - batch.pilot).abs().sum()), rel=1e-5
        )
