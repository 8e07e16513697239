"""A finding: how bad, what was seen, what it means and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is. A problem has to be solved before the node does its work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    check    the area: configuration, disk, ports, database, peers, exchange, model, device or clock
    subject  what was looked at, such as the name of a peer
    seen     what was found, as a sentence
    meaning  what follows from it; empty when all is well
    fix      what to do; empty when all is well
    """

    check: str
    subject: str
    level: Level
    seen: str
    meaning: str = ""
    fix: str = ""


def has_problems(findings: Iterable[Finding]) -> bool:
    """Whether anything has to be solved."""
    return any(finding.level is Level.PROBLEM for finding in findings)


@dataclass(frozen=True)
class Area:
    """Makes the findings of one check about one subject."""

    check: str
    subject: str

    def ok(self, seen: str) -> Finding:
        """All is well."""
        return Finding(self.check, self.subject, Level.OK, seen)

    def warning(self, seen: str, *, meaning: str, fix: str) -> Finding:
        """The node works, but not as well or as safely as it could."""
        return Finding(self.check, self.subject, Level.WARNING, seen, meaning, fix)

    def problem(self, seen: str, *, meaning: str, fix: str) -> Finding:
        """The node does not do its work, or is not safe."""
        return Finding(self.check, self.subject, Level.PROBLEM, seen, meaning, fix)
