"""Commands that read and steer what the node has done: series, jobs, deliveries."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from dicom_node.cli.render import Column, complain, console, print_facts, print_json, print_table
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption, LimitOption, actor, operations
from dicom_node.operations import delivery_summary, plain
from storage.states import JobState, SeriesState

series_app = typer.Typer(help="What came in.", no_args_is_help=True)
jobs_app = typer.Typer(help="What is to be done, is done, or failed.", no_args_is_help=True)
deliveries_app = typer.Typer(help="What went out, instance by instance.", no_args_is_help=True)

SeriesKey = Annotated[str, typer.Argument(help="The series' number, or its Series Instance UID.")]
JobId = Annotated[int, typer.Argument(help="The job's number.")]

_SERIES: list[Column] = [
    ("id", lambda s: s.id),
    ("state", lambda s: s.state),
    ("modality", lambda s: s.modality),
    ("instances", lambda s: s.instance_count),
    ("gen", lambda s: s.generation),
    ("from", lambda s: s.calling_ae),
    ("route", lambda s: s.route),
    ("reason", lambda s: s.reason),
    ("last received", lambda s: s.last_received_at),
]
JOB_COLUMNS: list[Column] = [
    ("id", lambda j: j.id),
    ("kind", lambda j: j.kind),
    ("state", lambda j: j.state),
    ("stage", lambda j: j.stage),
    ("series", lambda j: j.series_id),
    ("tries", lambda j: j.attempts),
    ("created", lambda j: j.created_at),
    ("finished", lambda j: j.finished_at),
    ("to", lambda j: j.destination),
    ("reason", lambda j: j.reason),
]
_DELIVERIES: list[Column] = [
    ("id", lambda d: d.id),
    ("job", lambda d: d.job_id),
    ("destination", lambda d: d.destination),
    ("state", lambda d: d.state),
    ("status", lambda d: None if d.status is None else f"0x{d.status:04X}"),
    ("SOP instance", lambda d: d.sop_instance_uid),
    ("kept", lambda d: d.commitment),
    ("comment", lambda d: d.comment),
    ("updated", lambda d: d.updated_at),
]
_SAFEKEEPING: list[Column] = [
    ("id", lambda r: r.id),
    ("from", lambda r: r.calling_ae),
    ("state", lambda r: r.state),
    ("instances", lambda r: r.instances),
    ("not kept", lambda r: r.failed),
    ("received", lambda r: r.received_at),
    ("reported", lambda r: r.reported_at),
    ("message", lambda r: r.message),
]
_DESTINATIONS: list[Column] = [
    ("name", lambda d: d.name),
    ("circuit", lambda d: d.circuit),
    ("failures", lambda d: d.failures),
    ("held until", lambda d: d.not_before),
    ("MB/s", lambda d: None if d.bytes_per_s is None else f"{d.bytes_per_s / 1e6:.1f}"),
    ("answers in ms", lambda d: None if d.answer_s is None else f"{d.answer_s * 1000:.0f}"),
    ("last trouble", lambda d: d.last_error),
]
_COMMITMENTS: list[Column] = [
    ("id", lambda c: c.id),
    ("job", lambda c: c.job_id),
    ("destination", lambda c: c.destination),
    ("state", lambda c: c.state),
    ("ask", lambda c: c.ask),
    ("instances", lambda c: c.instances),
    ("kept", lambda c: c.committed),
    ("not kept", lambda c: c.failed),
    ("asked", lambda c: c.asked_at),
    ("message", lambda c: c.message),
]
_EVENTS: list[Column] = [
    ("at", lambda e: e.at),
    ("event", lambda e: e.name),
    ("job", lambda e: e.job_id),
    ("facts", lambda e: " ".join(f"{key}={value}" for key, value in e.data.items() if value is not None)),
]


@series_app.command("list")
def series_list(
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[
        SeriesState | None, typer.Option(help="Only series in this state.", case_sensitive=False)
    ] = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List series, newest first."""
    with operations(config) as ops:
        found = ops.series(state=state, limit=limit)
    print_json(found) if json else print_table("Series", found, _SERIES)


