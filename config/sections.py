"""One frozen model for each section of the file; every field has its unit and its range.

The names here are the keys of the file. Defaults are safe for a single machine: the node listens on the
loopback address only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config.base import Section, whole
from config.commitment import PeerCommitment
from config.companions import RouteCompanions
from config.conditions import Condition, one_or_many
from config.errors import refusal
from config.imaging import RouteAssembly, RouteDerivation
from config.names import (
    RETURN_TO_SENDER,
    AETitle,
    AETitles,
    EnhancerName,
    Host,
    Modality,
    Network,
    PeerName,
    Port,
    PortOrFree,
    RouteName,
    Text,
)
from config.quantities import DurationBetween, PercentBetween, SizeBetween
from config.safekeeping import PeerSafekeeping
from config.tls import ListenerTls, PeerTls, PlainPath

__all__ = [
    "Caller",
    "CompletionSection",
    "DeliverySection",
    "EnhancementSection",
    "LoggingSection",
    "NodeSection",
    "OptionValue",
    "PduSize",
    "Peer",
    "Percent",
    "PositiveDuration",
    "QuietPeriod",
    "Route",
    "RouteEnhancement",
    "Section",
    "StorageSection",
    "Timeout",
    "Timeouts",
    "Watermarks",
    "whole",
]

_ZERO = timedelta(0)
PositiveDuration = Annotated[timedelta, DurationBetween(more_than=_ZERO, at_most=timedelta(days=365))]
QuietPeriod = Annotated[timedelta, DurationBetween(more_than=_ZERO, at_most=timedelta(hours=24))]
Timeout = Annotated[timedelta, DurationBetween(more_than=_ZERO, at_most=timedelta(hours=1))]
Percent = Annotated[float, PercentBetween(more_than=0.0, at_most=100.0)]
# Below 4 KiB a slice costs hundreds of round trips; above 16 MiB every association may claim that much memory.
PduSize = Annotated[int, SizeBetween(at_least=4 * 1024, at_most=16 * 1024**2)]


def _plain_option(value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    raise refusal("expected a text, a number, or true or false")


OptionValue = Annotated[str | int | float | bool, BeforeValidator(_plain_option)]


LateInstances = Literal["hold", "supersede", "ignore"]


class Timeouts(Section):
    """How long the other side of an association may be silent."""

    association: Timeout = timedelta(seconds=30)
    dimse: Timeout = timedelta(seconds=60)
    network: Timeout = timedelta(seconds=60)


class Caller(Section):
    """An AE title that may call us, and the network it has to call from (any, when None)."""

    ae_title: AETitle
    network: Network = None

    @model_validator(mode="before")
    @classmethod
    def _read_title_alone(cls, value: Any) -> Any:
        return {"ae_title": value} if isinstance(value, str) else value

    @field_validator("ae_title")
    @classmethod
    def _refuse_wildcard(cls, value: str) -> str:
        if "*" in value:
            raise refusal("there are no wildcards here; name each AE title that may call")
        return value


class NodeSection(Section):
    """Who we are on the network and who may call."""

    ae_titles: AETitles = ("ENHANCE",)
    host: Host = "127.0.0.1"
    port: PortOrFree = 11112
    max_pdu: PduSize = 131072
    max_associations: Annotated[int, whole(at_least=1, at_most=1000)] = 50
    accept_from: Annotated[tuple[Caller, ...], BeforeValidator(one_or_many)] = ()
    timeouts: Timeouts = Timeouts()
    tls: ListenerTls | None = None
    drain: Annotated[timedelta, DurationBetween(at_least=_ZERO, at_most=timedelta(minutes=10))] = timedelta(
        seconds=25
    )

    @field_validator("ae_titles")
    @classmethod
    def _refuse_repeated(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise refusal("an AE title is listed twice")
        return value


class Watermarks(Section):
    """How full the file system may get: a warning at `soft`, no new associations at `hard`.

    `reserve` is free space in bytes that is kept whatever the percentages say; `reserve_file` is given up when all
    else is gone, so that the database can still write.
    """

    soft: Percent = 80.0
    hard: Percent = 90.0
    reserve: Annotated[int, SizeBetween(at_least=0, at_most=10**15)] = 10**9
    reserve_file: Annotated[int, SizeBetween(at_least=0, at_most=10**12)] = 256 * 2**20

    @model_validator(mode="after")
    def _ordered(self) -> Watermarks:
        if self.soft > self.hard:
            raise refusal("hard is below soft; the warning has to come first")
        return self


class StorageSection(Section):
    """Where instances and the database live."""

    directory: PlainPath = Path("node-data")
    database_url: Text | None = Field(default=None, repr=False)
    watermarks: Watermarks = Watermarks()

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("postgresql://", "postgresql+psycopg://")):
            return value
        if value.startswith(("sqlite:////", "sqlite+pysqlite:////")):
            return value
        raise refusal(
            "expected postgresql+psycopg://USER@HOST/NAME or sqlite:////absolute/path.db; "
            "leave it out for a SQLite file in the storage directory"
        )

    @property
    def resolved_database_url(self) -> str:
        """The database to open: the configured one, or the SQLite file in the storage directory."""
        if self.database_url is not None:
            # Without a driver's name SQLAlchemy would look for another one than ours.
            return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        return f"sqlite:///{self.directory.absolute() / 'node.db'}"

    def below(self, folder: Path) -> StorageSection:
        """Return the section with a relative directory, the default included, starting from `folder`."""
        return self.model_copy(update={"directory": folder / self.directory})


class Peer(Section):
    """A remote AE that we send to. `calling_ae_title` None means our first AE title."""

    name: PeerName
    ae_title: AETitle
    host: Host
    port: Port
    calling_ae_title: AETitle | None = None
    max_pdu: PduSize = 131072
    max_associations: Annotated[int, whole(at_least=1, at_most=2)] = 1
    timeouts: Timeouts = Timeouts()
    tls: PeerTls | None = None
    commitment: PeerCommitment | None = None
    safekeeping: PeerSafekeeping | None = None
    enabled: bool = True


class RouteEnhancement(Section):
    """What a route changes about the enhancement; None means as in the section `enhancement`."""

    enhancer: EnhancerName | None = None
    strength: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] | None = None
    options: Mapping[Text, OptionValue] = Field(default_factory=dict)


class Route(Section):
    """One rule: for which series, what to do, where to send it. The first match in file order wins."""

    name: RouteName
    when: Condition = Condition()
    action: Literal["enhance", "ignore"] = "enhance"
    enhancement: RouteEnhancement = RouteEnhancement()
    assembly: RouteAssembly = RouteAssembly()
    derivation: RouteDerivation = RouteDerivation()
    companions: RouteCompanions = RouteCompanions()
    priority: Annotated[int, whole(at_least=-10, at_most=10)] = 0
    quiet_period: QuietPeriod | None = None
    send_to: Annotated[tuple[Text, ...], BeforeValidator(one_or_many)] = Field(
        default=(), validate_default=True
    )
    allow_lossy: bool = True
    minimum_slices: Annotated[int, whole(at_least=1, at_most=100_000)] = 8
    late_instances: LateInstances | None = None
    count_from: Text | None = None
    completeness: Literal["geometry", "count", "query", "commitment"] = "geometry"

    @field_validator("send_to")
    @classmethod
    def _destinations_fit_action(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        action = info.data.get("action")
        if action == "enhance" and not value:
            raise refusal(f"an enhanced series needs a destination: name a peer, or write {RETURN_TO_SENDER}")
        if action == "ignore" and value:
            raise refusal("an ignored series is sent nowhere; remove send_to")
        if len(set(value)) != len(value):
            raise refusal("a destination is named twice")
        return value

    @model_validator(mode="after")
    def _query_needs_a_source(self) -> Route:
        if self.completeness == "query" and self.count_from is None:
            raise refusal("completeness: query needs count_from, the peer that is asked for the count")
        return self


def _default_quiet_periods() -> dict[str, timedelta]:
    return {"CT": timedelta(seconds=30), "MR": timedelta(seconds=90)}


class CompletionSection(Section):
    """When a series counts as complete. The most particular quiet period wins: route, AE, modality, general."""

    quiet_period: QuietPeriod = timedelta(seconds=60)
    quiet_period_by_modality: Mapping[Modality, QuietPeriod] = Field(default_factory=_default_quiet_periods)
    quiet_period_by_ae: Mapping[AETitle, QuietPeriod] = Field(default_factory=dict)
    interrupted_factor: Annotated[float, Field(strict=True, ge=1.0, le=1000.0)] = 10.0
    longest_open: PositiveDuration = timedelta(hours=24)
    late_instances: LateInstances = "supersede"
    count_patience: PositiveDuration = timedelta(minutes=5)


class EnhancementSection(Section):
    """What is done to a complete series, and how often and how long it is tried."""

    enhancer: EnhancerName = "ddpm3d-ctmr-1"
    strength: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] = 1.0
    workers: Annotated[int, whole(at_least=1, at_most=64)] = 1
    time_limit: PositiveDuration = timedelta(minutes=30)
    attempts: Annotated[int, whole(at_least=1, at_most=20)] = 3
    lease: Timeout = timedelta(seconds=20)


class DeliverySection(Section):
    """How long a destination that does not answer is tried."""

    backoff_first: PositiveDuration = timedelta(seconds=5)
    backoff_longest: PositiveDuration = Field(default=timedelta(minutes=15), validate_default=True)
    give_up_after: PositiveDuration = timedelta(days=14)
    circuit_opens_at: Annotated[int, whole(at_least=1, at_most=100)] = 3

    @field_validator("backoff_longest")
    @classmethod
    def _ordered(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if info.data.get("backoff_first", value) > value:
            raise refusal("backoff_longest is shorter than backoff_first")
        return value


class LoggingSection(Section):
    """How much is logged and in which form; `auto` is for people on a terminal and JSON elsewhere."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "console"] = "auto"
