"""What can be wrong with a configuration file, as one error that lists every problem.

ConfigError
└── carries `problems`: one `Problem` for each mistake, in the order of the file
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Problem:
    """One mistake of the operator.

    key_path  where it is, such as ``routes[1].send_to[0]``; empty for the file as a whole.
    line      1-based line in the file, or None when the file has no such line.
    message   what is wrong and what to write instead; never a password.
    """

    key_path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        key = f"{self.key_path}: " if self.key_path else ""
        return f"{place}{key}{self.message}"


class ConfigError(Exception):
    """The configuration does not load. `problems` holds all mistakes at once, `source` names the file."""

    def __init__(self, problems: Iterable[Problem], *, source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in self.problems)]))


def refusal(message: str, *, kind: str = "refusal") -> PydanticCustomError:
    """Return what a validator raises to refuse a value with exactly this message."""
    return PydanticCustomError(kind, "{reason}", {"reason": message})
