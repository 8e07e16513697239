"""The composition root: the only place that knows every concrete class of a running process.

Three roles, each in a process of its own (`dicom_node.supervisor`). APScheduler only wakes sweepers;
what there is to do, they ask the database.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from config.names import is_loopback
from config.settings import Settings
from dicom_node.audit.recorder import Recorder
from dicom_node.audit.shipper import Shipper
from dicom_node.desk.rules import RouteBook
from dicom_node.intake.processes import serve_process, serve_receiver
from dicom_node.intake.safekeeping import KeepRequests
from dicom_node.intake.stability import StabilitySweeper
from dicom_node.intake.upkeep import Upkeep
from dicom_node.network.commitment import report_service
from dicom_node.network.safekeeping import request_service
from dicom_node.network.services import ScpService
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from dicom_node.operations import open_node_store
from dicom_node.pipeline.commitment import CommitmentReports, CommitmentRequester
from dicom_node.pipeline.delivery import DeliverySender
from dicom_node.pipeline.safekeeping import Keeper
from storage.store import Store

log = structlog.get_logger(__name__)

_STANDARD_INPUT = 0


class Role(StrEnum):
    """What one process of the node does."""

    RECEIVER = "receiver"
    WORKER = "worker"
    SENDER = "sender"
    WEB = "web"


def utc_now() -> datetime:
    """The node's wall clock: aware, UTC."""
    return datetime.now(UTC)


def run_role(role: Role, settings: Settings, config: Path | None = None) -> None:
    """Run one role until SIGTERM, SIGINT or the end of standard input.

    With the path of its configuration, the receiver may start processes of its own.
    """
    stop = _stop_event()
    structlog.contextvars.bind_contextvars(role=str(role))
    try:
        _run(role, settings, stop, config)
    except Exception as exc:
        # The edge of this process: one line in the log; the supervisor starts it again after a while.
        log.critical(events.PROCESS_FAILED, **describe_error(exc))
        raise SystemExit(1) from exc


def run_receiver_process(settings: Settings, descriptor: int, run_id: str) -> None:
    """Serve the connections that a receiver hands over, until its end of the channel is closed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the parent says when
    structlog.contextvars.bind_contextvars(role=str(Role.RECEIVER))
    try:
        with open_node_store(settings) as store:
            serve_process(store, settings, descriptor, run_id=run_id, services=_services(store, settings))
    except Exception as exc:
        # The edge of this process: one line in the log; the parent starts it again after a while.
        log.critical(events.PROCESS_FAILED, **describe_error(exc))
        raise SystemExit(1) from exc


def _run(role: Role, settings: Settings, stop: threading.Event, config: Path | None) -> None:
    """Open the store and play the role."""
    with open_node_store(settings) as store:
        play: dict[Role, Callable[[Store, Settings, threading.Event], None]] = {
            Role.RECEIVER: partial(run_receiver, config=config),
            Role.WORKER: run_worker,
            Role.SENDER: run_sender,
            Role.WEB: run_web,
        }
        play[role](store, settings, stop)


def run_receiver(
    store: Store, settings: Settings, stop: threading.Event, *, config: Path | None = None
) -> None:
    """Answer associations; on stop, refuse new ones and let running ones finish within the drain limit."""
    serve_receiver(
        store,
        settings,
        stop,
        new_run_id=lambda: _run_id(settings),
        config=config,
        services=_services(store, settings),
    )


def _services(store: Store, settings: Settings) -> tuple[ScpService, ...]:
    """What the acceptor offers beside storage: destinations report what they keep, senders ask us to keep."""
    return (
        report_service(CommitmentReports(store, settings).heard),
        request_service(KeepRequests(store, settings).hear),
    )


def run_worker(store: Store, settings: Settings, stop: threading.Event) -> None:
    """Close quiet series, recover abandoned jobs and run enhancements."""
    # Loaded here: receiver and sender stay small without what computes.
    from dicom_node.pipeline.enhance import EnhanceWorker
    from dicom_node.pipeline.shadow import ShadowRunner

    sweeper = StabilitySweeper(store, settings, current=RouteBook(store, settings).settings)
    upkeep = Upkeep(store, settings, stopping=stop.is_set)
    workers = [
        EnhanceWorker(store, settings, name=_worker_name(f"worker-{number}"), now=store.clock)
        for number in range(settings.enhancement.workers)
    ]
    shadow = ShadowRunner(store, settings, now=utc_now)
    for worker in workers:
        worker.warm_up()
    with _timers(stop) as every:
        every(1.0, "close-series", sweeper.sweep)
        every(1.0, "follow-clock", store.clock.settle)
        every(30.0, "watch", lambda: watch(store))
        every(10.0, "watch-disk", upkeep.watch_disk)
        every(300.0, "delete-old", upkeep.delete_old)
        every(60.0, "read-again", upkeep.read_again)
        every(5.0, "recover-jobs", lambda: store.jobs.requeue_expired(settings.enhancement.attempts))
        # Younger files may belong to an object that is being received right now.
        every(600.0, "sweep-orphans", lambda: store.sweep_orphans(timedelta(hours=1)))
        for number, worker in enumerate(workers):
            every(0.5, f"enhance-{number}", worker.drain)
        every(5.0, "shadow", shadow.run_once)
        stop.wait()
        for worker in workers:
            worker.stop()
        shadow.stop()
    for worker in workers:
        worker.close()
    shadow.close()


def run_sender(store: Store, settings: Settings, stop: threading.Event) -> None:
    """Deliver series and ask for their commitment, answer senders that ask for ours, and ship the audit records."""
    sender = DeliverySender(store, settings, name=_worker_name("sender"), now=store.clock)
    requester = CommitmentRequester(store, settings, now=store.clock)
    keeper = Keeper(store, settings)
    recorder, shipper = Recorder(store, settings), Shipper(store, settings.audit)
    with _timers(stop) as every:
        every(0.5, "deliver", sender.dispatch)
        every(1.0, "commitment", requester.sweep)
        every(1.0, "safekeeping", keeper.sweep)
        # In two processes, because a process cannot tell that it is stuck itself.
        every(30.0, "watch", lambda: watch(store))
        every(1.0, "record-audit", recorder.record)
        every(1.0, "ship-audit", shipper.ship)
        stop.wait()
    deadline = time.monotonic() + settings.node.drain.total_seconds() * 0.8
    sender.stop(deadline - time.monotonic())
    requester.stop(max(deadline - time.monotonic(), 0.0))
    keeper.stop(max(deadline - time.monotonic(), 0.0))


def run_web(store: Store, settings: Settings, stop: threading.Event) -> None:
    """Serve page and API; while there is no user, leave the first run's secret in the storage directory."""
    # Loaded here: the other processes have no use for a web framework.
    from dicom_node.api.server import bind, serve
    from dicom_node.desk.desk import open_desk
    from dicom_node.web.site import build_site

    if not is_loopback(settings.api.host) and not _await_first_user(store, stop):
        return
    listener = bind(settings.api, stop)
    if listener is None:
        return
    desk = open_desk(store, settings)
    secret = desk.access.prepare_first_run(settings.storage.directory)
    if secret is not None:
        log.warning(events.FIRST_RUN, file=str(secret))
    with _timers(stop) as every:
        every(30.0, "alerts", desk.watch.sweep)
        every(3600.0, "forget", desk.forget_old)
        serve(build_site(desk), settings.api, listener, stop)


