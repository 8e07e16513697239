"""Peers are told the truth about the noise, and their results are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineInputError
from engine.evaluation.cases import NoisyCase, noisy_cases, parse_levels
from engine.evaluation.peer_cache import run_peer
from engine.evaluation.peers import Peer, choose_peers, gaussian
from engine.evaluation.rician import rice_moments, stabilised
from engine.volume import IntensityUnit, Volume

RNG = np.random.default_rng(0)


@pytest.fixture
def case() -> NoisyCase:
    volume = Volume(np.full((8, 32, 32), 40, np.float32), np.eye(4), IntensityUnit.HU)
    return next(noisy_cases("a", volume, parse_levels("ct20w")))


def test_peers_are_chosen_by_name() -> None:
    assert list(choose_peers("gaussian, classical")) == ["gaussian", "classical"]
    with pytest.raises(EngineInputError, match="unknown peer"):
        choose_peers("magic")


def test_a_kept_result_is_read_and_not_computed_again(case: NoisyCase, tmp_path: Path) -> None:
    calls: list[float] = []

    def counted(of: NoisyCase) -> np.ndarray:
        calls.append(of.sigma)
        return gaussian(of)

    peer = Peer(counted)
    first, again = (run_peer("counted", peer, case, tmp_path) for _ in range(2))
    assert (first.cached, again.cached, len(calls)) == (False, True, 1)
    assert np.array_equal(first.array, again.array)
    assert again.seconds == first.seconds

    run_peer("counted", peer, replace(case, sigma=21.0), tmp_path)
    run_peer("counted", Peer(counted, parameters={"width": 2}), case, tmp_path)
    assert len(calls) == 3


def test_a_damaged_result_is_computed_again(case: NoisyCase, tmp_path: Path) -> None:
    run_peer("gaussian", Peer(gaussian), case, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert not run_peer("gaussian", Peer(gaussian), case, tmp_path).cached
    assert run_peer("gaussian", Peer(gaussian), case, tmp_path).cached


def test_rice_moments_at_both_ends() -> None:
    mean, deviation = rice_moments(np.array([0.0, 50.0]))
    assert mean[0] == pytest.approx(np.sqrt(np.pi / 2))
    assert deviation[0] == pytest.approx(np.sqrt(2 - np.pi / 2))
    assert mean[1] == pytest.approx(np.sqrt(50**2 + 1), abs=1e-3)
    assert deviation[1] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("signal", [0.5, 1.0, 2.0, 4.0, 20.0])
def test_stabilised_averaging_finds_the_signal_under_the_magnitude(signal: float) -> None:
    shape, sigma = (1, 400, 400), 3.0
    real, imaginary = RNG.normal(0, sigma, (2, *shape))
    noisy = np.hypot(signal * sigma + real, imaginary).astype(np.float32)
    seen: list[float] = []

    def average(array: np.ndarray, deviation: float) -> np.ndarray:
        seen.append(float(array.std()) / deviation)
        return np.full_like(array, array.mean(dtype=np.float64))

    clean = stabilised(average, noisy, sigma)
    assert seen[0] == pytest.approx(1.0, abs=0.12)
    assert clean.mean() == pytest.approx(signal * sigma, abs=0.06 * sigma)
