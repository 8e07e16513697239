"""`dicom-node bench read`: how fast stored slices become a volume."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dicom_node.cli.render import console, print_table


def read(
    *,
    slices: Annotated[int, typer.Option(min=8, help="Slices of 512 x 512 in the series.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="How often each series is read, both ways.")] = 3,
    directory: Annotated[
        Path | None, typer.Option(help="Write the series below this folder; a temporary one if absent.")
    ] = None,
) -> None:
    """Time reading, native and JPEG 2000, beside a plain pydicom loop over the same files."""
    from dicom_node.demo.bench_read import measure

    with tempfile.TemporaryDirectory(dir=directory) as folder:
        rows = list(measure(Path(folder), slices=slices, repeats=repeats, tell=_tell))
    print_table(
        f"{slices} slices of 512 x 512 into one volume",
        rows,
        [
            ("pixels", lambda r: r.syntax),
            ("slices/s", lambda r: f"{r.rates[0]:.0f}"),
            ("s", lambda r: f"{min(x.seconds for x in r.ours):.2f}-{max(x.seconds for x in r.ours):.2f}"),
            ("CPU ms", lambda r: f"{r.cpu_ms[0]:.2f}"),
            ("MiB", lambda r: f"{r.peaks[0] / 2**20:.0f}"),
            ("plain slices/s", lambda r: f"{r.rates[1]:.0f}"),
            (
                "plain s",
                lambda r: f"{min(x.seconds for x in r.plain):.2f}-{max(x.seconds for x in r.plain):.2f}",
            ),
            ("plain CPU ms", lambda r: f"{r.cpu_ms[1]:.2f}"),
            ("plain MiB", lambda r: f"{r.peaks[1] / 2**20:.0f}"),
            ("times", lambda r: f"{r.ratio:.2f}"),
        ],
    )
    console.print(Text("MiB: peak of the process, with the largest of its decoding processes."))


def _tell(line: str) -> None:
    console.print(Text(line, style="dim"), soft_wrap=True)
