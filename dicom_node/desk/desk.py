"""The desk: one value that holds what page and API need; built once per process by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from config.settings import Settings
from dicom_node.desk.access import AccessControl
from dicom_node.desk.alerts import AlertWatch
from dicom_node.desk.images import Images
from dicom_node.desk.looks import Looks
from dicom_node.desk.overview import Figures
from dicom_node.desk.quality import QualityFigures
from dicom_node.desk.replay import Summaries
from dicom_node.desk.rules import RouteBook
from dicom_node.desk.upload import Uploads
from dicom_node.desk.why_not import WhyNotSearch
from dicom_node.operations import Operations
from storage.store import Store


@dataclass(frozen=True)
class Desk:
    """Everything an operator can ask of this node."""

    settings: Settings
    store: Store
    operations: Operations
    access: AccessControl
    figures: Figures
    rules: RouteBook
    summaries: Summaries
    images: Images
    quality: QualityFigures
    looks: Looks
    why_not: WhyNotSearch
    uploads: Uploads
    watch: AlertWatch
    now: Callable[[], datetime]

    def forget_old(self) -> None:
        """Drop what nobody will ask for again: ended sessions, answers to old writes, alerts long over."""
        self.store.access.drop_old_sessions(self.settings.api.session_longest)
        self.store.idempotency.drop_older(timedelta(days=1))
        self.store.alerts.drop_resolved(timedelta(days=30))


def utc_now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def open_desk(store: Store, settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Desk:
    """Set up the desk over an open store; the store stays the caller's to close."""
    images = Images(store, settings.api.image_cache)
    operations, rules, summaries = Operations(store, settings), RouteBook(store, settings), Summaries(store)
    return Desk(
        settings=settings,
        store=store,
        operations=operations,
        access=AccessControl(store.access, store.trail, settings.api, now=now),
        figures=Figures(store, settings, in_force=rules.settings, now=now),
        rules=rules,
        summaries=summaries,
        images=images,
        quality=QualityFigures(store, images),
        looks=Looks(now),
        why_not=WhyNotSearch(store, operations, rules, summaries, settings.storage.directory),
        uploads=Uploads(store, settings, now=now),
        watch=AlertWatch(store, settings, now=now),
        now=now,
    )
