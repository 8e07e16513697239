"""The routes in force: from the file, or from the version a person applied last. Drafts are tried before they count."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from config.errors import ConfigError
from config.explain import SeriesSummary, describe, explain
from config.routes_text import read_routes, write_routes
from config.sections import Route
from config.settings import Settings
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from storage.errors import StorageError
from storage.route_versions import RouteVersion
from storage.store import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ClauseCheck:
    """One route asked about one series: whether it matches, and the clause that fails if not."""

    route: str
    when: str
    matched: bool
    failed_clause: str


class RouteBook:
    """Reads which routes are in force; asks the database each time, parses a version once."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._file = settings
        self._lock = threading.Lock()
        self._kept: tuple[tuple[int, str | None], Settings] | None = None

    def settings(self) -> Settings:
        """The settings with the routes, and the default enhancer, that are in force.

        A version that this configuration no longer allows (a peer was removed) is passed over with an error in the log:
        the routes of the file count then. So does a database that does not answer: the last known version.
        """
        try:
            version = self._store.route_versions.latest()
            promoted = self._store.shadow.promoted()
        except StorageError as exc:
            log.warning(events.SWEEP_FAILED, sweep="routes", **describe_error(exc))
            return self._file if self._kept is None else self._kept[1]
        written = version if version is not None and version.text is not None else None
        if written is None and promoted is None:
            return self._file
        key = (0 if written is None else written.id, promoted)
        with self._lock:
            if self._kept is None or self._kept[0] != key:
                settings = self._file if written is None else self._read(written)
                self._kept = (key, with_enhancer(settings, promoted))
            return self._kept[1]

    def text(self) -> str:
        """The routes in force as text."""
        return write_routes(self.settings())

    def version(self) -> RouteVersion | None:
        """The version in force; None while the file counts."""
        return self._store.route_versions.latest()

    def draft(self, text: str) -> Settings:
        """The settings as they would be with these routes. Raises `ConfigError` with every problem."""
        return read_routes(text, self._file)

    def apply(self, text: str, *, author: str, comment: str, expected: int | None) -> RouteVersion:
        """Put a draft in force. Raises `ConfigError`, or `IllegalTransitionError` when it is outdated."""
        self.draft(text)
        return self._store.route_versions.apply(text, author=author, comment=comment, expected=expected)

    def restore(
        self, version: int | None, *, author: str, comment: str, expected: int | None
    ) -> RouteVersion:
        """Put an earlier version, or with None the file, in force again, as a new version."""
        text = None if version is None else self._store.route_versions.get(version).text
        if text is not None:
            self.draft(text)
        return self._store.route_versions.apply(
            text, author=author, comment=comment, expected=expected, restored_from=version
        )

    def _read(self, version: RouteVersion) -> Settings:
        try:
            return read_routes(version.text or "", self._file)
        except ConfigError as exc:
            log.error(events.ROUTES_UNUSABLE, version=version.id, problems=len(exc.problems))
            return self._file


def with_enhancer(settings: Settings, name: str | None) -> Settings:
    """The settings with another default enhancer; routes that name one keep it."""
    if name is None:
        return settings
    section = settings.enhancement.model_copy(update={"enhancer": name})
    return settings.model_copy(update={"enhancement": section})


def check_each(routes: Sequence[Route], summary: SeriesSummary) -> list[ClauseCheck]:
    """Every route asked about the series, in order; the first that matches would take it."""
    checks = []
    for route in routes:
        verdict = explain(route.when, summary)
        checks.append(ClauseCheck(route.name, describe(route.when), verdict.matched, verdict.failed_clause))
    return checks
