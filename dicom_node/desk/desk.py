"""The desk: one value that holds what page and API need; built once per process by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from config.settings import Settings
from dicom_node.desk.access import AccessControl
from dicom_node.desk.images import Images
from dicom_node.desk.looks import Looks
from dicom_node.desk.overview import Figures
from dicom_node.desk.quality import QualityFigures
from dicom_node.desk.replay import Summaries
from dicom_node.desk.rules import RouteBook
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
    now: Callable[[], datetime]


def utc_now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def open_desk(store: Store, settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Desk:
    """Set up the desk over an open store; the store stays the caller's to close."""
    images = Images(store, settings.api.image_cache)
    return Desk(
        settings=settings,
        store=store,
        operations=Operations(store, settings),
        access=AccessControl(store.access, store.trail, settings.api, now=now),
        figures=Figures(store, settings, now=now),
        rules=RouteBook(store, settings),
        summaries=Summaries(store),
        images=images,
        quality=QualityFigures(store, images),
        looks=Looks(now),
        now=now,
    )
