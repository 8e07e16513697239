"""What made the derived series and how it is to present itself: plain values handed in from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from dicom_node.imaging.identity import DEFAULT_MANUFACTURER

_NOT_PRINTABLE = re.compile(r"[^ -\[\]-~]")  # printable ASCII without the backslash, which divides values
_DIGEST_SHOWN = 12
_WESTERNMOST, _EASTERNMOST = timedelta(hours=-12), timedelta(hours=14)
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")


@dataclass(frozen=True)
class Provenance:
    """Who enhanced the voxels, with what, when.

    algorithm, version, digest, title   the enhancer's identity; digest is 64 hex digits
    strength      what was asked for, in [0, 1]
    parameters    what the enhancer says it used
    node_version  of this software
    processed_at  aware
    """

    algorithm: str
    version: str
    digest: str
    title: str
    strength: float
    parameters: Mapping[str, str | int | float | bool]
    node_version: str
    processed_at: datetime

    def __post_init__(self) -> None:
        if self.processed_at.tzinfo is None:
            raise ValueError("processed_at carries its time zone")

    @property
    def description(self) -> str:
        """One ASCII line a person and a program can read, for DerivationDescription (PS3.3 C.7.6.1.1.3)."""
        own = {"strength", "algorithm", "version"}
        rest = [f"{k}={_plain(v)}" for k, v in sorted(self.parameters.items()) if k not in own]
        parts = [
            f"{self.title}: {self.algorithm} {self.version}",
            f"sha256:{self.digest[:_DIGEST_SHOWN]}",
            f"strength={self.strength:g}",
            *rest,
            f"node {self.node_version}",
        ]
        return ascii_text(" ".join(parts))

    @property
    def software_versions(self) -> tuple[str, str]:
        """Node and algorithm, each at most 64 characters (LO)."""
        return ascii_text(self.node_version)[:64], ascii_text(f"{self.algorithm} {self.version}")[:64]


@dataclass(frozen=True)
class DerivationPolicy:
    """How a site wants its derived series to present themselves.

    Mirrors the derivation section of the configuration. Raises `ValueError` for text that not every
    character set can hold.
    """

    series_number_offset: int = 7000
    description_suffix: str = "[AI-DN]"
    equipment_policy: Literal["standard", "inherit"] = "standard"
    manufacturer: str = DEFAULT_MANUFACTURER
    station_name: str | None = None
    comment: bool = True
    content_qualification: Literal["RESEARCH"] = "RESEARCH"
    image_type_term: bool = True
    overlays: Literal["drop", "keep"] = "drop"
    uid_root: str | None = None

    def __post_init__(self) -> None:
        for words in (self.description_suffix, self.manufacturer, self.station_name or ""):
            if ascii_text(words) != words:
                raise ValueError("text that goes into every object is printable ASCII without backslash")

    @property
    def lone_description(self) -> str:
        """The whole series description where the source has none."""
        return self.description_suffix.strip("[]") or self.description_suffix


def local_time(moment: datetime, offset: str) -> datetime:
    """Return an aware moment in TimezoneOffsetFromUTC (``+0200``), or in this machine's zone without one.

    The attribute governs every date and time of an object (PS3.3 C.12.1.1.8).
    """
    return moment.astimezone(zone_of(offset))


def zone_of(offset: str) -> timezone | None:
    """Return the zone of TimezoneOffsetFromUTC, None for one that is on no map: -1200 to +1400."""
    found = _OFFSET.fullmatch(offset.strip())
    if found is None or int(found[3]) > 59:
        return None
    span = timedelta(hours=int(found[2]), minutes=int(found[3])) * (-1 if found[1] == "-" else 1)
    return timezone(span) if _WESTERNMOST <= span <= _EASTERNMOST else None


def ascii_text(text: str) -> str:
    """Return the text with everything but printable ASCII replaced by ``?``; no backslash."""
    return _NOT_PRINTABLE.sub("?", text)


def _plain(value: str | int | float | bool) -> str:
    """A short form of a parameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
