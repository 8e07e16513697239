"""Several associations to one peer at once, each in a process of its own, because threads share one interpreter.

The processes live as long as the pool and are told what to send over a pipe; answers come back within a
tenth of a second. A process that dies takes nothing along: what it was not answered for is not reported.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from config.sections import Peer
from dicom_node.errors import AssociationLostError, PeerError
from dicom_node.network.stored_file import Outgoing
from dicom_node.network.transmission import Answer, transmit

_END = "end"
_ANSWERS = "answers"
_TELL_S = 0.1  # a message for each answer would cost as much as sending a small instance


@dataclass(frozen=True)
class ShareReport:
    """One association of a pool: its wall clock and processor seconds, and why it ended early, if it did."""

    seconds: float
    cpu_s: float
    trouble: str | None = None


class SenderPool:
    """A fixed number of sender processes; use it as a context manager."""

    def __init__(self, associations: int) -> None:
        """Start the processes; they are ready when this returns."""
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection[Any, Any]] = []
        self._processes: list[BaseProcess] = []
        for _ in range(associations):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> SenderPool:
        return self

    def __exit__(self, *_exc: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()

    def send(
        self, peer: Peer, files: Sequence[Outgoing], heard: Callable[[Answer], object]
    ) -> list[ShareReport]:
        """Send `files`, every n-th over the same association; `heard` as for `transmit`, in no fixed order.

        One report for each association. An association in trouble leaves its own instances unanswered;
        the others go on.
        """
        count = len(self._pipes)
        shares = [list(enumerate(files))[number::count] for number in range(count)]
        for pipe, share in zip(self._pipes, shares, strict=True):
            pipe.send((peer, share))
        reports: dict[int, ShareReport] = {}
        numbers = {id(pipe): number for number, pipe in enumerate(self._pipes)}
        while len(reports) < count:
            open_pipes = [pipe for pipe in self._pipes if numbers[id(pipe)] not in reports]
            for ready in wait(open_pipes):
                number = numbers[id(ready)]
                report = _read(self._pipes[number], files, heard)
                if report is not None:
                    reports[number] = report
        return [reports[number] for number in range(count)]


def _read(
    pipe: Connection[Any, Any], files: Sequence[Outgoing], heard: Callable[[Answer], object]
) -> ShareReport | None:
    """Take one message of a process; its report when that was the last one."""
    try:
        kind, content = pipe.recv()
    except EOFError:
        return ShareReport(0.0, 0.0, "The sender process died.")
    if kind == _END:
        return ShareReport(*content)
    for position, status, comment, reason in content:
        heard(Answer(position, files[position], status, comment, reason))
    return None


def _serve(pipe: Connection[Any, Any]) -> None:
    """Send share after share until the pipe is closed."""
    pipe.send(True)
    while True:
        try:
            peer, share = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send((_END, _send_share(pipe, peer, share)))


def _send_share(
    pipe: Connection[Any, Any], peer: Peer, share: list[tuple[int, Outgoing]]
) -> tuple[float, float, str | None]:
    """Send one share and tell of each answer; seconds, processor seconds and trouble."""
    begin, cpu = time.perf_counter(), time.process_time()
    trouble: str | None = None

    answers: list[tuple[int, int | None, str, object]] = []
    told = begin

    def heard(answer: Answer) -> None:
        nonlocal told
        answers.append((share[answer.position][0], answer.status, answer.comment, answer.reason))
        if time.perf_counter() - told > _TELL_S:
            told = time.perf_counter()
            pipe.send((_ANSWERS, answers))
            answers.clear()

    try:
        transmit(peer, [item for _, item in share], heard)
    except PeerError as exc:
        trouble = exc.detail or AssociationLostError.__name__
    pipe.send((_ANSWERS, answers))
    return time.perf_counter() - begin, time.process_time() - cpu, trouble
