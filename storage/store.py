"""The store: files and tables of one node behind one door."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from storage.access import Access
from storage.alarms import Alarms
from storage.alerts import Alerts
from storage.audit import AuditLog
from storage.audit_facts import AuditFacts
from storage.clock import Clock, utc_now
from storage.commitments import Commitments
from storage.database import Database
from storage.deliveries import Deliveries
from storage.destinations import Destinations
from storage.finding import Finder
from storage.health import Health
from storage.idempotency import Idempotency
from storage.index import Index
from storage.job_queue import JobQueue
from storage.lease_clock import LeaseClock
from storage.listing import Listing
from storage.migrate import current_revision, head_revision, upgrade
from storage.pauses import Pauses
from storage.retention import Retention
from storage.reviews import Reviews
from storage.route_versions import RouteVersions
from storage.safekeeping import Safekeeping
from storage.scrub import Scrubber
from storage.shadow import Shadow
from storage.space import Marks, Space
from storage.spool import Spool
from storage.statistics import Statistics
from storage.sweep import SweepReport
from storage.trail import Trail
from storage.watchdog import Watchdog

__all__ = ["Store", "current_revision", "head_revision", "open_store", "upgrade"]


@dataclass(frozen=True)
class Store:
    """Everything durable. Safe for several threads; each process opens its own on the same database."""

    spool: Spool
    index: Index
    jobs: JobQueue
    deliveries: Deliveries
    destinations: Destinations
    commitments: Commitments
    safekeeping: Safekeeping
    trail: Trail
    listing: Listing
    audit: AuditLog
    audit_facts: AuditFacts
    access: Access
    pauses: Pauses
    statistics: Statistics
    idempotency: Idempotency
    reviews: Reviews
    route_versions: RouteVersions
    alarms: Alarms
    health: Health
    watchdog: Watchdog
    retention: Retention
    scrubber: Scrubber
    space: Space
    clock: LeaseClock
    finder: Finder
    alerts: Alerts
    shadow: Shadow
    _database: Database = field(repr=False)

    def sweep_orphans(self, older_than: timedelta) -> SweepReport:
        """Remove files that no row and no running attempt knows and that are older than this."""
        return self.spool.sweep_orphans(self.index.known_paths, older_than)

    def close(self) -> None:
        """Close the database connections."""
        self._database.close()

    def __enter__(self) -> Store:
        """Leave `close` to the with statement."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_store(
    database_url: str,
    directory: Path,
    *,
    now: Clock | None = None,
    reserve_bytes: int = 0,
    hard_percent: float = 100.0,
    marks: Marks | None = None,
) -> Store:
    """Open the store: folders made (0700), schema upgraded, also when several processes start at once.

    `now` replaces every clock of the store, for tests; without it, times are told by the wall clock, and leases by
    the clock of the database. `reserve_bytes` and `hard_percent` (of the file system, used) are the marks of
    `Spool.check_space`, `marks` those of `Space`.
    Raises `SpoolError`, `SpoolFullError`, `DatabaseUnavailableError`, or `SchemaError` for a newer schema.
    """
    root = directory.absolute()
    spool = Spool(root, reserve_bytes=reserve_bytes, hard_percent=hard_percent)
    upgrade(database_url)
    database = Database(database_url)
    clock = LeaseClock(database, now)
    now = now or utc_now
    alarms = Alarms(database, now)
    scrubber = Scrubber(database, root, clock)
    return Store(
        spool=spool,
        index=Index(database, root, now, clock),
        jobs=JobQueue(database, root, clock),
        deliveries=Deliveries(database, root, now, clock),
        destinations=Destinations(database, clock),
        commitments=Commitments(database, clock),
        safekeeping=Safekeeping(database, root, clock, scrubber),
        trail=Trail(database, now),
        listing=Listing(database, root),
        audit=AuditLog(database),
        audit_facts=AuditFacts(database),
        access=Access(database, now),
        pauses=Pauses(database, now),
        statistics=Statistics(database),
        idempotency=Idempotency(database, now),
        reviews=Reviews(database, now),
        route_versions=RouteVersions(database, now),
        alarms=alarms,
        health=Health(spool, alarms, now),
        watchdog=Watchdog(database, clock),
        retention=Retention(database, root, clock),
        scrubber=scrubber,
        space=Space(root, marks or Marks(hard_percent=hard_percent, reserve_bytes=reserve_bytes)),
        clock=clock,
        finder=Finder(database),
        alerts=Alerts(database, now),
        shadow=Shadow(database, now),
        _database=database,
    )
