"""Passwords, sessions, keys: checked here, kept as hashes by the store.

Passwords are argon2id (the library's defaults, above OWASP's minimum). Cookies and keys are 256 random bits, so a
plain SHA-256 of them is enough to keep. A login of an unknown name costs as long as one with a wrong password.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from config.api import ApiSection
from dicom_node.desk.roles import Caller, Role, Scope, role_of_scopes
from dicom_node.errors import NodeError
from dicom_node.observability import events
from storage.access import Access
from storage.access_records import TokenRecord, UserRecord
from storage.trail import Trail

SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024
_FREE_FAILURES = 5
_LONGEST_WAIT = timedelta(minutes=15)
_FORGET = timedelta(hours=24)
SECRET_FILE = "first-run-secret"  # noqa: S105 (a file name)


class LoginRefusedError(NodeError):
    """Name or password is wrong, or the user is disabled; which of them is not told."""

    def __init__(self) -> None:
        super().__init__("name or password is wrong")


class LoginThrottledError(NodeError):
    """Too many failed logins for this account or from this address."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("too many failed logins; try again later")
        self.wait = wait


class WeakPasswordError(NodeError):
    """The password is too short, too long, or the name again."""


class LastAdministratorError(NodeError):
    """Nobody would be left who may change users."""

    def __init__(self) -> None:
        super().__init__("this is the last administrator")


