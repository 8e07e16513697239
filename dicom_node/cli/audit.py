"""Commands about the audit trail: look at it, and prove that nobody changed it."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from dicom_node.cli.render import Column, complain, console, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, LimitOption, actor, operations
from storage.audit_chain import ChainReport

audit_app = typer.Typer(help="Who did what to which study (PS3.15 A.5).", no_args_is_help=True)

_NOTED = re.compile(r"([1-9][0-9]*):([0-9a-f]{64})")
_TERMS = re.compile(r'<EventID [^>]*originalText="([^"]*)"')
_COLUMNS: list[Column] = [
    ("seq", lambda r: r.seq),
    ("at", lambda r: r.at),
    ("event", lambda r: f"{r.kind} {_event_of(r.message)}"),
    ("outcome", lambda r: {0: "success", 4: "minor failure", 8: "serious failure"}.get(r.outcome, r.outcome)),
    ("study", lambda r: _study_of(r.message)),
]


@audit_app.command("list")
def audit_list(
    config: ConfigOption = DEFAULT_CONFIG,
    limit: LimitOption = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only records with a lower number.")] = None,
    json: JsonOption = False,
) -> None:
    """List audit records, newest first; --json has the whole messages. Looking is recorded as well."""
    with operations(config) as ops:
        found = ops.audit_records(limit=limit, before=before, actor=actor())
    print_json(found) if json else print_table("Audit records", found, _COLUMNS)


@audit_app.command("verify")
def audit_verify(
    config: ConfigOption = DEFAULT_CONFIG,
    noted: Annotated[
        str | None,
        typer.Option(metavar="SEQ:DIGEST", help="A record's number and digest, as noted elsewhere."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Walk the chain of records; exit status 1 when a record was changed, removed or added."""
    with operations(config) as ops:
        report = ops.verify_audit(noted=_parse(noted), actor=actor())
    if json:
        print_json(report)
    else:
        _tell(report)
    raise typer.Exit(0 if report.fault is None else 1)


def _tell(report: ChainReport) -> None:
    if report.fault is not None:
        complain(f"The chain is broken at record {report.fault_seq}.", f"{report.fault}.")
        return
    console.print(f"{report.records} records, unbroken.")
    if report.records:
        console.print(f"Note the head elsewhere: {report.head_seq}:{report.head_digest}", soft_wrap=True)


def _parse(noted: str | None) -> tuple[int, str] | None:
    if noted is None:
        return None
    match = _NOTED.fullmatch(noted.strip())
    if match is None:
        complain("Write --noted as the number, a colon and the 64 characters of the digest.")
        raise typer.Exit(2)
    return int(match[1]), match[2]


def _event_of(message: str) -> str:
    found = _TERMS.search(message)
    return found[1] if found else ""


def _study_of(message: str) -> str | None:
    found = re.search(r'ParticipantObjectID="([0-9.]+)"', message)
    return found[1] if found else None
