"""Whom to tell when something is wrong, and how soon and how often."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, field_validator

from config.conditions import one_or_many
from config.errors import refusal
from config.names import Host, Network, Port, Text
from config.quantities import DurationBetween
from config.sections import Section, whole
from config.tls import PlainPath

Wait = Annotated[timedelta, DurationBetween(at_least=timedelta(seconds=10), at_most=timedelta(days=30))]


def _address(value: str) -> str:
    name, at, host = value.rpartition("@")
    if not (name and at and host) or not value.isascii() or not value.isprintable() or " " in value:
        raise refusal("expected a mail address such as pacs-team@hospital.example")
    return value


class MailSection(Section):
    """The mail server. `password_file` holds the password alone, readable by the node's user alone."""

    host: Host
    port: Port = 25
    security: Literal["none", "starttls", "tls"] = "starttls"
    user: Text | None = None
    password_file: PlainPath | None = None
    sender: Text
    recipients: Annotated[tuple[Text, ...], BeforeValidator(one_or_many)]

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str) -> str:
        return _address(value)

    @field_validator("recipients")
    @classmethod
    def _recipients(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise refusal("name at least one recipient")
        return tuple(_address(address) for address in value)


class WebhookSection(Section):
    """A URL that is told by POST. `secret_file` holds a key with which the body is signed (HMAC SHA-256)."""

    url: Text
    secret_file: PlainPath | None = None

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise refusal("expected http:// or https:// with a host, without a user name in it")
        return value


class AlertsSection(Section):
    """When to tell and whom.

    `allow_private`: private networks that a webhook may lie in; all others are refused. `at_most_every`: messages are
    at least so far apart, and what happens meanwhile comes together in the next one.
    """

    mail: MailSection | None = None
    webhooks: tuple[WebhookSection, ...] = ()
    allow_private: Annotated[tuple[Network, ...], BeforeValidator(one_or_many)] = ()
    stuck_after: Wait = timedelta(hours=1)
    repeat_after: Wait = timedelta(hours=12)
    at_most_every: Wait = timedelta(minutes=5)
    peer_failures: Annotated[int, whole(at_least=1, at_most=1000)] = 3

    def below(self, folder: Path) -> AlertsSection:
        """Return the section with relative paths starting from `folder`."""
        mail = self.mail
        if mail is not None and mail.password_file is not None:
            mail = mail.model_copy(update={"password_file": folder / mail.password_file})
        hooks = tuple(
            hook
            if hook.secret_file is None
            else hook.model_copy(update={"secret_file": folder / hook.secret_file})
            for hook in self.webhooks
        )
        return self.model_copy(update={"mail": mail, "webhooks": hooks})
