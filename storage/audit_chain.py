"""The hash chain of the audit records: each digest covers its record and the digest before it.

Whoever changes, removes or slips in a record has to rewrite every later one; a copy of any later digest
kept elsewhere (a log server has them all) then tells. Pure: no database here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

GENESIS = "0" * 64


@dataclass(frozen=True)
class NewAuditRecord:
    """A record that has no place in the chain yet.

    kind     the code of its EventID, for example 110104 (PS3.16 CID 400)
    outcome  its EventOutcomeIndicator: 0, 4, 8 or 12
    message  the whole message, XML
    """

    event_id: int
    at: datetime
    kind: str
    outcome: int
    message: str


@dataclass(frozen=True)
class AuditRecord:
    """One link. `seq` counts from 1 without gaps; `previous` is the digest of the link before."""

    seq: int
    at: datetime
    event_id: int
    kind: str
    outcome: int
    message: str
    previous: str
    digest: str


@dataclass(frozen=True)
class ChainReport:
    """What a walk along the chain found; `fault` None means unbroken."""

    records: int
    head_seq: int
    head_digest: str
    fault_seq: int | None = None
    fault: str | None = None


def link(draft: NewAuditRecord, *, seq: int, previous: str) -> AuditRecord:
    """Put a record behind the one whose digest is `previous`."""
    unsigned = AuditRecord(
        seq, draft.at, draft.event_id, draft.kind, draft.outcome, draft.message, previous, ""
    )
    return AuditRecord(**{**unsigned.__dict__, "digest": digest_of(unsigned)})


def digest_of(record: AuditRecord) -> str:
    """SHA-256 over everything that the record says and its place, hexadecimal."""
    at = record.at.astimezone(UTC).isoformat(timespec="microseconds")
    said = [record.seq, record.previous, at, record.event_id, record.kind, record.outcome, record.message]
    return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode("ascii")).hexdigest()


def walk(
    records: Iterable[AuditRecord], *, head_seq: int, head_digest: str, noted: tuple[int, str] | None = None
) -> ChainReport:
    """Follow the chain from its first record and stop at the first fault.

    `head_seq`, `head_digest`  where the store says that it ends
    `noted`                    a number and the digest it had, as noted elsewhere
    """
    seq, digest = 0, GENESIS
    for record in records:
        fault = _fault(record, seq, digest, noted)
        if fault is not None:
            return ChainReport(seq, head_seq, head_digest, seq + 1, fault)
        seq, digest = record.seq, record.digest
    if (seq, digest) != (head_seq, head_digest):
        return ChainReport(seq, head_seq, head_digest, seq + 1, "records are missing at the end")
    if noted is not None and noted[0] > seq:
        return ChainReport(seq, head_seq, head_digest, seq + 1, "the chain ends before the noted record")
    return ChainReport(seq, head_seq, head_digest)


def _fault(record: AuditRecord, seq: int, digest: str, noted: tuple[int, str] | None) -> str | None:
    """What is wrong with a record that should follow number `seq` with `digest`."""
    if record.seq != seq + 1:
        return f"record {seq + 1} is missing"
    if record.previous != digest:
        return "it does not follow from the record before it"
    if record.digest != digest_of(record):
        return "its content is not what was recorded"
    if noted is not None and noted[0] == record.seq and noted[1] != record.digest:
        return "its digest is not the noted one"
    return None
