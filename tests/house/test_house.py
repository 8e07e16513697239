"""The house itself: names at the top, size of rooms, who may import whom, what a wheel carries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "engine", "storage", "dicom_node")
MODULES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts
]
TOP_LEVEL = {"README.md", "LICENSE", "pyproject.toml", *PACKAGES, "docker", "tests", "orthanc_test"}


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return done.stdout.split("\n")[:-1]


def test_nothing_is_added_at_the_top_level() -> None:
    names = {path.split("/")[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_scan_is_ever_committed() -> None:
    assert [path for path in tracked() if path.lower().endswith((".dcm", ".ima", ".nii", ".nii.gz"))] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_its_duty(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    if path.name != "__init__.py" or text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module's first line says its duty"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_longer_than_sixty_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize(
    "module", ["dicom_node.cli.main", "dicom_node.role_process", "dicom_node.pipeline.enhance"]
)
def test_the_command_line_and_a_process_of_the_node_load_nothing_that_computes(module: str) -> None:
    """Receiver, sender and worker are small processes; torch alone takes 200 MiB, and below the worker only."""
    code = (
        f"import sys, {module}; sys.exit(any(one in sys.modules for one in ('torch', 'scipy', 'highdicom')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_four_packages_belong_together() -> None:
    """Generic top-level names can be shadowed by another distribution; ours must come from one place."""
    code = (
        "import config, engine, storage, dicom_node, pathlib;"
        "print({pathlib.Path(m.__file__).parents[1] for m in (config, engine, storage, dicom_node)}.__len__())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_packaged_files_are_where_the_code_looks_for_them() -> None:
    assert (ROOT / "config" / "node.yaml").is_file()
    assert (ROOT / "storage" / "migrations" / "env.py").is_file()
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
