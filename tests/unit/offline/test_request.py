"""Requests that are refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.offline.request import EnhanceRequest, OfflineError


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    return tmp_path


def ask(here: Path, output: str, **more: object) -> EnhanceRequest:
    return EnhanceRequest(
        **{"source": here / "in", "output": here / output, "model": "identity", "strength": 1.0, **more}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
def test_strength_is_a_share(here: Path, strength: float) -> None:
    with pytest.raises(OfflineError, match="between 0 and 1"):
        ask(here, "out", strength=strength)


def test_the_input_exists(here: Path) -> None:
    with pytest.raises(OfflineError, match="does not exist"):
        ask(here, "out", source=here / "nowhere")


@pytest.mark.parametrize("output", ["in", "in/../in", "."])
def test_the_input_is_not_written_over(here: Path, output: str) -> None:
    with pytest.raises(OfflineError, match="would replace the input"):
        ask(here, output)


@pytest.mark.parametrize("report", ["out", "out/report.json"])
def test_two_things_cannot_have_one_name(here: Path, report: str) -> None:
    with pytest.raises(OfflineError, match="cannot both be written"):
        ask(here, "out", report=here / report)


def test_output_below_the_input_is_fine(here: Path) -> None:
    assert ask(here, "in/out").output == here / "in" / "out"
