"""Helpers of the configuration tests: files written as an operator would, series as rules see them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError, Problem
from config.explain import SeriesSummary
from config.settings import Settings, load_settings

Load = Callable[[str], Settings]
Refuse = Callable[[str], dict[str, Problem]]
Summarise = Callable[..., SeriesSummary]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a configuration and load it."""

    def write_and_load(text: str) -> Settings:
        path = tmp_path / "node.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_settings(path)

    return write_and_load


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """Load a configuration that is wrong; returns its problems by key path."""

    def load_and_refuse(text: str) -> dict[str, Problem]:
        with pytest.raises(ConfigError) as refused:
            load(text)
        return {problem.key_path: problem for problem in refused.value.problems}

    return load_and_refuse


@pytest.fixture
def summarise() -> Summarise:
    """A thin axial CT head series, with what the test changes."""
    head = SeriesSummary(
        modality="CT",
        calling_ae="CT_SCANNER_1",
        called_ae="ENHANCE",
        body_part="HEAD",
        series_description="Thin axial",
        kernel="H30s",
        manufacturer="SIEMENS",
        slice_count=64,
        slice_thickness_mm=3.0,
        orientation="axial",
        contrast=False,
    )

    def changed(**values: Any) -> SeriesSummary:
        return replace(head, **values)

    return changed