def _await_first_user(store: Store, stop: threading.Event) -> bool:
    """Keep the page shut to other machines while nobody could sign in; False when stopped meanwhile."""
    told = False
    while not stop.is_set():
        if store.access.any_user():
            return True
        if not told:
            log.error(events.PAGE_WITHOUT_USERS, remedy="dicom-node users add NAME --role admin")
            told = True
        stop.wait(2.0)
    return False


def watch(store: Store) -> None:
    """Raise an alarm for whatever stays in a state for too long."""
    for item in store.watchdog.watch():
        log.error(events.OVERDUE, subject=item.subject, since=item.since.isoformat())


@contextmanager
def _timers(stop: threading.Event) -> Iterator[Callable[[float, str, Callable[[], object]], None]]:
    """A scheduler whose jobs never overlap themselves and never die of an error."""
    scheduler = BackgroundScheduler(timezone=UTC)

    def every(seconds: float, name: str, sweep: Callable[[], object]) -> None:
        def wake() -> None:
            if stop.is_set():
                return
            try:
                sweep()
            except Exception as exc:
                log.error(events.SWEEP_FAILED, sweep=name, **describe_error(exc))

        # Coalesced and never doubled: a sweep that takes long simply delays its next wake-up.
        limits = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        scheduler.add_job(wake, "interval", seconds=seconds, id=name, next_run_time=utc_now(), **limits)

    scheduler.start()
    try:
        yield every
    finally:
        scheduler.shutdown(wait=True)


def _run_id(settings: Settings) -> str:
    """This node, the same after a restart and another than every node beside it, and this run of it."""
    node = f"{socket.gethostname()}:{settings.node.host}:{settings.node.port}"
    return f"{hashlib.sha256(node.encode()).hexdigest()[:16]}/{uuid.uuid4().hex}"


def _worker_name(kind: str) -> str:
    """Who holds a claim: readable in the job log, unique per process start."""
    return f"{kind}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


def _stop_event() -> threading.Event:
    """Set by SIGTERM, SIGINT or the end of standard input (the supervisor is gone)."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def watch() -> None:
        # Not through sys.stdin: its lock, held by this thread for ever, would break the interpreter's exit.
        while os.read(_STANDARD_INPUT, 4096):
            pass
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    return stop
