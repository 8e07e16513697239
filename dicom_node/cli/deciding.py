"""Commands for what is decided about the line: pauses, routes, models, and what readers say of derived series."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dicom_node.cli.check import routes_app
from dicom_node.cli.render import Column, complain, console, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, actor, open_desk
from storage.pauses import Part

if TYPE_CHECKING:
    from dicom_node.desk.desk import Desk

line_app = typer.Typer(help="Pause and resume parts of the line.", no_args_is_help=True)
models_app = typer.Typer(help="The model in use, and models on trial beside it.", no_args_is_help=True)
reviews_app = typer.Typer(help="What readers say of derived series.", no_args_is_help=True)

CommentOption = Annotated[str, typer.Option(help="What changes, and why.")]
ExpectedOption = Annotated[
    int | None,
    typer.Option(min=0, help="The version you looked at, 0 for none; another one meanwhile is refused."),
]
PartArgument = Annotated[Part, typer.Argument(help="Which part.")]
TrialArgument = Annotated[int, typer.Argument(help="The trial's number.")]

_PAUSES: list[Column] = [("part", lambda p: p[0]), ("now", lambda p: "paused" if p[1] else "runs")]
_VERSIONS: list[Column] = [
    ("version", lambda v: v.id),
    ("applied", lambda v: v.created_at),
    ("by", lambda v: v.author),
    ("again", lambda v: v.restored_from),
    ("routes", lambda v: "of the file" if v.text is None else "of its own"),
    ("comment", lambda v: v.comment),
]
_TRIALS: list[Column] = [
    ("trial", lambda t: t.id),
    ("model", lambda t: t.enhancer),
    ("state", lambda t: t.state),
    ("begun", lambda t: t.started_at),
    ("by", lambda t: t.started_by),
    ("decided", lambda t: t.decided_at),
    ("by", lambda t: t.decided_by),
]
_SIDES: list[Column] = [
    ("median", lambda s: s[0].replace("_", " ")),
    ("sent model", lambda s: s[1]),
    ("on trial", lambda s: s[2]),
]
_RATES: list[Column] = [
    ("model", lambda r: r.model),
    ("modality", lambda r: r.modality),
    ("site", lambda r: r.site),
    ("approved", lambda r: r.approved),
    ("rejected", lambda r: r.rejected),
    ("no difference", lambda r: r.no_difference),
    ("approval", lambda r: f"{r.approval:.0%}"),
]


@line_app.command("status")
def line_status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Say which parts are paused."""
    with open_desk(config) as desk:
        found = desk.store.pauses.all()
    print_json(found) if json else print_table("The line", list(found.items()), _PAUSES)


