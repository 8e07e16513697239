"""`dicom-node bench receive`: how fast this node receives, beside Orthanc and storescp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dicom_node.cli.render import complain, console, print_table

if TYPE_CHECKING:
    from dicom_node.demo.receive_bench import ReceiveRow

_PEERS = ("orthanc", "storescp")


def receive(
    *,
    kind: Annotated[
        list[str] | None, typer.Option(help="ct: 300 of 512x512; mr: 1000 of 256x256; repeatable.")
    ] = None,
    associations: Annotated[str, typer.Option(help="Numbers of associations at once.")] = "1,4",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each receiver.")] = 5,
    peers: Annotated[str, typer.Option(help="Receivers beside ours; empty for none.")] = ",".join(_PEERS),
    load: Annotated[
        str | None, typer.Option(metavar="ASSOCIATIONSxSLICES", help="Instead: all at once, into ours alone.")
    ] = None,
    idle: Annotated[int | None, typer.Option(min=1, help="Instead: what so many silent ones cost.")] = None,
    large: Annotated[
        str | None,
        typer.Option(metavar="ASSOCIATIONSxMIB", help="Instead: memory with objects of that size."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
) -> None:
    """Receive the same objects by this node, by Orthanc and by storescp, in turns, on this machine."""
    from dicom_node.demo import receive_bench
    from dicom_node.demo.load import KINDS

    kinds = kind or list(KINDS)
    counts = [int(word) for word in associations.split(",") if word.strip().isdecimal()]
    names = [word.strip() for word in peers.split(",") if word.strip()]
    if not counts or min(counts) < 1 or set(kinds) - set(KINDS) or set(names) - set(_PEERS):
        complain("Expected --kind ct or mr, --associations such as 1,4, --peers orthanc,storescp.")
        raise typer.Exit(2)
    figures: Any
    if idle is not None:
        figures = {"associations": idle, "core": round(receive_bench.measure_idle(idle, 10.0), 4)}
        console.print(f"{idle} silent associations: {100 * figures['core']:.1f} % of a core")
    elif large is not None:
        figures = _large(large)
    elif load is not None:
        figures = _load(kind[0] if kind else "mr", load)
    else:
        rows = receive_bench.measure(kinds, counts, names, repeats=repeats, tell=_tell)
        _show(rows)
        figures = [row.as_json() for row in rows]
    _write(output, figures)


def _load(kind: str, text: str) -> dict[str, Any]:
    """Many associations at once."""
    from dicom_node.demo.receive_bench import measure_load

    associations, slices = _product(text)
    report = measure_load(kind, associations, slices, tell=_tell)
    figures = report.as_json()
    console.print(
        f"{report.instances} instances over {report.associations} associations: "
        f"{figures['median_per_s']}/s, answers p50 {figures['answer_ms']['50']} ms, "
        f"p99 {figures['answer_ms']['99']} ms, {figures['peak_mib']:.0f} MiB"
    )
    console.print(f"{report.stored} stored, {report.instances - report.stored} lost, {report.doubled} double")
    if not report.is_whole:
        _write(None, figures)
        raise typer.Exit(1)
    return figures


def _large(text: str) -> dict[str, Any]:
    """Large objects at once."""
    from dicom_node.demo.large import measure_large

    associations, mebibytes = _product(text)
    peak = round(measure_large(associations, mebibytes), 1)
    console.print(f"{associations} objects of {mebibytes} MiB at once: the receiver took {peak:.0f} MiB")
    return {"associations": associations, "object_mib": mebibytes, "peak_mib": peak}


def _product(text: str) -> tuple[int, int]:
    """Two numbers with an x between them."""
    words = text.lower().split("x")
    if len(words) != 2 or not all(word.isdecimal() and int(word) for word in words):
        complain(f"Expected two numbers such as 50x200, not {text!r}.")
        raise typer.Exit(2)
    return int(words[0]), int(words[1])


def _tell(line: str) -> None:
    console.print(Text(line, style="dim"), soft_wrap=True)


def _show(rows: list[ReceiveRow]) -> None:
    lines = [(row, name, runs) for row in rows for name, runs in row.runs.items()]
    print_table(
        "Receiving, instances a second: median (slowest-fastest)",
        lines,
        [
            ("kind", lambda line: line[0].kind),
            ("associations", lambda line: line[0].associations),
            ("receiver", lambda line: line[1]),
            (
                "per s",
                lambda line: (
                    f"{_middle(line[2].rates):.0f} ({min(line[2].rates):.0f}-{max(line[2].rates):.0f})"
                ),
            ),
            ("ours is", lambda line: "" if line[1] == "ours" else f"{line[0].ratio(line[1]):.2f}x"),
            ("CPU ms", lambda line: f"{_middle(line[2].cpu_ms):.2f}"),
            ("p50 ms", lambda line: f"{line[2].percentile_ms(50):.1f}"),
            ("p99 ms", lambda line: f"{line[2].percentile_ms(99):.1f}"),
            ("MiB", lambda line: f"{line[2].peak_mib:.0f}"),
        ],
    )
    console.print(Text("Ours and Orthanc sync before they answer, storescp does not. CPU ms: an instance."))


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _write(output: Path | None, figures: Any) -> None:
    """Write the figures, if asked."""
    if output is None:
        return
    try:
        output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        complain(f"{output}: {exc.strerror}")
        raise typer.Exit(2) from None
