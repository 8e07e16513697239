"""Users and keys: for administrators, and for everyone their own."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.api.act_routes import In
from dicom_node.api.idempotency import WriteRoute
from dicom_node.api.problems import ApiProblemError
from dicom_node.api.read_routes import Id
from dicom_node.api.security import Admin, DeskDep, Viewer
from dicom_node.desk.roles import Role, Scope
from storage.access_records import TokenRecord, UserRecord

router = APIRouter(tags=["people"], route_class=WriteRoute)

UserName = Annotated[str, Path(min_length=1, max_length=64)]
Password = Annotated[str, Field(min_length=1, max_length=1024)]


class UserOut(BaseModel):
    """A user."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    role: str
    disabled: bool
    created_at: datetime
    password_changed_at: datetime


class UserIn(In):
    """A user to be."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Role
    password: Password


class UserChangeIn(In):
    """What to change about a user; every change ends the user's sessions."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class PasswordIn(In):
    """The old password, and the new one."""

    old: Password
    new: Password


class TokenOut(BaseModel):
    """A key; its secret is shown only where it was made."""

    id: int
    user: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    secret: str | None = None


class TokenIn(In):
    """A key to be: for what, and for how long at most."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    days: Annotated[int, Field(ge=1, le=365)] | None = None


@router.get("/users")
def users(desk: DeskDep, _caller: Admin) -> list[UserOut]:
    """Every user by name."""
    return [_user(user) for user in desk.store.access.users()]


@router.post("/users", status_code=201)
def add_user(desk: DeskDep, caller: Admin, asked: UserIn) -> UserOut:
    """Add a user."""
    return _user(desk.access.add_user(asked.name, asked.role, asked.password, actor=caller.actor))


@router.patch("/users/{name}")
def change_user(desk: DeskDep, caller: Admin, name: UserName, asked: UserChangeIn) -> UserOut:
    """Change a user's role or password, or lock the user out."""
    user = desk.access.change_user(
        name, actor=caller.actor, role=asked.role, disabled=asked.disabled, password=asked.password
    )
    return _user(user)


@router.delete("/users/{name}", status_code=204)
def remove_user(desk: DeskDep, caller: Admin, name: UserName) -> None:
    """Remove a user with sessions and keys. The last administrator cannot be removed."""
    desk.access.remove_user(name, actor=caller.actor)


@router.post("/session/password", status_code=204)
def change_password(desk: DeskDep, caller: Viewer, asked: PasswordIn) -> None:
    """Change one's own password; every session of the user ends."""
    if caller.token_id is not None:
        raise ApiProblemError(403, "not-allowed", "A key cannot change a password.")
    desk.access.change_own_password(caller.name, asked.old, asked.new, actor=caller.actor)


@router.get("/tokens")
def tokens(desk: DeskDep, caller: Viewer) -> list[TokenOut]:
    """One's own keys; for an administrator everyone's."""
    owner = None if caller.may(Role.ADMIN) else caller.name
    return [_token(token) for token in desk.store.access.tokens(owner)]


@router.post("/tokens", status_code=201)
def add_token(desk: DeskDep, caller: Viewer, asked: TokenIn) -> TokenOut:
    """Make a key for oneself. Its secret is in this answer and nowhere else."""
    if caller.token_id is not None:
        raise ApiProblemError(403, "not-allowed", "A key cannot make another key.")
    lifetime = timedelta(days=asked.days) if asked.days is not None else None
    record, secret = desk.access.create_token(
        caller.name, asked.name, asked.scopes, lifetime=lifetime, actor=caller.actor
    )
    return _token(record, secret)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(desk: DeskDep, caller: Viewer, token_id: Id) -> None:
    """End a key for good: one's own, or any as an administrator."""
    own = {token.id for token in desk.store.access.tokens(caller.name)}
    if token_id not in own and not caller.may(Role.ADMIN):
        raise ApiProblemError(403, "not-allowed", "This key belongs to someone else.")
    desk.store.access.revoke_token(token_id, caller.actor)


def _user(user: UserRecord) -> UserOut:
    return UserOut.model_validate(user)


def _token(token: TokenRecord, secret: str | None = None) -> TokenOut:
    return TokenOut(
        id=token.id,
        user=token.user.name,
        name=token.name,
        scopes=list(token.scopes),
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
        revoked_at=token.revoked_at,
        secret=secret,
    )
