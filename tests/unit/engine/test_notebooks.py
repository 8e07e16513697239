"""The notebooks run from a fresh checkout, without data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engine

FOLDER = Path(engine.__file__).with_name("notebooks")


@pytest.mark.parametrize("name", ["explore_data", "analyse_results"])
def test_every_cell_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENHANCEMENT_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("ENHANCEMENT_REPORT", str(tmp_path / "none.json"))
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    scope: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}:{cell['id']}", "exec"), scope)
    assert len(scope) > 5