@line_app.command("pause")
def line_pause(part: PartArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Pause intake, processing or sending; what runs already is finished."""
    _set_pause(part, config, paused=True)


@line_app.command("resume")
def line_resume(part: PartArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let a paused part go on."""
    _set_pause(part, config, paused=False)


def _set_pause(part: Part, config: Path, *, paused: bool) -> None:
    from dicom_node.desk import acts

    with open_desk(config) as desk:
        record = acts.set_pause(desk, part, paused=paused, actor=actor())
    console.print(f"{record.part} {'is paused' if record.paused else 'runs'}.")


@routes_app.command("show")
def routes_show(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the routes in force, as text that `apply` takes."""
    with open_desk(config) as desk:
        version, text = desk.rules.version(), desk.rules.text()
    name = "the configuration file" if version is None or version.text is None else f"version {version.id}"
    print(f"# {name}\n{text}", end="")


@routes_app.command("versions")
def routes_versions(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List the routes that were applied, newest first, with who and when."""
    with open_desk(config) as desk:
        found = desk.store.route_versions.list()
    print_json(found) if json else print_table("Versions", found, _VERSIONS)


@routes_app.command("apply")
def routes_apply(
    file: Annotated[Path, typer.Argument(help="The routes as text; - reads standard input.")],
    comment: CommentOption = "",
    expected: ExpectedOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put routes in force, at once and for every series that is not closed yet."""
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    with open_desk(config) as desk:
        seen = _seen(desk, expected)
        version = desk.rules.apply(text, author=actor(), comment=comment, expected=seen)
    console.print(f"Version {version.id} is in force.")


@routes_app.command("rollback")
def routes_rollback(
    version: Annotated[int | None, typer.Option("--to", help="An earlier version.")] = None,
    to_file: Annotated[bool, typer.Option("--to-file", help="The configuration file.")] = False,
    comment: CommentOption = "",
    expected: ExpectedOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put an earlier version, or the configuration file, in force again; this makes a new version."""
    if (version is None) != to_file:
        complain("Name either --to or --to-file.")
        raise typer.Exit(2)
    with open_desk(config) as desk:
        seen = _seen(desk, expected)
        made = desk.rules.restore(version, author=actor(), comment=comment, expected=seen)
    console.print(f"Version {made.id} is in force.")


def _seen(desk: Desk, expected: int | None) -> int | None:
    """The version that the new one follows: as said, or the one that counts now. None is the file alone."""
    if expected is not None:
        return expected or None
    latest = desk.rules.version()
    return None if latest is None else latest.id


@models_app.command("list")
def models_list(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Say which model is in use, and list every trial."""
    with open_desk(config) as desk:
        in_use, trials = desk.rules.settings().enhancement.enhancer, desk.store.shadow.trials()
    if json:
        print_json({"in_use": in_use, "trials": trials})
        return
    console.print(Text(f"In use: {in_use}", style="bold"))
    print_table("Trials", trials, _TRIALS)


@models_app.command("try")
def models_try(
    model: Annotated[str, typer.Argument(help="The enhancer's name.")], config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Run a model beside the one in use, on the same series, unsent."""
    from dicom_node.desk import shadow

    with open_desk(config) as desk:
        trial = shadow.start(desk, model, actor=actor())
    console.print(f"Trial {trial.id} of {trial.enhancer} runs.")


@models_app.command("compare")
def models_compare(
    trial: TrialArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Put both models of a trial side by side."""
    from dicom_node.desk import shadow

    with open_desk(config) as desk:
        found = shadow.compare(desk, trial)
    if json:
        print_json(found)
        return
    sides = [(name, value, found.shadow.get(name)) for name, value in found.primary.items()]
    print_table(f"Trial {found.trial.id} of {found.trial.enhancer}: {found.trial.state}", sides, _SIDES)
    console.print(f"{found.inputs} series, {found.failed} of them failed on trial.")


@models_app.command("promote")
def models_promote(trial: TrialArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make the model on trial the one in use."""
    _decide(trial, "promote", config)


@models_app.command("drop")
def models_drop(trial: TrialArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """End a trial and keep the model in use."""
    _decide(trial, "drop", config)


@models_app.command("withdraw")
def models_withdraw(trial: TrialArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take an earlier promotion back."""
    _decide(trial, "withdraw", config)


def _decide(trial: int, decision: str, config: Path) -> None:
    from dicom_node.desk import shadow

    with open_desk(config) as desk:
        record = shadow.decide(desk, trial, shadow.Decision(decision), actor=actor())
    console.print(f"Trial {record.id} of {record.enhancer} is {record.state}.")


@reviews_app.command("rates")
def reviews_rates(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Print how readers decided, by model, modality and site."""
    with open_desk(config) as desk:
        found = desk.store.reviews.rates()
    print_json(found) if json else print_table("Reviews", found, _RATES)


@reviews_app.command("export")
def reviews_export(
    output: Annotated[Path | None, typer.Option(help="A new file; else standard output.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write every review as CSV."""
    from dicom_node.desk import reviews

    with open_desk(config) as desk:
        lines = "".join(reviews.export(desk, actor=actor()))
    if output is None:
        sys.stdout.write(lines)
        return
    with output.open("x", encoding="utf-8", newline="") as file:
        file.write(lines)
    console.print(f"{lines.count(chr(10)) - 1} lines are in {output}.")
