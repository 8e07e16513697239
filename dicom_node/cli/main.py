"""`dicom-node`: the commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from config.errors import ConfigError
from dicom_node import __version__
from dicom_node.cli import (
    alarms,
    audit,
    bench,
    bench_desk,
    bench_read,
    bench_receive,
    bench_send,
    check,
    deciding,
    doctor,
    documents,
    enhance,
    health,
    people,
    records,
    retention,
    run,
    transfer,
)
from dicom_node.cli.render import complain
from dicom_node.errors import NodeError
from dicom_node.observability.logs import describe_error
from engine.errors import EngineError
from storage.errors import StorageError

app = typer.Typer(
    name="dicom-node",
    help="Receives CT and MR series, removes noise in 3D and returns a derived series with full provenance.\n\n"
    "Research use only. Not a cleared medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(check.config_app, name="config")
app.add_typer(check.routes_app, name="routes")
app.add_typer(records.series_app, name="series")
app.add_typer(records.jobs_app, name="jobs")
app.add_typer(records.deliveries_app, name="deliveries")
app.add_typer(audit.audit_app, name="audit")
app.add_typer(people.users_app, name="users")
app.add_typer(people.tokens_app, name="tokens")
app.add_typer(run.db_app, name="db")
app.add_typer(alarms.alarms_app, name="alarms")
app.add_typer(deciding.line_app, name="line")
app.add_typer(deciding.models_app, name="models")
app.add_typer(deciding.reviews_app, name="reviews")
app.add_typer(retention.retention_app, name="retention")
bench.bench_app.command("read")(bench_read.read)
bench.bench_app.command("send")(bench_send.send)
bench.bench_app.command("receive")(bench_receive.receive)
bench.bench_app.command("desk")(bench_desk.desk)
app.add_typer(bench.bench_app, name="bench")
app.command()(run.serve)
app.command()(run.init)
app.command(hidden=True)(run.role)
app.command("receiver-process", hidden=True)(run.receiver_process)
app.command()(transfer.echo)
app.command()(transfer.send)
app.command()(check.verify)
app.command()(doctor.doctor)
app.command()(health.health)
app.command()(enhance.enhance)
app.command()(documents.conformance)
app.command()(documents.reasons)


@app.command()
def demo(
    source: Annotated[
        Path | None,
        typer.Option("--input", help="A folder with your own DICOM series instead of the phantom."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where before_after.png is written.")] = Path(
        "before_after.png"
    ),
    keep: Annotated[
        Path | None, typer.Option(help="Keep everything the demo wrote in this new folder.")
    ] = None,
) -> None:
    """Run the whole line once on this machine: send a noisy series, get a derived one back, verify it."""
    from dicom_node.demo.demo import run_demo

    raise typer.Exit(run_demo(source=source, picture=output, keep=keep))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"dicom-node {__version__}")


def main() -> None:
    """Run the command line; our own errors become one clear message and exit status 2."""
    try:
        app()
    except ConfigError as exc:
        complain(
            f"The configuration {exc.source} is not usable.", *(str(problem) for problem in exc.problems)
        )
        sys.exit(2)
    except (NodeError, StorageError, EngineError) as exc:
        complain(str(exc))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as exc:
        facts = describe_error(exc)
        complain(f"Unexpected error {facts['error']}; please report these lines.", *facts["frames"])
        sys.exit(70)
