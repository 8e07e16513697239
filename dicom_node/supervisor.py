"""`dicom-node serve`: receiver, worker and sender as processes of their own, kept alive and drained.

Separate processes, so that a decoder that eats all memory cannot take the receiver along and a busy
interpreter cannot slow a C-STORE answer. A child that ends unasked is started again with growing
waits. Children watch their standard input: when the supervisor dies, however it dies, they end too.
The supervisor itself stays a single thread without open connections, because its children are forks.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType

import structlog

from config.settings import load_for_start
from dicom_node.audit.recorder import Recorder
from dicom_node.audit.shipper import Shipper
from dicom_node.doctor.unsafe import refuse_unsafe
from dicom_node.node import Role
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from dicom_node.operations import check_enhancers, local_account, open_node_store
from dicom_node.role_process import RoleProcess
from storage.errors import StorageError
from storage.node_lock import NodeLock

log = structlog.get_logger(__name__)

_POLL_S = 0.2
_STEADY_S = 60.0
_LONGEST_WAIT_S = 30.0


@dataclass
class Child:
    """One role's process and when it may be started again."""

    role: Role
    process: RoleProcess | None = None
    started_at: float = 0.0
    failures: int = 0
    not_before: float = field(default=0.0)


class Supervisor:
    """Keeps one process per role running until `stop`, then drains them in the order of the line."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._settings = load_for_start(config)
        check_enhancers(self._settings)
        refuse_unsafe(self._settings)
        self._children = [Child(role) for role in Role if role is not Role.WEB or self._settings.api.enabled]
        self._stop = threading.Event()

    def run(self) -> int:
        """Run until `stop`; returns 0 after a clean drain, 1 when a process had to be killed.

        Raises `StoreInUseError` where another node runs on the same SQLite file.
        """
        lock = NodeLock(self._settings.storage.resolved_database_url)
        try:
            return self._run()
        finally:
            for child in self._children:
                if child.process is not None:
                    child.process.close()
            lock.release()

    def _run(self) -> int:
        """Tend the processes until `stop`, then drain them."""
        # Migrations run once, here, before three processes open the database.
        self._note(events.NODE_STARTED)
        log.info(
            events.NODE_STARTED, port=self._settings.node.port, ae_titles=list(self._settings.node.ae_titles)
        )
        # What is loaded by now is shared with the children, as long as no collection touches it.
        gc.collect()
        gc.freeze()
        while not self._stop.is_set():
            for child in self._children:
                self._tend(child)
            self._stop.wait(_POLL_S)
        return self._drain(self._settings.node.drain)

    def stop(self) -> None:
        """Ask `run` to drain and return."""
        self._stop.set()

    def install_signal_handlers(self) -> None:
        """Drain on SIGTERM and SIGINT."""

        def handle(_signal: int, _frame: FrameType | None) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)

    def _tend(self, child: Child) -> None:
        """Start a child that is not running and whose wait is over."""
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                if now - child.started_at > _STEADY_S:
                    child.failures = 0
                return
            child.failures += 1
            wait_s = min(_LONGEST_WAIT_S, 0.5 * 2 ** (child.failures - 1))
            child.not_before = now + wait_s
            child.process.close()
            child.process = None
            log.error(events.PROCESS_EXITED, role=str(child.role), exit_status=code, restart_in_s=wait_s)
        if now >= child.not_before:
            self._start(child, now)

    def _start(self, child: Child, now: float) -> None:
        """Start one role in a process of its own; it ends when the supervisor does."""
        child.process = RoleProcess(child.role, self._config)
        child.started_at = now
        log.info(events.PROCESS_STARTED, role=str(child.role), pid=child.process.pid)

    def _drain(self, limit: timedelta) -> int:
        """Stop the roles together: intake first, within `limit`; kill what does not end."""
        log.info(events.NODE_STOPPING)
        deadline = time.monotonic() + limit.total_seconds()
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        killed = 0
        for process in running:
            if not process.ends_within(max(0.1, deadline - time.monotonic())):
                process.kill()
                killed += 1
        self._note_stop()
        log.info(events.NODE_STOPPED, killed=killed)
        return 1 if killed else 0

    def _note(self, event: str) -> None:
        """Add to the trail that the node starts or has stopped; the first call brings the schema up to date."""
        with open_node_store(self._settings) as store:
            store.trail.append(event, data={"actor": f"account:{local_account()}"})

    def _note_stop(self) -> None:
        """Note the stop and, since nobody else is left to do it, record and send it; what fails waits."""
        try:
            self._note(events.NODE_STOPPED)
            with open_node_store(self._settings) as store:
                Recorder(store, self._settings).record()
                Shipper(store, self._settings.audit).ship()
        except StorageError as exc:
            log.warning(events.AUDIT_NOT_SENT, **describe_error(exc))
