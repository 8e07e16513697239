"""Every reason code with its sentence, where it belongs, whether it is tried again, and what to do about it.

The codes and sentences are those of `dicom_node.errors`, the rest of a row is written here. A code without
a row is a fault that a test finds, so the table is complete by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dicom_node.documents.advice import ADVICE, ENGINE_DETAILS, Group
from dicom_node.documents.markdown import document, table
from dicom_node.errors import Reason
from dicom_node.pipeline.retry import PERMANENT

_INTRODUCTION: Final = (
    "Every series, job, delivery and refused instance that does not simply succeed carries one of these codes. "
    "`dicom-node series show UID` and `jobs show ID` print it with its sentence and the facts behind it. "
    "Originals are kept whatever the code says; nothing is ever sent that a code refused."
)
_TITLES: Final[Mapping[Group, str]] = {
    Group.ROUTING: "No route",
    Group.LEFT_ALONE: "Left alone: the right outcome, nobody has to act",
    Group.NOTED: "Noted: said about a series or a part of it that was enhanced",
    Group.HELD: "Held: a person has to look",
    Group.JOB: "The job ended without a derived series",
    Group.DELIVERY: "The delivery",
    Group.REFUSED: "The instance was refused: the sender has the status and keeps the object",
    Group.FILES: "Only of `dicom-node enhance`",
}


class Retry(StrEnum):
    """What the node does by itself after a failure."""

    NONE = ""
    AGAIN = "again"
    FINAL = "no"


@dataclass(frozen=True)
class ReasonRow:
    """One row of the table."""

    code: str
    sentence: str
    group: Group
    retry: Retry
    advice: str


def reason_rows() -> tuple[ReasonRow, ...]:
    """Return a row for every reason, in the order of the code; raises KeyError for one nobody described."""
    return tuple(_row(reason) for reason in Reason)


def reasons_markdown() -> str:
    """Return the documentation of the reason codes as Markdown."""
    rows = reason_rows()
    parts = ["# Reason codes", _INTRODUCTION]
    for group in Group:
        found = [row for row in rows if row.group is group]
        if found:
            parts += [f"## {_TITLES[group]}", _table(group, found)]
    parts += [
        "## What the engine adds to OUT_OF_RANGE and UNSAFE_OUTPUT",
        table(("detail", "meaning"), ENGINE_DETAILS.items()),
    ]
    return document(*parts)


def _row(reason: Reason) -> ReasonRow:
    group, advice = ADVICE[reason]
    retry = Retry.NONE
    if group in (Group.JOB, Group.DELIVERY):
        retry = Retry.FINAL if reason in PERMANENT else Retry.AGAIN
    return ReasonRow(str(reason), reason.sentence, group, retry, advice)


def _table(group: Group, rows: list[ReasonRow]) -> str:
    """Whether something is tried again is only asked of jobs and deliveries."""
    if group in (Group.JOB, Group.DELIVERY):
        return table(
            ("code", "meaning", "tried again", "what to do"),
            [(f"`{row.code}`", row.sentence, row.retry, row.advice) for row in rows],
        )
    return table(
        ("code", "meaning", "what to do"), [(f"`{row.code}`", row.sentence, row.advice) for row in rows]
    )
