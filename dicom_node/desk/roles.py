"""Who may do what: roles of people, scopes of keys, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What a person may do; each role may do all that the one before it may."""

    VIEWER = "viewer"  # looks; patient data stays masked
    OPERATOR = "operator"  # steers jobs and series, reviews, may reveal patient data
    ADMIN = "admin"  # users, routes, models, pauses

    @property
    def rank(self) -> int:
        """Position among the roles, from 0."""
        return _RANKS[self]


_RANKS: Mapping[Role, int] = {role: rank for rank, role in enumerate(Role)}


class Scope(StrEnum):
    """What a key may be used for; never beyond the role of its owner."""

    READ = "read"
    ACT = "act"
    ADMIN = "admin"
    METRICS = "metrics"


_NEEDED: Mapping[Scope, Role] = {
    Scope.READ: Role.VIEWER,
    Scope.METRICS: Role.VIEWER,
    Scope.ACT: Role.OPERATOR,
    Scope.ADMIN: Role.ADMIN,
}


def role_of_scopes(owner: Role, scopes: Iterable[str]) -> Role | None:
    """The role a key acts in: the highest its scopes give, at most its owner's; None for metrics alone."""
    granted = [_NEEDED[Scope(scope)] for scope in scopes if scope != Scope.METRICS]
    if not granted:
        return None
    return min(max(granted, key=lambda role: role.rank), owner, key=lambda role: role.rank)


@dataclass(frozen=True)
class Caller:
    """Who asks: a person with a session, or a program with a key. `role` None may read metrics only."""

    name: str
    role: Role | None
    scopes: frozenset[str] = frozenset()
    token_id: int | None = None
    csrf: str | None = field(default=None, repr=False)

    @property
    def actor(self) -> str:
        """How the trail names the caller."""
        return f"user:{self.name}" if self.token_id is None else f"user:{self.name}/token:{self.token_id}"

    def may(self, role: Role) -> bool:
        """Whether the caller acts in this role or a higher one."""
        return self.role is not None and self.role.rank >= role.rank

    @property
    def may_reveal(self) -> bool:
        """Whether the caller may see patient data in the clear; every look is audited."""
        return self.may(Role.OPERATOR)

    @property
    def may_read_metrics(self) -> bool:
        """Whether the caller may read the metrics: any person, or a key made for that."""
        return self.token_id is None or Scope.METRICS in self.scopes or Scope.ADMIN in self.scopes
