"""Commands that talk to a peer: echo and send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from pydicom.uid import UID
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from dicom_node.cli.render import complain, console, printable
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, settings_of
from dicom_node.errors import PeerError, Reason
from dicom_node.network import scu
from dicom_node.network.transmission import Answer
from dicom_node.operations import dicom_files, find_peer, send_files
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
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder that is searched for them.")],
    to: Annotated[str, typer.Option("--to", help="Name of a configured peer.")],
    associations: Annotated[int, typer.Option(min=1, max=16, help="How many at once.")] = 1,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send DICOM files to a peer as they are; exit status 1 when an instance was not stored."""
    target = find_peer(settings_of(config), to)
    files = dicom_files(path)
    outcomes: Counter[str] = Counter()
    stored = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(f"to {target.ae_title}", total=len(files))

        def heard(answer: Answer) -> None:
            nonlocal stored
            stored += answer.status is not None and judge(answer.status) is Verdict.DELIVERED
            outcomes[_outcome(answer)] += 1
            bar.advance(task)

        troubles = send_files(target, files, heard, associations=associations)
    for trouble in troubles:
        complain(trouble)
    for outcome, count in sorted(outcomes.items()):
        console.print(Text(printable(f"  {outcome}: {count}")), soft_wrap=True)
    console.print(f"{stored} of {len(files)} instances stored.")
    raise typer.Exit(0 if stored == len(files) else 1)


def _outcome(answer: Answer) -> str:
    """What became of one instance, in a few words: the status, or why nothing was sent."""
    if answer.status is not None:
        return f"0x{answer.status:04X}"
    if answer.reason is Reason.NO_CONTEXT:
        kinds = [UID(uid).name for uid in (answer.item.sop_class_uid, answer.item.transfer_syntax_uid)]
        return f"not accepted by the peer: {' in '.join(kinds)}"
    return f"{answer.comment}: {answer.reason.sentence if answer.reason else 'not sent'}"
