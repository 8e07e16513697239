"""Commands that show and carry out what retention would delete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from config.quantities import format_size
from config.retention import RetentionSection
from dicom_node.cli.render import Column, complain, console, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, settings_of
from dicom_node.operations import open_node_store
from storage.retention import Ages
from storage.store import Store

retention_app = typer.Typer(help="What is deleted, and when.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("series", lambda c: c.series_id),
    ("state", lambda c: c.state),
    ("finished", lambda c: c.since),
    ("files", lambda c: c.files),
    ("size", lambda c: format_size(c.size)),
    ("series instance uid", lambda c: c.series_instance_uid),
]


@retention_app.command("plan")
def plan(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show what would be deleted now, and delete nothing."""
    with _open(config) as (store, section):
        found = store.retention.plan(_ages(section))
    if json:
        print_json(found)
        return
    print_table("To be deleted", found, _COLUMNS)
    if not section.enabled:
        console.print("retention.enabled is false: the node itself deletes nothing.")


@retention_app.command("run")
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Delete now what `plan` shows."""
    with _open(config) as (store, section):
        if not section.enabled:
            complain("retention.enabled is false; nothing was deleted.")
            raise typer.Exit(2)
        done = store.retention.run(_ages(section))
    size = format_size(sum(candidate.size for candidate in done))
    console.print(f"{len(done)} series deleted, {size}.")


def _ages(section: RetentionSection) -> Ages:
    return Ages(delivered=section.delivered, skipped=section.skipped)


@contextmanager
def _open(config: Path) -> Iterator[tuple[Store, RetentionSection]]:
    settings = settings_of(config)
    with open_node_store(settings) as store:
        yield store, settings.retention
