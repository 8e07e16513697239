"""What the store hands out about people, their sessions and their keys: never a secret, never a hash of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class UserRecord:
    """A user; the hash of the password is there to be checked and stays out of every representation."""

    id: int
    name: str
    role: str
    disabled: bool
    created_at: datetime
    password_changed_at: datetime
    password_hash: str = field(repr=False)


@dataclass(frozen=True)
class SessionRecord:
    """A session with its user, as they are now."""

    user: UserRecord
    csrf: str = field(repr=False)
    created_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True)
class TokenRecord:
    """A key for programs with its owner, as they are now."""

    id: int
    user: UserRecord
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class ThrottleRecord:
    """Failed logins under one key; until `not_before` no further attempt is looked at."""

    key: str
    failures: int
    not_before: datetime | None
    last_at: datetime
