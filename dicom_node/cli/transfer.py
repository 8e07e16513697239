"""Commands that talk to a peer: echo and send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicom_node.cli.render import complain, console
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, settings_of
from dicom_node.errors import PeerError
from dicom_node.network import scu
from dicom_node.operations import dicom_files, find_peer, send_folder
from dicom_node.sinks.outcome import Verdict, judge


def echo(
    peer: Annotated[str, typer.Argument(help="Name of a configured peer.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a C-ECHO to a peer; exit status 1 when it does not answer with success."""
    target = find_peer(settings_of(config), peer)
    try:
        result = scu.echo(target)
    except PeerError as exc:
        complain(exc.message)
        raise typer.Exit(1) from None
    where = f"{target.ae_title} at {target.host}:{target.port}"
    console.print(f"{where} answered 0x{result.status:04X} in {result.seconds * 1000:.0f} ms.")
    raise typer.Exit(0 if result.status == 0 else 1)


def send(
    folder: Annotated[Path, typer.Argument(help="A DICOM file, or a folder that is searched for them.")],
    peer: Annotated[str, typer.Argument(help="Name of a configured peer.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send DICOM files to a peer; exit status 1 when an instance was not stored."""
    target = find_peer(settings_of(config), peer)
    total = len(dicom_files(folder))
    answers: Counter[int] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(f"to {target.ae_title}", total=total)

        def on_result(_sop_instance_uid: str, status: int, _comment: str) -> bool:
            answers[status] += 1
            bar.advance(task)
            return True

        try:
            send_folder(target, folder, on_result)
        except PeerError as exc:
            complain(exc.message)
    stored = sum(count for status, count in answers.items() if judge(status) is Verdict.DELIVERED)
    for status, count in sorted(answers.items()):
        console.print(f"  0x{status:04X}: {count}")
    console.print(f"{stored} of {total} instances stored.")
    raise typer.Exit(0 if stored == total else 1)
