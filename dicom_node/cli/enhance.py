"""`dicom-node enhance`: files in, enhanced files out, no node needed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from config.sections import EnhancementSection
from dicom_node.cli.render import complain, console, print_table, printable

if TYPE_CHECKING:
    from dicom_node.offline.batch import Watch
    from dicom_node.offline.report import Outcome

_DEFAULTS = EnhancementSection()


class Modality(StrEnum):
    """What a NIfTI file shows."""

    CT = "CT"
    MR = "MR"


class Mode(StrEnum):
    """How a diffusion model is run."""

    MEAN = "mean"
    REFINE = "refine"
    SAMPLE = "sample"


class Device(StrEnum):
    """Where a model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def enhance(
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="A NIfTI file, a DICOM series folder, or a folder of either."),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The new file (NIfTI) or folder (DICOM, several inputs).")
    ],
    modality: Annotated[
        Modality | None, typer.Option(help="What NIfTI files show. DICOM series say it themselves.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the enhancer.")] = _DEFAULTS.enhancer,
    strength: Annotated[
        float, typer.Option(help="Share of the noise to remove, 0 to 1.")
    ] = _DEFAULTS.strength,
    mode: Annotated[Mode | None, typer.Option(help="How a diffusion model is run.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Evaluations of a diffusion model.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where a model runs.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write what was done and measured here.")
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the voxel-wise uncertainty here, as NIfTI; one volume only."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what exists.")] = False,
) -> None:
    """Remove noise from NIfTI volumes and DICOM series, without a node.

    NIfTI keeps header, affine and type; a DICOM series becomes a derived series.
    Of several inputs each goes to a file or subfolder of its own below OUTPUT.
    Exit status 1: some inputs failed; 2: none was enhanced and nothing written.

    Research use only. Not a cleared medical device.
    """
    from dicom_node.offline.batch import enhance_files
    from dicom_node.offline.request import EnhanceRequest

    asked = {"mode": mode, "steps": steps, "device": device}
    try:
        request = EnhanceRequest(
            source=source,
            output=output,
            model=model,
            strength=strength,
            modality=None if modality is None else modality.value,
            options={name: _plain(value) for name, value in asked.items() if value is not None},
            report=report,
            uncertainty=uncertainty,
            force=force,
        )
        with _tidy_on_termination(), _bar() as watch:
            outcomes = enhance_files(request, watch)
    except OSError as exc:
        complain(printable(f"{exc.filename or source}: {exc.strerror}"))
        raise typer.Exit(2) from None
    raise typer.Exit(_tell(outcomes, output))


def _plain(value: StrEnum | int) -> str | int:
    return value.value if isinstance(value, StrEnum) else value


@contextmanager
def _tidy_on_termination() -> Iterator[None]:
    """SIGTERM unwinds like an error does, so that nothing half-written stays."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def _bar() -> Iterator[Watch]:
    """A progress bar over all inputs; nothing where no one watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading headers", total=None)

        def watch(number: int, count: int, fraction: float, step: str) -> None:
            place = f"{number + 1} of {count}: {step}"
            progress.update(task, description=place, completed=number + fraction, total=count)

        yield watch


def _tell(outcomes: tuple[Outcome, ...], output: Path) -> int:
    """Say how it went and return the exit status."""
    done = [outcome for outcome in outcomes if outcome.result == "ENHANCED"]
    if len(outcomes) == 1 and not done:
        complain(printable(f"{outcomes[0].what}: {outcomes[0].message}"))
        return 2
    for outcome in done if len(outcomes) == 1 else ():
        console.print(Text(f"Wrote {printable(str(output))}: {_noise(outcome)}."), soft_wrap=True)
    if len(outcomes) > 1:
        print_table(
            "Inputs",
            outcomes,
            [
                ("result", lambda o: o.result),
                ("output", lambda o: "" if o.output is None else o.output.name),
                ("what", lambda o: f"{_noise(o)} ({o.what})" if o.output else f"{o.what}: {o.message}"),
            ],
        )
    if not done:
        complain(f"Nothing was enhanced: {len(outcomes)} inputs, each with its reason above.")
        return 2
    return 1 if any(outcome.result == "FAILED" for outcome in outcomes) else 0


def _noise(outcome: Outcome) -> str:
    """What the enhancement did, in a few words."""
    facts = outcome.facts
    unit = " HU" if facts["unit"] == "HU" else ""
    seconds = facts["seconds"]["TOTAL"]
    return f"noise {facts['noise_before']:.4g} -> {facts['noise_after']:.4g}{unit}, {seconds:.1f} s"
