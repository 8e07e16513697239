"""How a command finds the node it talks about: the configuration file, and the store behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.settings import Settings, load_settings
from dicom_node.observability.logs import configure
from dicom_node.operations import Operations, local_account, open_node_store

if TYPE_CHECKING:
    from dicom_node.desk.desk import Desk

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The node's configuration file.", envvar="DICOM_NODE_CONFIG")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many rows at most.")]

DEFAULT_CONFIG = Path("node.yaml")


def settings_of(config: Path) -> Settings:
    """Load the configuration and quieten the log to what concerns a person at a terminal."""
    configure(level="WARNING", fmt="console")
    return load_settings(config)


@contextmanager
def operations(config: Path) -> Iterator[Operations]:
    """The operator's verbs over the configured node's store."""
    settings = settings_of(config)
    with open_node_store(settings) as store:
        yield Operations(store, settings)


@contextmanager
def open_desk(config: Path) -> Iterator[Desk]:
    """The desk that page and API work at, over the configured node's store."""
    # Loaded here: it brings the viewer along, which other commands have no use for.
    from dicom_node.desk.desk import open_desk as opened

    settings = settings_of(config)
    with open_node_store(settings) as store:
        yield opened(store, settings)


def actor() -> str:
    """Who is asking, for the event trail."""
    return f"cli:{local_account()}"
