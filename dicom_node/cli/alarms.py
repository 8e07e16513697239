"""Commands for what a person has to know: the alarms that last."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_node.cli.render import Column, console, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, actor, operations

alarms_app = typer.Typer(help="What a person has to know.", no_args_is_help=True)

_COLUMNS: list[Column] = [
    ("code", lambda a: a.code),
    ("subject", lambda a: a.subject),
    ("since", lambda a: a.raised_at),
    ("last seen", lambda a: a.seen_at),
    ("times", lambda a: a.count),
    ("facts", lambda a: " ".join(f"{key}={value}" for key, value in a.data.items())),
]


@alarms_app.command("list")
def alarms_list(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List the alarms that last, the oldest first."""
    with operations(config) as ops:
        found = ops.alarms()
    print_json(found) if json else print_table("Alarms", found, _COLUMNS)


@alarms_app.command("clear")
def alarms_clear(
    code: Annotated[str, typer.Argument(help="The code, as listed.")],
    subject: Annotated[str, typer.Argument(help="The subject, as listed.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """End an alarm that somebody has seen. What lasts is raised again."""
    with operations(config) as ops:
        ended = ops.clear_alarm(code, subject, actor=actor())
    console.print("Ended." if ended else "There is no such alarm.")
    raise typer.Exit(0 if ended else 1)
