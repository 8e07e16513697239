"""The operator's page and the interface for programs: where they answer and how long a login lasts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from config.conditions import one_or_many
from config.names import Host, Network, PortOrFree
from config.quantities import DurationBetween, SizeBetween
from config.sections import Section, whole
from config.tls import PlainPath

_MINUTE = timedelta(minutes=1)
SessionTime = Annotated[timedelta, DurationBetween(at_least=_MINUTE, at_most=timedelta(days=7))]
TokenTime = Annotated[timedelta, DurationBetween(at_least=timedelta(hours=1), at_most=timedelta(days=365))]
Bytes = Annotated[int, SizeBetween(at_least=1024**2, at_most=10**13)]


class PageTls(Section):
    """The certificate, with its chain, and the key under which the page answers; both PEM."""

    certificate: PlainPath
    key: PlainPath


class ApiSection(Section):
    """Where the page answers, who is believed about whom, and how much one request may bring.

    `trusted_proxies`: only from these is `X-Forwarded-For` believed. `max_upload` counts unpacked bytes,
    `image_cache` bytes of decoded series kept for the viewer.
    """

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: PortOrFree = 8080
    tls: PageTls | None = None
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(one_or_many)] = ()
    session_idle: SessionTime = timedelta(minutes=15)
    session_longest: SessionTime = timedelta(hours=12)
    token_lifetime: TokenTime = timedelta(days=90)
    max_connections: Annotated[int, whole(at_least=10, at_most=10_000)] = 200
    max_upload: Bytes = 4 * 10**9
    image_cache: Bytes = 512 * 10**6

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `trusted_proxies`."""
        return tuple(network for network in self.trusted_proxies if network is not None)

    def below(self, folder: Path) -> ApiSection:
        """Return the section with relative paths starting from `folder`."""
        if self.tls is None:
            return self
        paths: Mapping[str, Any] = {
            "certificate": folder / self.tls.certificate,
            "key": folder / self.tls.key,
        }
        return self.model_copy(update={"tls": self.tls.model_copy(update=paths)})
