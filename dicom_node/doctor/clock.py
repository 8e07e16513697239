"""The clock: against the database's, against the age of this release, and in a zone that exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dicom_node.doctor.findings import Area, Finding

_TOLERATED = timedelta(seconds=2)
_DANGEROUS = timedelta(seconds=10)
_BUILT = datetime(2025, 1, 1, tzinfo=UTC)
_SYNC = "Synchronise the clocks of both machines (chrony or systemd-timesyncd)."


def check_clock(
    now: datetime, *, database: datetime | None, error_s: float, environ: Mapping[str, str]
) -> list[Finding]:
    """Compare our clock with the database's (None where it has none of its own) and look at the zone."""
    return [*_age(now), *_against_database(now, database, error_s), _zone(now, environ)]


def _age(now: datetime) -> Iterator[Finding]:
    if now < _BUILT:
        yield Area("clock", "this machine").problem(
            f"The clock says {now:%Y-%m-%d}, which is before this release was made.",
            meaning="Dates in derived series are wrong, and certificates look invalid.",
            fix="Set the clock and keep it synchronised (chrony or systemd-timesyncd).",
        )


def _against_database(now: datetime, database: datetime | None, error_s: float) -> Iterator[Finding]:
    if database is None:
        return
    area = Area("clock", "database")
    off = abs(now - database)
    certain = off - timedelta(seconds=error_s)
    seen = f"The database's clock and ours differ by {off.total_seconds():.1f} s."
    if certain > _DANGEROUS:
        yield area.problem(
            seen, meaning="Leases run out too early or too late, so work may be done twice.", fix=_SYNC
        )
    elif certain > _TOLERATED:
        yield area.warning(seen, meaning="Beyond 10 s leases run out too early or too late.", fix=_SYNC)
    else:
        yield area.ok(seen)


def _zone(now: datetime, environ: Mapping[str, str]) -> Finding:
    area = Area("clock", "time zone")
    name = environ.get("TZ", "").removeprefix(":")
    if name and "/" in name:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            return area.problem(
                f"TZ is {name!r}, a zone that this machine does not know; it counts as UTC.",
                meaning="Dates and times in derived series are UTC, but look like local time.",
                fix="Correct TZ, or install the package tzdata.",
            )
    local = now.astimezone()
    return area.ok(f"Local time is {local:%Y-%m-%d %H:%M} ({local:%Z}, UTC{local:%z}).")
