"""`dicom-node` as a person types it, without the seconds that importing it takes each time.

One server per test process loads what the commands and the roles load; each run is forked from it, so that it has
streams, a folder, an environment and an end of its own. What has to hold of a new interpreter is asked of one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dicom_node.demo.bench import RunningNode

NURSERY = multiprocessing.get_context("forkserver")
# `__main__` is named so that it is not imported anew by each process.
NURSERY.set_forkserver_preload(["__main__", "dicom_node.cli.main", "dicom_node.supervisor", __name__])


def dicom_node(
    *words: object, cwd: Path | None = None, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; raises `TimeoutExpired` when that takes longer than `timeout` seconds."""
    command = ["dicom-node", *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _Forked(command, cwd or Path.cwd(), out, err, os.environ)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, status, out.read_text(), err.read_text())


class ForkedNode(RunningNode):
    """A running node whose supervisor is forked as well."""

    def _launch(self) -> _Forked:
        command = ["dicom-node", "serve", "--config", str(self.config)]
        return _Forked(command, Path.cwd(), None, self.log_path, self._environ)


class _Forked:
    """A command at work, with what the tests use of `subprocess.Popen`."""

    def __init__(
        self, command: Sequence[str], cwd: Path, out: Path | None, err: Path, environ: Mapping[str, str]
    ) -> None:
        self._command = command
        self._process = NURSERY.Process(target=_run, args=(command, cwd, out, err, dict(environ)))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(command: Sequence[str], cwd: Path, out: Path | None, err: Path, environ: Mapping[str, str]) -> None:
    """In the new process: take the caller's place, then do what the command's entry point does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    for number, path in ((1, out), (2, err)):
        if path is not None:
            with path.open("ab") as file:
                os.dup2(file.fileno(), number)
    sys.argv = list(command)
    from dicom_node.cli.main import main

    main()
