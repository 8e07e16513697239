"""The commands as a person types them: what they print and how they exit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nursery import dicom_node as run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` writes."""
    folder = tmp_path_factory.mktemp("template")
    assert run("init", cwd=folder).returncode == 0
    return folder / "node.yaml"


@pytest.fixture
def site(tmp_path: Path, template: Path) -> Path:
    """A folder with a freshly written configuration."""
    shutil.copy(template, tmp_path)
    return tmp_path


def test_init_writes_a_configuration_that_passes_its_own_check(site: Path) -> None:
    done = run("config", "check", "node.yaml", cwd=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is usable" in done.stdout


def test_init_does_not_overwrite_a_configuration(site: Path) -> None:
    (site / "node.yaml").write_text("mine")
    assert run("init", cwd=site).returncode == 2
    assert (site / "node.yaml").read_text() == "mine"


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_name(site: Path) -> None:
    (site / "bad.yaml").write_text("node:\n  ae_titel: ENHANCE\n")
    done = run("config", "check", "bad.yaml", cwd=site)
    assert done.returncode == 2
    assert "node.ae_titel" in done.stderr
    assert "line 2" in done.stderr
    assert "ae_titles" in done.stderr


def test_a_missing_configuration_is_one_line_and_exit_status_two(tmp_path: Path) -> None:
    done = run("jobs", "list", cwd=tmp_path)
    assert done.returncode == 2
    assert "node.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("series", "list"), ("jobs", "list"), ("deliveries", "list")])
def test_every_list_has_json(site: Path, command: tuple[str, str]) -> None:
    done = run(*command, "--json", cwd=site)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    "command", [("series", "show", "1"), ("jobs", "show", "1"), ("jobs", "cancel", "1"), ("echo", "nobody")]
)
def test_what_does_not_exist_is_one_line_and_exit_status_two(site: Path, command: tuple[str, ...]) -> None:
    done = run(*command, cwd=site)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_db_upgrade_brings_an_empty_folder_to_the_current_schema(site: Path) -> None:
    first = run("db", "upgrade", cwd=site)
    again = run("db", "upgrade", cwd=site)
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout.split("->")[1] == again.stdout.split("->")[1]
    assert "empty" in first.stdout


def test_help_says_that_this_is_for_research_use_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dicom_node", "--help"]
    helped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert helped.returncode == 0
    assert "Research use only" in helped.stdout


@pytest.mark.parametrize(
    ("asked", "said"), [(("--shape", "8,8"), "slices,rows,columns"), (("--modes", "fast"), "refine4")]
)
def test_a_benchmark_nobody_can_run_is_one_line_and_exit_status_two(
    tmp_path: Path, asked: tuple[str, str], said: str
) -> None:
    done = run("bench", "engine", "--device", "cpu", *asked, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_benchmark_prints_a_table_and_writes_its_figures(tmp_path: Path) -> None:
    arguments = ("--model", "classical", "--shape", "16,32,32", "--repeats", "1", "--no-bm4d")
    done = run("bench", "engine", *arguments, "--json", "speed.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "16x32x32" in done.stdout
    assert json.loads((tmp_path / "speed.json").read_text())["rows"][0]["plan"] == "whole"