class AccessControl:
    """Lets people and programs in. Safe for several threads."""

    def __init__(
        self, access: Access, trail: Trail, section: ApiSection, *, now: Callable[[], datetime]
    ) -> None:
        self._access = access
        self._trail = trail
        self._section = section
        self._now = now
        self._hasher = PasswordHasher()

    # --- people

    def add_user(self, name: str, role: Role, password: str, *, actor: str) -> UserRecord:
        """Add a user. Raises `WeakPasswordError`, `TakenError`."""
        return self._access.add_user(checked_name(name), role.value, self._hash(name, password), actor)

    def set_password(self, name: str, password: str, *, actor: str) -> UserRecord:
        """Change a password and end the user's sessions. Raises `WeakPasswordError`, `NotFoundError`."""
        return self._access.change_user(name, actor, password_hash=self._hash(name, password))

    def change_user(
        self, name: str, *, actor: str, role: Role | None, disabled: bool | None, password: str | None
    ) -> UserRecord:
        """Change what is given. Raises `LastAdministratorError`, `WeakPasswordError`, `NotFoundError`."""
        if disabled or (role is not None and role is not Role.ADMIN):
            self._refuse_last_administrator(name)
        return self._access.change_user(
            name,
            actor,
            role=role.value if role is not None else None,
            disabled=disabled,
            password_hash=self._hash(name, password) if password is not None else None,
        )

    def change_own_password(self, name: str, old: str, new: str, *, actor: str) -> None:
        """Change a password for one who knows the old one; guesses are throttled like logins."""
        account = f"account:{_digest(name.casefold())}"
        self._refuse_throttled(account)
        if not self._matches(self._access.find_user(name), old):
            self._count(account)
            raise LoginRefusedError
        self.set_password(name, new, actor=actor)

    def remove_user(self, name: str, *, actor: str) -> None:
        """Remove a user. Raises `LastAdministratorError`, `NotFoundError`."""
        self._refuse_last_administrator(name)
        self._access.remove_user(name, actor)

    def first_run(self, secret: str, name: str, password: str, *, peer: str) -> UserRecord:
        """Make the first administrator with the first run's secret, which then opens nothing any more."""
        self._refuse_throttled(f"peer:{peer}")
        user = self._access.add_first_user(checked_name(name), self._hash(name, password), _digest(secret))
        if user is None:
            self._count(f"peer:{peer}")
            raise LoginRefusedError
        return user

    def login(self, name: str, password: str, *, peer: str) -> tuple[Caller, str]:
        """A new session: who it is, and the secret for the cookie.

        Failures count for the account and for the real address alike. Raises `LoginRefusedError`,
        `LoginThrottledError`.
        """
        account, address = f"account:{_digest(name.casefold())}", f"peer:{peer}"
        self._refuse_throttled(account, address)
        user = self._access.find_user(name)
        if not self._matches(user, password) or user is None or user.disabled:
            self._count(account, address)
            # The name only if it is one of ours: people type passwords into the wrong box.
            known = {} if user is None else {"actor": f"user:{user.name}"}
            self._trail.append(events.USER_LOGIN_FAILED, data={**known, "host": peer})
            raise LoginRefusedError
        self._access.forgive(account)
        self._access.forgive(address)
        secret, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._access.open_session(user.id, _digest(secret), csrf)
        self._trail.append(events.USER_LOGGED_IN, data={"actor": f"user:{user.name}", "host": peer})
        return Caller(user.name, Role(user.role), csrf=csrf), secret

    def session(self, secret: str) -> Caller | None:
        """Whose session this is; None for an unknown, ended or idle one."""
        found = self._access.find_session(
            _digest(secret), idle=self._section.session_idle, longest=self._section.session_longest
        )
        return None if found is None else Caller(found.user.name, Role(found.user.role), csrf=found.csrf)

    def logout(self, secret: str) -> None:
        """End a session."""
        caller = self.session(secret)
        self._access.close_session(_digest(secret))
        if caller is not None:
            self._trail.append(events.USER_LOGGED_OUT, data={"actor": caller.actor})

    # --- programs

    def create_token(
        self, user: str, name: str, scopes: Iterable[Scope], *, lifetime: timedelta | None, actor: str
    ) -> tuple[TokenRecord, str]:
        """A new key and its secret, which is shown once and never again."""
        longest = self._section.token_lifetime
        secret = f"dn_{secrets.token_urlsafe(32)}"
        record = self._access.add_token(
            user,
            name,
            token_hash=_digest(secret),
            scopes=tuple(sorted({scope.value for scope in scopes})),
            expires_at=self._now() + min(lifetime or longest, longest),
            actor=actor,
        )
        return record, secret

    def token(self, secret: str) -> Caller | None:
        """Whose key this is; None for an unknown, ended or revoked one."""
        found = self._access.find_token(_digest(secret))
        if found is None:
            return None
        role = role_of_scopes(Role(found.user.role), found.scopes)
        return Caller(found.user.name, role, frozenset(found.scopes), found.id)

    # --- the first run

    def prepare_first_run(self, directory: Path) -> Path | None:
        """While there is no user: a fresh one-use secret in a file for the node's user alone; else None."""
        path = directory / SECRET_FILE
        if self._access.any_user():
            path.unlink(missing_ok=True)
            return None
        secret = secrets.token_urlsafe(24)
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secret + "\n")
        draft.replace(path)
        self._access.keep_first_run_secret(_digest(secret))
        return path

    # --- private

    def _refuse_last_administrator(self, name: str) -> None:
        others = [user for user in self._access.users() if user.role == Role.ADMIN and not user.disabled]
        if [user.name for user in others] == [name]:
            raise LastAdministratorError

    @cached_property
    def _nobody(self) -> str:
        """A hash that no password matches, for names that do not exist."""
        return self._hasher.hash(secrets.token_urlsafe(32))

    def _matches(self, user: UserRecord | None, password: str) -> bool:
        try:
            return self._hasher.verify(
                self._nobody if user is None else user.password_hash, password[:_LONGEST_PASSWORD]
            )
        except (VerificationError, InvalidHashError):
            return False

    def _hash(self, name: str, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
            raise WeakPasswordError(f"a password has at least {SHORTEST_PASSWORD} characters")
        if name.casefold() in password.casefold() and len(password) < len(name) + 8:
            raise WeakPasswordError("the password is little more than the name")
        return self._hasher.hash(password)

    def _refuse_throttled(self, *keys: str) -> None:
        at = self._now()
        for key in keys:
            known = self._access.throttle(key)
            if known is not None and known.not_before is not None and known.not_before > at:
                raise LoginThrottledError(known.not_before - at)

    def _count(self, *keys: str) -> None:
        for key in keys:
            self._access.note_failure(key, free=_FREE_FAILURES, longest=_LONGEST_WAIT, forget=_FORGET)


def checked_name(name: str) -> str:
    """A user name: 1 to 64 printable ASCII characters without spaces. Raises `WeakPasswordError` else."""
    if not 1 <= len(name) <= 64 or not name.isascii() or not name.isprintable() or " " in name:
        raise WeakPasswordError("a user name has 1 to 64 printable ASCII characters without spaces")
    return name


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
