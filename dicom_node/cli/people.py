"""Commands for users and keys: the same verbs as page and API, for whoever may read the configuration."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from dicom_node.cli.render import Column, console, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, actor, open_desk
from dicom_node.desk.roles import Role, Scope

users_app = typer.Typer(help="Who may use the page and the API.", no_args_is_help=True)
tokens_app = typer.Typer(help="Keys for programs.", no_args_is_help=True)

UserName = Annotated[str, typer.Argument(help="The user's name.")]
_USERS: list[Column] = [
    ("name", lambda u: u.name),
    ("role", lambda u: u.role),
    ("disabled", lambda u: u.disabled),
    ("created", lambda u: u.created_at),
    ("password of", lambda u: u.password_changed_at),
]
_TOKENS: list[Column] = [
    ("id", lambda t: t.id),
    ("user", lambda t: t.user.name),
    ("name", lambda t: t.name),
    ("scopes", lambda t: " ".join(t.scopes)),
    ("expires", lambda t: t.expires_at),
    ("last used", lambda t: t.last_used_at),
    ("revoked", lambda t: t.revoked_at),
]


def _password() -> str:
    """From a terminal twice, unseen; from a pipe one line. Never from an argument, which others can read."""
    if sys.stdin.isatty():
        entered: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return entered
    return sys.stdin.readline().rstrip("\n")


@users_app.command("list")
def users_list(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List users."""
    with open_desk(config) as desk:
        found = desk.store.access.users()
    shown = [{name: get(user) for name, get in _USERS} for user in found]
    print_json(shown) if json else print_table("Users", found, _USERS)


@users_app.command("add")
def users_add(
    name: UserName,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.VIEWER,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Add a user; the password is asked for, or read from standard input."""
    with open_desk(config) as desk:
        user = desk.access.add_user(name, role, _password(), actor=actor())
    console.print(f"User {user.name} is {user.role}.")


@users_app.command("password")
def users_password(name: UserName, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Set a user's password and end the user's sessions."""
    with open_desk(config) as desk:
        desk.access.set_password(name, _password(), actor=actor())
    console.print(f"User {name} has a new password.")


@users_app.command("change")
def users_change(
    name: UserName,
    role: Annotated[Role | None, typer.Option(help="What the user may do.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Lock the user out, or in again.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Change a user's role, or lock the user out."""
    with open_desk(config) as desk:
        user = desk.access.change_user(name, actor=actor(), role=role, disabled=disabled, password=None)
    console.print(f"User {user.name} is {user.role}{', disabled' if user.disabled else ''}.")


@users_app.command("remove")
def users_remove(name: UserName, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove a user with sessions and keys."""
    with open_desk(config) as desk:
        desk.access.remove_user(name, actor=actor())
    console.print(f"User {name} is removed.")


@tokens_app.command("list")
def tokens_list(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """List keys."""
    with open_desk(config) as desk:
        print_table("Keys", desk.store.access.tokens(user), _TOKENS)


@tokens_app.command("create")
def tokens_create(
    user: Annotated[str, typer.Argument(help="Whose key it is.")],
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may be used for.")],
    days: Annotated[int | None, typer.Option(min=1, max=365, help="How long; at most as configured.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make a key and print its secret, once."""
    lifetime = timedelta(days=days) if days is not None else None
    with open_desk(config) as desk:
        _, secret = desk.access.create_token(user, name, scope, lifetime=lifetime, actor=actor())
    typer.echo(secret)


@tokens_app.command("revoke")
def tokens_revoke(
    token: Annotated[int, typer.Argument(help="The key's number.")], config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """End a key for good."""
    with open_desk(config) as desk:
        desk.store.access.revoke_token(token, actor())
    console.print(f"Key {token} is revoked.")
