"""The table of reason codes: complete, and nothing in the code goes around it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.documents.advice import ADVICE, ENGINE_DETAILS, Group
from dicom_node.documents.reasons import Retry, reason_rows, reasons_markdown
from dicom_node.errors import Reason
from dicom_node.pipeline.retry import PERMANENT
from storage.job_rows import ABANDONED, CANCELED_BY_OPERATOR, SUPERSEDED

ROOT = Path(__file__).resolve().parents[3]
CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")


def calls(package: str) -> Iterator[tuple[Path, ast.Call]]:
    """Every call in a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node


def name_of(call: ast.Call) -> str:
    """The last word of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_code_has_a_row_with_a_sentence_and_advice(reason: Reason) -> None:
    row = next(row for row in reason_rows() if row.code == reason)
    assert row.sentence.endswith(".")
    assert row.advice.endswith(".")
    assert f"| `{reason}` | " in reasons_markdown()


def test_no_row_describes_a_code_that_is_gone() -> None:
    assert set(ADVICE) == set(Reason)


def test_only_members_of_the_table_are_ever_raised() -> None:
    """An error with a reason takes a `Reason`; a text would be a code nobody documented."""
    strange = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in calls("dicom_node")
        for argument in (*call.args[:2], *(word.value for word in call.keywords if word.arg == "reason"))
        if (name_of(call).endswith(("Error", "Refusal")) or argument not in call.args)
        and isinstance(argument, ast.Constant)
        and isinstance(argument.value, str)
        and CODE.fullmatch(argument.value)
    ]
    assert strange == []


def test_the_codes_that_storage_sets_itself_are_in_the_table() -> None:
    assert {ABANDONED, CANCELED_BY_OPERATOR, SUPERSEDED} <= set(Reason)


def test_every_code_of_the_engine_is_explained() -> None:
    raised = {
        call.args[0].value
        for _, call in calls("engine")
        if name_of(call) == "OutOfRangeError" and isinstance(call.args[0], ast.Constant)
    }
    guards = {
        call.args[0].value
        for _, call in calls("engine")
        if name_of(call) == "GuardCheck" and isinstance(call.args[0], ast.Constant)
    }
    assert raised
    assert guards
    assert raised | guards <= set(ENGINE_DETAILS)


def test_the_table_says_of_every_failure_whether_it_is_tried_again() -> None:
    for row in reason_rows():
        acts = row.group in (Group.JOB, Group.DELIVERY)
        assert (row.retry is not Retry.NONE) == acts
        assert not acts or (row.retry is Retry.FINAL) == (Reason(row.code) in PERMANENT)
