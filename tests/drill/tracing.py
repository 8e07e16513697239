"""strace as a tool: attach to a running process, kill it at its n-th call of a kind, or write down what it does."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ATTACH_LIMIT_S = 60.0


class Tracer:
    """strace on every thread of a process; ends with it, or when told to."""

    def __init__(self, pid: int, *options: str, output: Path) -> None:
        self._messages = output.with_suffix(".messages")
        with self._messages.open("wb") as messages:
            self._process = subprocess.Popen(
                ["strace", "-f", "-o", str(output), *options, "-p", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
            )
        deadline = time.monotonic() + ATTACH_LIMIT_S
        while not _all_traced(pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"strace does not attach: {self._messages.read_text()[:300]}")
            time.sleep(0.02)

    @classmethod
    def killing(cls, pid: int, call: str, number: int, *, output: Path) -> Tracer:
        """Send SIGKILL to the process when one of its threads begins its `number`-th `call` from now on."""
        return cls(
            pid, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}", output=output
        )

    def stop(self) -> None:
        """Detach, if the process is still there."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _all_traced(pid: int) -> bool:
    """Whether every thread of the process has a tracer."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            if "TracerPid:\t0\n" in (task / "status").read_text():
                return False
    return True


@dataclass(frozen=True)
class Call:
    """One system call of a trace. `begun` and `done` are positions in the trace's order."""

    name: str
    arguments: str
    result: str
    begun: int
    done: int

    @property
    def succeeded(self) -> bool:
        """Whether it did what was asked."""
        return not self.result.startswith(("-1", "?"))


_WHOLE = re.compile(r"^(?P<pid>\d+)\s+(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>.*)$")
_BEGUN = re.compile(r"^(?P<pid>\d+)\s+(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)\)\s+= (?P<result>.*)$")


def calls_of(trace: Path) -> Iterator[Call]:
    """The calls of a trace in the order in which they were done; a call that never ended is left out."""
    open_calls: dict[tuple[str, str], tuple[int, str]] = {}
    for position, line in enumerate(trace.read_text(errors="replace").splitlines()):
        if whole := _WHOLE.match(line):
            yield Call(whole["name"], whole["arguments"], whole["result"], position, position)
        elif begun := _BEGUN.match(line):
            open_calls[begun["pid"], begun["name"]] = position, begun["arguments"]
        elif resumed := _RESUMED.match(line):
            start, arguments = open_calls.pop((resumed["pid"], resumed["name"]), (position, ""))
            yield Call(resumed["name"], arguments + resumed["rest"], resumed["result"], start, position)
