"""A node running in processes of its own, on loopback: what the demo and the acceptance tests drive."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from config.sections import Peer
from config.settings import Settings, load_settings
from dicom_node.errors import NodeError, PeerError
from dicom_node.network import scu
from dicom_node.node import Role
from dicom_node.observability import events
from dicom_node.operations import Operations, SeriesStory, open_node_store
from storage.errors import NotFoundError
from storage.states import JobState, SeriesState

T = TypeVar("T")

_OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED})


class BenchError(NodeError):
    """The node did not do within its time what it was started for."""


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningNode:
    """`dicom-node serve` on a configuration file; its log goes to node.log beside the file."""

    def __init__(self, config: Path, *, environ: dict[str, str] | None = None) -> None:
        self.config = config
        self.settings: Settings = load_settings(config)
        self.log_path = config.parent / "node.log"
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def peer(self) -> Peer:
        """The node, as a scanner named SCANNER sees it."""
        section = self.settings.node
        return Peer(
            name="node",
            ae_title=section.ae_titles[0],
            host=section.host,
            port=section.port,
            calling_ae_title="SCANNER",
        )

    def start(self) -> None:
        """Start the node and wait until it answers a C-ECHO."""
        self._process = self._launch()
        # Ten seconds on a quiet machine; a busy one is no reason to call a node dead.
        self.wait_for(self.answers, timedelta(seconds=180), "a C-ECHO answer")

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start `dicom-node serve` in a new interpreter."""
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config)],
                stderr=log,
                env=self._environ,
            )

    def stop(self) -> int:
        """Drain with SIGTERM as an administrator would; returns the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code

    def kill(self) -> None:
        """SIGKILL the supervisor and every process of the node, as a power cut would."""
        if self._process is None:
            return
        pids = [pid for role in Role if (pid := self.pid_of(role)) is not None]
        self._process.kill()
        self._process.wait()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process = None

    def kill_role(self, role: Role) -> int:
        """SIGKILL one process of the node; returns the pid that died."""
        pid = self.pid_of(role)
        if pid is None:
            raise BenchError(f"no {role} is running")
        os.kill(pid, signal.SIGKILL)
        return pid

    def pid_of(self, role: Role) -> int | None:
        """The pid under which a role was last started."""
        pid = None
        for event in self.events(events.PROCESS_STARTED):
            if event["role"] == str(role):
                pid = int(str(event["pid"]))
        return pid

    def events(self, name: str) -> Iterator[dict[str, object]]:
        """The log's events of one name, oldest first."""
        for line in self.log_path.read_text(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                event = json.loads(line)
                if event.get("event") == name:
                    yield event

    @contextmanager
    def operations(self) -> Iterator[Operations]:
        """The operator's verbs over the node's store."""
        with open_node_store(self.settings) as store:
            yield Operations(store, self.settings)

    def story(self, series_instance_uid: str) -> SeriesStory | None:
        """What happened to a series so far; None when the node has not seen it."""
        with self.operations() as operations:
            try:
                return operations.series_story(series_instance_uid)
            except NotFoundError:
                return None

    def await_end(self, series_instance_uid: str, limit: timedelta) -> SeriesStory:
        """Wait until nothing more will happen to a series, and tell its story."""

        def ended() -> SeriesStory | None:
            story = self.story(series_instance_uid)
            return story if story is not None and is_over(story) else None

        return self.wait_for(ended, limit, f"the end of series {series_instance_uid}")

    def wait_for(self, question: Callable[[], T | None], limit: timedelta, what: str) -> T:
        """Ask until the answer is neither None nor False; raises `BenchError` when the time is over."""
        deadline = time.monotonic() + limit.total_seconds()
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise BenchError(f"the node ended with exit status {self._process.returncode}")
            answer = question()
            if answer is not None and answer is not False:
                return answer
            time.sleep(0.2)
        raise BenchError(f"waited {limit.total_seconds():.0f} s in vain for {what}")

    def answers(self) -> bool:
        """Whether the node answers a C-ECHO."""
        try:
            return scu.echo(self.peer).status == 0
        except PeerError:
            return False


def is_over(story: SeriesStory) -> bool:
    """Whether nothing more will happen to a series by itself."""
    if story.series.state in (SeriesState.SKIPPED, SeriesState.HELD):
        return True
    return (
        story.series.state is SeriesState.STABLE
        and bool(story.jobs)
        and all(job.state in _OVER for job in story.jobs)
    )
