"""`dicom-node bench engine`: how fast the engine runs on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dicom_node.cli.enhance import Device
from dicom_node.cli.render import complain, console, print_table

if TYPE_CHECKING:
    from engine.evaluation.speed import PeerSpeed, SpeedRow

bench_app = typer.Typer(help="Measure this machine.", no_args_is_help=True)

_MODES = "mean,refine4,refine10,sample50"
_CPU_SHAPE, _CUDA_SHAPE = "32,128,128", "512,512,512"


@bench_app.callback()
def _bench() -> None:
    """Measure this machine."""


@bench_app.command()
def engine(
    *,
    shape: Annotated[
        list[str] | None,
        typer.Option(help=f"Slices,rows,columns; repeatable. {_CPU_SHAPE} on a CPU, {_CUDA_SHAPE} on CUDA."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of an enhancer, or a bundle folder. The shipped model if absent.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.AUTO,
    repeats: Annotated[int, typer.Option(min=1, help="Runs that count, after one that does not.")] = 3,
    modes: Annotated[str, typer.Option(help="Which modes to time.")] = _MODES,
    bm4d: Annotated[bool, typer.Option(help="Time BM4D too, where it is installed.")] = True,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
) -> None:
    """Time the engine on a noisy phantom: seconds, memory, and BM4D on the same volume.

    On a CPU the modes of many evaluations run on a smaller crop; the column "ran on" says so.
    """
    from engine.evaluation import speed
    from engine.evaluation.machine import machine_facts

    plans = speed.choose_plans(modes)
    enhancer, place = speed.load_enhancer(model, device.value)
    on_cuda = place.startswith("cuda")
    shapes = [speed.parse_shape(text) for text in shape or [_CUDA_SHAPE if on_cuda else _CPU_SHAPE]]
    facts = machine_facts(place)
    console.print(Text(", ".join(f"{name} {value}" for name, value in facts.items())), soft_wrap=True)
    peer = speed.time_bm4d(shapes[0], _tell) if bm4d else None
    rows = speed.measure(
        enhancer,
        shapes,
        plans if speed.has_modes(enhancer) else [speed.ONLY],
        on_cuda=on_cuda,
        repeats=repeats,
        peer=peer,
        tell=_tell,
    )
    _show(rows, peer, asked=bm4d)
    if output is not None:
        try:
            output.write_text(json.dumps(speed.as_json(rows, peer, facts), indent=1) + "\n", encoding="utf-8")
        except OSError as exc:
            complain(f"{output}: {exc.strerror}")
            raise typer.Exit(2) from None


def _tell(line: str) -> None:
    console.print(Text(line, style="dim"), soft_wrap=True)


def _show(rows: list[SpeedRow], peer: PeerSpeed | None, *, asked: bool) -> None:
    """Print the table and what is to be said of the peer."""
    from engine.evaluation.speed import SIGMA_HU

    print_table(
        f"{rows[0].model}, noise of {SIGMA_HU:g} HU",
        rows,
        [
            ("mode", lambda r: r.plan),
            ("ran on", lambda r: _size(r.ran_on) + ("" if r.ran_on == r.asked else " crop")),
            ("evals", lambda r: r.evaluations),
            ("runs", lambda r: len(r.seconds)),
            ("s", lambda r: f"{r.median_s:.3g}"),
            ("min-max", lambda r: f"{min(r.seconds):.3g}-{max(r.seconds):.3g}"),
            ("s/Mvox", lambda r: f"{r.seconds_per_mvoxel:.3g}"),
            ("MiB", lambda r: "" if r.peak_bytes is None else f"{r.peak_bytes / 2**20:.0f}"),
            ("x BM4D", lambda r: "" if r.against_peer is None else f"{r.against_peer:.3g}"),
        ],
    )
    note = (
        "s: median of the runs; s/Mvox: per million voxels; MiB: device peak, on a CPU growth of the process."
    )
    console.print(Text(note), soft_wrap=True)
    if peer is not None:
        what = f"{peer.seconds:.3g} s on {_size(peer.ran_on)}, {peer.seconds_per_mvoxel:.3g} s/Mvox"
        what += f", {peer.processors:.2g} processors busy"
        console.print(Text(f"BM4D, told the true noise: {what}; compared per voxel."), soft_wrap=True)
    elif asked:
        console.print(Text("BM4D: not installed."))


def _size(shape: tuple[int, int, int]) -> str:
    return "x".join(str(n) for n in shape)
