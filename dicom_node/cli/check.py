"""Commands that check before something runs, or after it ran: config check, routes test, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from config.settings import load_for_start
from dicom_node.cli.render import console, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, settings_of
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.series import verify_source
from dicom_node.operations import RouteTest, check_enhancers, dicom_files, test_routes

config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
routes_app = typer.Typer(help="The routing rules.", no_args_is_help=True)


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(help="The file to check.")] = DEFAULT_CONFIG) -> None:
    """Check a configuration file; every problem is listed with its key and line."""
    settings = load_for_start(file)
    check_enhancers(settings)
    console.print(
        f"{file} is usable: {len(settings.peers)} peers, {len(settings.routes)} routes, "
        f"listening as {', '.join(settings.node.ae_titles)} on {settings.node.host}:{settings.node.port}."
    )


@routes_app.command("test")
def routes_test(
    folder: Annotated[Path, typer.Argument(help="A folder with DICOM files.")],
    config: ConfigOption = DEFAULT_CONFIG,
    calling_ae: Annotated[str, typer.Option(help="The AE title the series would come from.")] = "ANY",
    called_ae: Annotated[str | None, typer.Option(help="Our AE title it would be sent to.")] = None,
    json: JsonOption = False,
) -> None:
    """Say for each series in a folder which route matches and why the others do not."""
    settings = settings_of(config)
    tests = test_routes(
        settings, folder, calling_ae=calling_ae, called_ae=called_ae or settings.node.ae_titles[0]
    )
    if json:
        print_json([_as_plain(test) for test in tests])
        return
    for test in tests:
        route = test.choice.route
        answer = f"route {route.name} ({route.action})" if route else "no route matches"
        head = f"{test.summary.modality} {test.summary.slice_count} instances: {answer}"
        console.print(Text(f"{test.series_instance_uid}", style="bold"))
        console.print(Text(f"  {head}", style="green" if route else "yellow"))
        for name, clause in test.choice.rejected:
            console.print(Text(f"  not {name}: {clause}", style="dim"))


def _as_plain(test: RouteTest) -> dict[str, object]:
    """JSON form of one series' answer."""
    route = test.choice.route
    return {
        "series_instance_uid": test.series_instance_uid,
        "modality": test.summary.modality,
        "instances": test.summary.slice_count,
        "route": route.name if route else None,
        "action": route.action if route else None,
        "rejected": [{"route": name, "clause": clause} for name, clause in test.choice.rejected],
    }


def verify(
    source: Annotated[Path, typer.Argument(help="Folder of the source series.")],
    derived: Annotated[Path, typer.Argument(help="Folder of the derived series.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Read the derivation policy from here.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a derived series against its source, assertion by assertion; exit status 1 when one fails."""
    policy = (
        DerivationPolicy(**settings_of(config).derivation.model_dump(mode="json"))
        if config
        else DerivationPolicy()
    )
    report = verify_source(dicom_files(source), dicom_files(derived), policy=policy)
    if json:
        print_json(list(report.checks))
    else:
        print_table(
            "Assertions",
            report.checks,
            [
                ("#", lambda check: check.number),
                ("result", lambda check: "PASS" if check.passed else "FAIL"),
                ("assertion", lambda check: check.title),
                ("detail", lambda check: check.detail),
            ],
        )
    raise typer.Exit(0 if report.passed else 1)
