"""The conformance statement says what the node does, and follows the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from typer.testing import CliRunner

from config.settings import Settings
from dicom_node.cli.main import app
from dicom_node.documents.conformance import conformance_statement
from dicom_node.documents.conformance_content import created_rules
from dicom_node.imaging.derivation import REMOVED, DerivationPolicy
from dicom_node.imaging.elements import canonical, quiet
from dicom_node.network.presentation import STORAGE_SOP_CLASSES, storage_transfer_syntaxes
from dicom_node.network.status import Rejection, Status


@pytest.fixture(scope="module")
def statement() -> str:
    """The statement of a node with a destination and a policy of its own."""
    written: dict[str, Any] = {
        "node": {"ae_titles": ["DENOISE"], "port": 11113, "max_associations": 7},
        "peers": [{"name": "archive", "ae_title": "ARCH|1", "host": "192.0.2.10", "port": 104}],
        "routes": [{"name": "all", "send_to": ["archive"], "companions": {"quality_report": True}}],
        "derivation": {"series_number_offset": 4321, "description_suffix": "[QUIET]", "uid_root": "1.2.3.4"},
    }
    return conformance_statement(Settings.model_validate(written))


def test_the_configuration_shows_in_the_statement(statement: str) -> None:
    for words in ("Storage SCP: DENOISE", "127.0.0.1:11113", "archive", "192.0.2.10:104", "source + 4321"):
        assert words in statement
    assert "[QUIET]" in statement
    assert "1.2.3.4" in statement
    assert "| 7 |" in statement


def test_what_a_route_asks_for_is_among_the_services(statement: str) -> None:
    assert "| 1.2.840.10008.5.1.4.1.1.88.33 | Yes | No |" in statement
    assert "| 1.2.840.10008.5.1.4.1.1.30 | No: not configured | No |" in statement


def test_what_is_promised_to_a_sender_stands_there_with_its_time(statement: str) -> None:
    scanner = {"name": "ct", "ae_title": "CT", "host": "192.0.2.9", "port": 104}
    promise = {"ae_title": "CT_SC", "port": 105, "keep_for": "90 d"}
    promising = conformance_statement(
        Settings.model_validate({"peers": [{**scanner, "safekeeping": promise}]})
    )

    assert "| 1.2.840.10008.1.20.1 | No: not configured | No: not configured |" in statement
    assert "promised to nobody" in statement
    assert "| 1.2.840.10008.1.20.1 | No: not configured | Yes |" in promising
    assert "| CT_SC | 192.0.2.9:105 | 90 days | 30 s | 5000 | 20 |" in promising


def test_a_bar_in_a_name_does_not_break_a_table(statement: str) -> None:
    assert "ARCH\\|1" in statement


def test_every_class_syntax_status_and_rejection_of_the_code_is_listed(statement: str) -> None:
    for uid in (*STORAGE_SOP_CLASSES, *storage_transfer_syntaxes()):
        assert f"| {uid} |" in statement
    for status in Status:
        assert f"| {status.value:04X} |" in statement
    for rejection in Rejection:
        assert f"| {'/'.join(map(str, rejection.value))} |" in statement


def test_tables_are_rectangular(statement: str) -> None:
    block: set[int] = set()
    for line in statement.splitlines():
        if not line.startswith("|"):
            block = set()
            continue
        block.add(line.replace("\\|", "").count("|"))
        assert len(block) == 1, line


@pytest.mark.parametrize("equipment", ["standard", "inherit"])
def test_whatever_a_derived_object_changes_is_announced(
    phantom_pair: Callable[[DerivationPolicy], tuple[Path, Path]], equipment: Any
) -> None:
    policy = DerivationPolicy(equipment_policy=equipment, station_name="DN1")
    announced = {name for names, _ in created_rules(policy) for name in names.split(", ")} | set(REMOVED)
    source, derived = phantom_pair(policy)
    with quiet():
        before, after = dcmread(source), dcmread(derived)
        tags = {int(tag) for ds in (before, after) for tag in ds.keys()}  # noqa: SIM118
        changed = {keyword_for_tag(tag) for tag in tags if canonical(before, tag) != canonical(after, tag)}
    assert changed <= announced


def test_the_command_prints_the_statement_without_any_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_NODE_CONFIG", raising=False)
    done = CliRunner().invoke(app, ["conformance"])
    assert done.exit_code == 0
    assert done.stdout.startswith("# DICOM conformance statement")


def test_the_command_prints_the_reasons() -> None:
    done = CliRunner().invoke(app, ["reasons"])
    assert done.exit_code == 0
    assert "| `MISSING_SLICE` |" in done.stdout
