"""A whole node on loopback, a scripted archive beside it, and a small series to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.imaging.phantom_series import write_ct_series
from engine.phantom import head_phantom, noisy_ct
from tests.nursery import ForkedNode
from tests.sites import Answer, Site, success

CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}}}
api: {{enabled: false}}
storage:
  directory: {directory}
  database_url: "{database}"
  watermarks: {{soft: 99 %, hard: 100 %, reserve: {reserve}, reserve_file: 0 B}}
completion: {{quiet_period: 1 s, quiet_period_by_modality: {{CT: 1 s, MR: 1 s}}, interrupted_factor: 1}}
enhancement: {{enhancer: classical, lease: 4 s}}
delivery: {{backoff_first: 1 s, backoff_longest: 2 s}}
peers:
  - {{name: archive, ae_title: ARCHIVE, host: 127.0.0.1, port: {archive_port}}}
routes:
  - {{name: all, when: {{modality: [CT, MR]}}, action: enhance, send_to: [archive]}}
logging: {{format: json}}
"""

LIMIT = timedelta(seconds=120)


@pytest.fixture(scope="session")
def new_series(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[Path]]:
    """Write a noisy CT head phantom, 16 slices of 64x64, under UIDs of its own."""
    clean = head_phantom(shape=(16, 64, 64), spacing_mm=(3.0, 3.6, 3.6))
    noisy, seeds = noisy_ct(clean, 20.0, seed=3), count()
    return lambda: write_ct_series(noisy, tmp_path_factory.mktemp("scanner"), seed=next(seeds))


@pytest.fixture(scope="session")
def series(new_series: Callable[[], list[Path]]) -> list[Path]:
    """The series of most tests that have a node of their own."""
    return new_series()


@pytest.fixture(scope="session")
def long_series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series whose enhancement takes long enough to be interrupted: 32 slices of 192x192."""
    return write_ct_series(
        noisy_ct(head_phantom((32, 192, 192), (3.0, 1.2, 1.2)), 20.0, seed=4),
        tmp_path_factory.mktemp("scanner-long"),
    )


@pytest.fixture
def archive_port() -> int:
    """The port the configured archive listens on, once a test starts it."""
    return free_port()


@pytest.fixture
def start_archive(tmp_path: Path, archive_port: int) -> Iterator[Callable[..., Archive]]:
    """Start the scripted archive on the configured port."""
    with _archives(tmp_path, archive_port) as start:
        yield start


@pytest.fixture
def start_node(tmp_path: Path, archive_port: int) -> Iterator[Callable[..., RunningNode]]:
    """Start a node in processes of its own; killed at the end if a test left it running."""
    with _nodes(tmp_path, archive_port) as start:
        yield start


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node and its archive for the tests of a module that do not mind what was sent before."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    with _archives(folder, port) as archive, _nodes(folder, port) as node:
        site = Site(node(), archive(lambda uid: site.answer(uid)), success)  # noqa: PLW0108 (tests set it anew)
        yield site


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The shared site as one test sees it: an archive that takes everything, and nothing in it."""
    shared_site.answer = success
    shared_site.before = frozenset(shared_site.archive.series())
    return shared_site


@contextmanager
def _archives(folder: Path, port: int) -> Iterator[Callable[..., Archive]]:
    """Start archives that end with the block."""
    with ExitStack() as running:

        def start(answer: Answer = success) -> Archive:
            return running.enter_context(Archive(folder / "archive", port=port, answer=answer))

        yield start


@contextmanager
def _nodes(folder: Path, archive_port: int) -> Iterator[Callable[..., RunningNode]]:
    """Start nodes that are killed at the end of the block."""
    nodes: list[RunningNode] = []

    def start(
        *,
        directory: Path | None = None,
        reserve: str = "1 MB",
        extra: str = "",
        name: str = "node",
        database: str | None = None,
        run: bool = True,
    ) -> RunningNode:
        config = folder / name / "node.yaml" if name != "node" else folder / "node.yaml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(
            CONFIG.format(
                port=free_port(),
                archive_port=archive_port,
                directory=directory or folder / "node-data",
                # Beside the spool, not in it, so that a full spool is not also a full database.
                database=database or f"sqlite:///{folder / 'node.db'}",
                reserve=reserve,
            )
            + extra
        )
        node = ForkedNode(config)
        nodes.append(node)
        if run:
            node.start()
        return node

    try:
        yield start
    finally:
        for node in nodes:
            node.kill()