@series_app.command("promised")
def series_promised(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List what senders asked this node to keep, and whether they were told."""
    with operations(config) as ops:
        found = ops.safekeeping()
    print_json(found) if json else print_table("Safekeeping", found, _SAFEKEEPING)


@series_app.command("show")
def series_show(key: SeriesKey, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Tell the story of one series, and why it was not enhanced if it was not."""
    with operations(config) as ops:
        story = ops.series_story(key)
    if json:
        print_json({**plain(story), "deliveries": delivery_summary(story.deliveries)})
        return
    series = story.series
    console.print(Text(f"Series {series.id}  {series.series_instance_uid}", style="bold"))
    console.print(Text(f"  {story.verdict}"))
    console.print(
        Text(f"  state {series.state}, {series.instance_count} instances, generation {series.generation}")
    )
    console.print(
        Text(f"  from {series.calling_ae} to {series.called_ae}, route {series.route or 'none yet'}")
    )
    print_facts({"evidence": series.evidence})
    print_table("Jobs", story.jobs, JOB_COLUMNS)
    for destination, counts in delivery_summary(story.deliveries).items():
        words = ", ".join(f"{count} {state.lower()}" for state, count in counts.items())
        console.print(Text(f"  {destination}: {words}"))
    print_table("Events", _without_repeats(story.events), _EVENTS)


def _without_repeats(events: tuple[object, ...]) -> list[object]:
    """Leave out the per-instance events of a table meant to be read; --json has them all."""
    return [
        event
        for event in events
        if not getattr(event, "name", "").startswith(("instance.stored", "delivery.instance"))
    ]


@series_app.command("release")
def series_release(key: SeriesKey, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let a held series go on as it is."""
    with operations(config) as ops:
        series = ops.release_series(key, actor=actor())
    console.print(f"Series {series.id} is {series.state}.")


@series_app.command("discard")
def series_discard(key: SeriesKey, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Leave a held series alone for good; its instances stay stored."""
    with operations(config) as ops:
        series = ops.discard_series(key, actor=actor())
    console.print(f"Series {series.id} is {series.state}.")


@series_app.command("send")
def series_send(
    key: SeriesKey,
    to: Annotated[str, typer.Option("--to", help="Name of a configured peer.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Have a stored series, received or derived, delivered to a peer by the running node."""
    with operations(config) as ops:
        job = ops.send_series(key, to, actor=actor())
    console.print(f"Job {job.id} sends it to {to}.")


@series_app.command("reopen")
def series_reopen(key: SeriesKey, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Look at a closed series again, with the images that came late."""
    with operations(config) as ops:
        series = ops.reopen_series(key, actor=actor())
    console.print(f"Series {series.id} is {series.state}, generation {series.generation}.")


@jobs_app.command("list")
def jobs_list(
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[
        JobState | None, typer.Option(help="Only jobs in this state.", case_sensitive=False)
    ] = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with operations(config) as ops:
        found = ops.jobs(state=state, limit=limit)
    print_json(found) if json else print_table("Jobs", found, JOB_COLUMNS)


@jobs_app.command("show")
def jobs_show(job: JobId, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one job: its state, what it did, how long each stage took, and every event."""
    with operations(config) as ops:
        record, events = ops.job(job)
    if json:
        print_json({"job": record, "events": events})
        return
    print_table(f"Job {record.id}", [record], JOB_COLUMNS)
    if record.message:
        console.print(Text(f"  {record.message}"))
    print_facts(record.result)
    print_table("Events", events, _EVENTS)


@jobs_app.command("cancel")
def jobs_cancel(job: JobId, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Cancel a job; a running one stops at its next step."""
    with operations(config) as ops:
        record = ops.cancel_job(job, actor=actor())
    waiting = record.state is JobState.RUNNING
    console.print(f"Job {record.id} is {'being canceled' if waiting else record.state}.")


@jobs_app.command("resubmit")
def jobs_resubmit(job: JobId, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run a failed or canceled job again."""
    with operations(config) as ops:
        record = ops.resubmit_job(job, actor=actor())
    console.print(f"Job {record.id} is {record.state}.")


@deliveries_app.command("destinations")
def deliveries_destinations(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List how each destination behaves: its circuit, failures, hold and pace."""
    with operations(config) as ops:
        found = ops.destinations()
    print_json(found) if json else print_table("Destinations", found, _DESTINATIONS)


@deliveries_app.command("commitments")
def deliveries_commitments(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List what destinations were asked to keep, and what they said."""
    with operations(config) as ops:
        found = ops.commitments()
    print_json(found) if json else print_table("Storage commitment", found, _COMMITMENTS)


@deliveries_app.command("list")
def deliveries_list(
    config: ConfigOption = DEFAULT_CONFIG,
    job: Annotated[int | None, typer.Option(help="Only the deliveries of this job.")] = None,
    limit: LimitOption = 200,
    json: JsonOption = False,
) -> None:
    """List deliveries, one row per instance and destination."""
    with operations(config) as ops:
        found = ops.deliveries(job_id=job, limit=limit)
    print_json(found) if json else print_table("Deliveries", found, _DELIVERIES)


@deliveries_app.command("retry")
def deliveries_retry(
    job: Annotated[int | None, typer.Option(help="The delivery job to try now.")] = None,
    destination: Annotated[str | None, typer.Option(help="Every delivery to this peer.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Try failed or waiting deliveries now."""
    if (job is None) == (destination is None):
        complain("Name either --job or --destination.")
        raise typer.Exit(2)
    with operations(config) as ops:
        touched = ops.retry_deliveries(job_id=job, destination=destination, actor=actor())
    console.print(f"{touched} delivery jobs are due now.")
