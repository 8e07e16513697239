"""Commands that print a document the node writes about itself: conformance, reasons."""

from __future__ import annotations

from pathlib import Path

import typer

from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, settings_of


def conformance(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the DICOM conformance statement (PS3.2) of this node as it is configured, as Markdown.

    Without a configuration file at the default place, the defaults are described.
    """
    from config.settings import Settings
    from dicom_node.documents.conformance import conformance_statement

    described = Settings() if _is_absent_default(config) else settings_of(config)
    typer.echo(conformance_statement(described), nl=False)


def reasons() -> None:
    """Print every reason code, what it means and what to do about it, as Markdown."""
    from dicom_node.documents.reasons import reasons_markdown

    typer.echo(reasons_markdown(), nl=False)


def _is_absent_default(config: Path) -> bool:
    return config == DEFAULT_CONFIG and not config.exists()
