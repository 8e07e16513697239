"""Commands that run the node: init, serve, db upgrade, and hidden ones that run one of its processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from config.settings import load_settings
from config.template import TEMPLATE
from dicom_node.cli.render import complain, console
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, settings_of
from dicom_node.observability.logs import configure
from storage.store import current_revision, upgrade

db_app = typer.Typer(help="The node's database.", no_args_is_help=True)


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the configuration.")] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented configuration file to start from."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        complain(f"{path} exists; --force replaces it.")
        raise typer.Exit(2) from None
    except OSError as exc:
        complain(f"{path} cannot be written: {exc.strerror}.")
        raise typer.Exit(2) from None
    console.print(f"Wrote {path}. Next: dicom-node config check {path}")


def serve(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the node until SIGTERM or Ctrl-C, then drain: finish what is on the wire, lose nothing."""
    from dicom_node.supervisor import Supervisor

    settings = load_settings(config)
    configure(level=settings.logging.level, fmt=settings.logging.format)
    supervisor = Supervisor(config)
    supervisor.install_signal_handlers()
    raise typer.Exit(supervisor.run())


def role(name: str, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run one process of the node, by itself; `serve` forks its own."""
    from dicom_node.node import Role, run_role

    settings = load_settings(config)
    configure(level=settings.logging.level, fmt=settings.logging.format)
    run_role(Role(name), settings, config)


def receiver_process(
    config: ConfigOption = DEFAULT_CONFIG,
    descriptor: Annotated[int, typer.Option(min=0, help="The channel to the receiver.")] = 0,
    run: Annotated[str, typer.Option(help="The name of this run.")] = "",
) -> None:
    """Serve connections that a receiver hands over (started by the receiver role)."""
    from dicom_node.node import run_receiver_process

    settings = load_settings(config)
    configure(level=settings.logging.level, fmt=settings.logging.format)
    run_receiver_process(settings, descriptor, run)


@db_app.command("upgrade")
def db_upgrade(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Bring the database to this version's schema; `serve` does the same when it starts."""
    storage = settings_of(config).storage
    storage.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = current_revision(storage.resolved_database_url)
    upgrade(storage.resolved_database_url)
    after = current_revision(storage.resolved_database_url)
    console.print(f"Database schema: {before or 'empty'} -> {after}")
