"""Where the node can die: at each durable call of each of its processes, and at each named step of a series."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dicom_node.node import Role
from storage.trail import TrailEvent

# What makes something last, or tells another side that it does.
DURABLE = (
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "pwrite64",
    "pwritev",
    "write",
    "writev",
    "sendto",
    "sendmsg",
)
CHILD = "child"
"""The process below the worker that enhances."""
TARGETS = (str(Role.RECEIVER), str(Role.WORKER), CHILD, str(Role.SENDER))


@dataclass(frozen=True, order=True)
class CallPoint:
    """The process dies when one of its threads begins its `number`-th `call` after the series has begun."""

    target: str
    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.target}:{self.call}:{self.number}"


@dataclass(frozen=True, order=True)
class StepPoint:
    """Everything dies when the `number`-th event of this name (and fact) stands in the trail."""

    event: str
    number: int
    fact: str = ""

    def __str__(self) -> str:
        return f"step:{self.event}{'=' + self.fact if self.fact else ''}:{self.number}"


@dataclass(frozen=True, order=True)
class BytePoint:
    """The receiver dies when it was sent `share` of the bytes of the series."""

    share: float

    def __str__(self) -> str:
        return f"bytes:{self.share:.3f}"


Point = CallPoint | StepPoint | BytePoint


def named_steps(slices: int) -> list[Point]:
    """Every named step from the first byte to the last delivery."""
    some = sorted({1, slices // 2, slices})
    steps: list[Point] = [BytePoint(share) for share in (0.001, 0.25, 0.52, 0.999)]
    steps += [StepPoint(TrailEvent.ASSOCIATION_OPENED, 1)]
    steps += [StepPoint(TrailEvent.INSTANCE_STORED, number) for number in some]
    steps += [
        StepPoint(TrailEvent.ASSOCIATION_CLOSED, 1),
        StepPoint(TrailEvent.SERIES_CLOSED, 1),
        StepPoint(TrailEvent.JOB_ENQUEUED, 1),
        StepPoint(TrailEvent.JOB_CLAIMED, 1),
    ]
    steps += [
        StepPoint(TrailEvent.JOB_STAGE, 1, fact) for fact in ("READ", "ENHANCE", "GUARD", "DERIVE", "VERIFY")
    ]
    steps += [StepPoint(TrailEvent.MANIFEST_COMMITTED, 1), StepPoint(TrailEvent.JOB_CLAIMED, 2)]
    steps += [StepPoint(TrailEvent.DELIVERY_INSTANCE, number) for number in some]
    return [*steps, StepPoint(TrailEvent.JOB_SUCCEEDED, 2)]


def call_points(counts: dict[str, Counter[str]]) -> list[Point]:
    """One point for each durable call that a clean run made; `counts` as `count_calls` gives them."""
    return [
        CallPoint(target, call, number)
        for target, calls in counts.items()
        for call, most in sorted(calls.items())
        for number in range(1, most + 1)
    ]


def count_calls(trace: Path) -> Counter[str]:
    """How many calls of each kind the busiest thread made; strace counts for each thread by itself."""
    by_thread: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        if match := re.match(r"^(\d+)\s+(\w+)\(", line):
            by_thread[match[1], match[2]] += 1
    most: Counter[str] = Counter()
    for (_, call), count in by_thread.items():
        most[call] = max(most[call], count)
    return Counter({call: count for call, count in most.items() if call in DURABLE})


def chosen(points: list[Point], number: int | None, rng: random.Random) -> list[Point]:
    """All of them shuffled, or so many of them, each kind of target and call as often as it can be."""
    shuffled = rng.sample(points, len(points))
    if number is None or number >= len(points):
        return shuffled
    kinds: dict[str, list[Point]] = {}
    for point in shuffled:
        kinds.setdefault(str(point).rsplit(":", 1)[0], []).append(point)
    picked: list[Point] = []
    while len(picked) < number:
        for group in kinds.values():
            if group and len(picked) < number:
                picked.append(group.pop())
    return picked
