"""Users, sessions, keys for programs, and the memory of failed logins. Every method is one short transaction.

This room keeps hashes and compares nothing in the clear: what a password or a key is, `dicom_node.desk.access`
knows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from storage.access_records import SessionRecord, ThrottleRecord, TokenRecord, UserRecord
from storage.clock import Clock
from storage.database import Database, changed
from storage.desk_tables import ApiTokenRow, LoginThrottleRow, OneTimeSecretRow, SessionRow, UserRow
from storage.errors import NotFoundError, TakenError
from storage.trail import add_event

Users = list[UserRecord]
Tokens = list[TokenRecord]


class Access:
    """Who may come in, and with what."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    # --- users

    def users(self) -> Users:
        """Every user by name."""
        with self._database.reading() as session:
            return [_user(row) for row in session.scalars(select(UserRow).order_by(UserRow.name))]

    def any_user(self) -> bool:
        """Whether there is a user who may sign in."""
        query = select(UserRow.id).where(UserRow.disabled.is_(False)).limit(1)
        with self._database.reading() as session:
            return session.scalar(query) is not None

    def find_user(self, name: str) -> UserRecord | None:
        """The user of that name, or None."""
        with self._database.reading() as session:
            row = session.scalars(select(UserRow).where(UserRow.name == name)).one_or_none()
            return None if row is None else _user(row)

    def add_user(self, name: str, role: str, password_hash: str, actor: str) -> UserRecord:
        """Add a user. Raises `TakenError` for a name that is in use."""
        with self._database.writing() as session:
            return _user(self._insert_user(session, name, role, password_hash, actor))

    def add_first_user(self, name: str, password_hash: str, secret_hash: str) -> UserRecord | None:
        """Turn the first run's secret into the first administrator, once; None when the secret is not valid.

        Two who try at once: one of them gets None.
        """
        with self._database.writing() as session:
            spent = session.execute(
                delete(OneTimeSecretRow).where(
                    OneTimeSecretRow.purpose == "first-run", OneTimeSecretRow.secret_hash == secret_hash
                )
            )
            if changed(spent) != 1:
                return None
            return _user(self._insert_user(session, name, "admin", password_hash, "first-run"))

    def change_user(
        self,
        name: str,
        actor: str,
        *,
        role: str | None = None,
        password_hash: str | None = None,
        disabled: bool | None = None,
    ) -> UserRecord:
        """Change what is given. A change of any kind ends the user's sessions. Raises `NotFoundError`."""
        with self._database.writing() as session:
            row = self._user_row(session, name)
            if role is not None:
                row.role = role
            if disabled is not None:
                row.disabled = disabled
            if password_hash is not None:
                row.password_hash = password_hash
                row.password_changed_at = self._now()
            session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))
            session.flush()
            data = {
                "actor": actor,
                "user": name,
                "role": role,
                "disabled": disabled,
                "password": password_hash is not None,
            }
            add_event(session, "user.changed", at=self._now(), data=data)
            return _user(row)

    def remove_user(self, name: str, actor: str) -> None:
        """Remove a user with sessions and keys. Raises `NotFoundError`."""
        with self._database.writing() as session:
            row = self._user_row(session, name)
            session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))
            session.execute(delete(ApiTokenRow).where(ApiTokenRow.user_id == row.id))
            session.delete(row)
            session.flush()
            add_event(session, "user.removed", at=self._now(), data={"actor": actor, "user": name})

    def keep_first_run_secret(self, secret_hash: str) -> None:
        """Replace the first run's secret."""
        with self._database.writing() as session:
            session.execute(delete(OneTimeSecretRow).where(OneTimeSecretRow.purpose == "first-run"))
            session.add(
                OneTimeSecretRow(purpose="first-run", secret_hash=secret_hash, created_at=self._now())
            )

    # --- sessions

    def open_session(self, user_id: int, id_hash: str, csrf: str) -> None:
        """Keep a new session."""
        with self._database.writing() as session:
            at = self._now()
            session.add(
                SessionRow(id_hash=id_hash, user_id=user_id, csrf=csrf, created_at=at, last_seen_at=at)
            )

    def find_session(self, id_hash: str, *, idle: timedelta, longest: timedelta) -> SessionRecord | None:
        """The session, if its user is enabled and it is neither idle for too long nor too old.

        Notes that it was seen, at most once a minute, so that reading pages costs no writes.
        """
        query = select(SessionRow, UserRow).join(UserRow).where(SessionRow.id_hash == id_hash)
        at = self._now()
        with self._database.reading() as session:
            found = session.execute(query).one_or_none()
            if found is None:
                return None
            row, user = found
            if user.disabled or at - row.last_seen_at > idle or at - row.created_at > longest:
                return None
            record = SessionRecord(_user(user), row.csrf, row.created_at, row.last_seen_at)
        if at - record.last_seen_at > min(timedelta(minutes=1), idle / 4):
            with self._database.writing() as session:
                session.execute(
                    update(SessionRow).where(SessionRow.id_hash == id_hash).values(last_seen_at=at)
                )
        return record

    def close_session(self, id_hash: str) -> None:
        """Forget a session; unknown ones are forgotten already."""
        with self._database.writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.id_hash == id_hash))

    def drop_old_sessions(self, longest: timedelta) -> int:
        """Forget sessions that are older than any may get."""
        with self._database.writing() as session:
            old = delete(SessionRow).where(SessionRow.created_at < self._now() - longest)
            return changed(session.execute(old))

    # --- keys for programs

    def add_token(
        self,
        user: str,
        name: str,
        *,
        token_hash: str,
        scopes: tuple[str, ...],
        expires_at: datetime,
        actor: str,
    ) -> TokenRecord:
        """Keep a key. Raises `NotFoundError` for an unknown user."""
        with self._database.writing() as session:
            owner = self._user_row(session, user)
            row = ApiTokenRow(
                user_id=owner.id,
                name=name,
                token_hash=token_hash,
                scopes=" ".join(scopes),
                created_at=self._now(),
                expires_at=expires_at,
            )
            session.add(row)
            session.flush()
            data = {"actor": actor, "user": user, "token": row.id, "scopes": list(scopes)}
            add_event(session, "token.created", at=self._now(), data=data)
            return _token(row, owner)

    def find_token(self, token_hash: str) -> TokenRecord | None:
        """The key, if it is valid now and its owner enabled."""
        query = select(ApiTokenRow, UserRow).join(UserRow).where(ApiTokenRow.token_hash == token_hash)
        at = self._now()
        with self._database.reading() as session:
            found = session.execute(query).one_or_none()
            if found is None:
                return None
            row, user = found
            if user.disabled or row.revoked_at is not None or row.expires_at <= at:
                return None
            record = _token(row, user)
        if record.last_used_at is None or at - record.last_used_at > timedelta(minutes=1):
            with self._database.writing() as session:
                session.execute(
                    update(ApiTokenRow).where(ApiTokenRow.id == record.id).values(last_used_at=at)
                )
        return record

    def tokens(self, user: str | None = None) -> Tokens:
        """Keys, of one user or of all, newest first."""
        query = select(ApiTokenRow, UserRow).join(UserRow).order_by(ApiTokenRow.id.desc())
        if user is not None:
            query = query.where(UserRow.name == user)
        with self._database.reading() as session:
            return [_token(row, owner) for row, owner in session.execute(query)]

    def revoke_token(self, token_id: int, actor: str) -> None:
        """End a key for good. Raises `NotFoundError`."""
        with self._database.writing() as session:
            row = session.get(ApiTokenRow, token_id)
            if row is None:
                raise NotFoundError("token", token_id)
            row.revoked_at = row.revoked_at or self._now()
            session.flush()
            add_event(session, "token.revoked", at=self._now(), data={"actor": actor, "token": token_id})

    # --- failed logins

    def throttle(self, key: str) -> ThrottleRecord | None:
        """What is remembered under the key."""
        with self._database.reading() as session:
            row = session.get(LoginThrottleRow, key)
            if row is None:
                return None
            return ThrottleRecord(row.key, row.failures, row.not_before, row.last_at)

    def note_failure(self, key: str, *, free: int, longest: timedelta, forget: timedelta) -> None:
        """Count a failure. Beyond `free` of them the wait doubles from one second up to `longest`.

        After `forget` without a failure the count starts again.
        """

        def work() -> None:
            with self._database.writing() as session:
                at = self._now()
                row = session.get(LoginThrottleRow, key, with_for_update=True)
                if row is None:
                    row = LoginThrottleRow(key=key, failures=0, last_at=at)
                    session.add(row)
                if at - row.last_at > forget:
                    row.failures = 0
                row.failures += 1
                row.last_at = at
                over = row.failures - free
                wait = min(timedelta(seconds=2.0 ** min(over, 20)), longest)
                row.not_before = at + wait if over >= 0 else None
                session.flush()

        self._database.retrying(work)

    def forgive(self, key: str) -> None:
        """Forget the failures under the key."""
        with self._database.writing() as session:
            session.execute(delete(LoginThrottleRow).where(LoginThrottleRow.key == key))

    # --- private

    def _insert_user(self, session: Session, name: str, role: str, password_hash: str, actor: str) -> UserRow:
        if session.scalar(select(func.count()).where(UserRow.name == name)):
            raise TakenError("user name", name)
        at = self._now()
        row = UserRow(
            name=name, role=role, password_hash=password_hash, created_at=at, password_changed_at=at
        )
        row.disabled = False
        session.add(row)
        session.flush()
        add_event(session, "user.added", at=at, data={"actor": actor, "user": name, "role": role})
        return row

    def _user_row(self, session: Session, name: str) -> UserRow:
        row = session.scalars(select(UserRow).where(UserRow.name == name).with_for_update()).one_or_none()
        if row is None:
            raise NotFoundError("user", name)
        return row


def _user(row: UserRow) -> UserRecord:
    return UserRecord(
        id=row.id,
        name=row.name,
        role=row.role,
        disabled=row.disabled,
        created_at=row.created_at,
        password_changed_at=row.password_changed_at,
        password_hash=row.password_hash,
    )


def _token(row: ApiTokenRow, owner: UserRow) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        user=_user(owner),
        name=row.name,
        scopes=tuple(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
