"""The crash drill: one death at each point, a restart, and the oracle over everything at the end.

    python -m tests.drill.crash --points 60 --seed 7 --json report.json
    pytest -m drill                                     # every point of the seed's shuffle

A point is one series of 30 slices that goes through the whole line while one process, or all of them, dies
once. The scanner sends again what was not acknowledged, as scanners do; nobody else helps.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text

from dicom_node.demo.bench import is_over
from dicom_node.node import Role
from tests.drill import oracle
from tests.drill.points import (
    CHILD,
    DURABLE,
    TARGETS,
    BytePoint,
    CallPoint,
    Point,
    StepPoint,
    call_points,
    chosen,
    count_calls,
    named_steps,
)
from tests.drill.proxy import Proxy
from tests.drill.tracing import Tracer
from tests.drill.world import LIMIT_S, ROLES, Sent, World

RETURN_LIMIT_S = 30.0
CHILD_LIMIT_S = 60.0
WORLD_SIZE = 25


@dataclass
class Outcome:
    """What one point led to. `died`: the point was reached.

    `return_s`: from the restart until the receiver answers, or until the series is at the archive when another
    process had died.
    """

    point: str
    series: str
    died: bool
    return_s: float | None
    faults: list[str] = field(default_factory=list)


@dataclass
class Report:
    """A whole run."""

    seed: int
    slices: int
    points: int
    died: int
    failed: int
    return_median_s: float
    return_longest_s: float
    seconds: float
    by_target: dict[str, int]
    outcomes: list[Outcome]
    faults: list[str]


def run(
    folder: Path,
    *,
    points: int | None,
    seed: int,
    say: Callable[[str], object],
    slices: int = 30,
    minutes: float = math.inf,
    worlds: int = 1,
) -> Report:
    """Run so many points (all when None), chosen and ordered by the seed; in worlds of some 25.

    After so many minutes no further point is begun. So many worlds are at work at once: most of a point is waiting.
    """
    rng, begin = random.Random(seed), time.monotonic()
    counts = measure(folder / "clean", slices)
    every = [*call_points(counts), *named_steps(slices)]
    picked = chosen(every, points, rng)
    say(f"seed {seed}: {len(picked)} of {len(every)} points")
    until = begin + 60 * minutes
    shares = shares_of(picked)

    def one(number: int) -> tuple[list[Outcome], list[str]]:
        if time.monotonic() > until:
            return [], []
        return run_world(folder / f"world-{number}", shares[number], slices, say, until=until)

    with ThreadPoolExecutor(worlds) as pool:
        results = list(pool.map(one, range(len(shares))))
    outcomes = [outcome for done, _ in results for outcome in done]
    faults = [fault for _, wrong in results for fault in wrong]
    return report_of(outcomes, faults, seed=seed, slices=slices, seconds=time.monotonic() - begin)


def shares_of(points: list[Point]) -> list[list[Point]]:
    """The points of each world: 25, and one alone where only the first series of a node meets it."""
    alone = [point for point in points if isinstance(point, CallPoint) and point.call == "mkdir"]
    rest = [point for point in points if point not in alone]
    return [
        *(rest[start : start + WORLD_SIZE] for start in range(0, len(rest), WORLD_SIZE)),
        *([point] for point in alone),
    ]


def measure(folder: Path, slices: int) -> dict[str, Counter[str]]:
    """How many durable calls each process makes for one series, by a traced run without a death."""
    with World(folder, slices=slices) as world:
        world.start(*ROLES)
        sent = world.new_series()
        traces = {target: folder / f"{target}.trace" for target in TARGETS}
        calls = f"trace={','.join(DURABLE)}"
        # Every process has to be there first: a child that is born under a tracer belongs to its parent's trace.
        pids = {target: pid for target in TARGETS if (pid := pid_of(world, target)) is not None}
        tracers = [Tracer(pid, "-e", calls, output=traces[target]) for target, pid in pids.items()]
        world.send(sent)
        world.await_end([sent])
        for tracer in tracers:
            tracer.stop()
        return {target: count_calls(trace) for target, trace in traces.items() if trace.exists()}


def run_world(
    folder: Path,
    points: list[Point],
    slices: int,
    say: Callable[[str], object],
    *,
    return_limit_s: float = RETURN_LIMIT_S,
    until: float = math.inf,
) -> tuple[list[Outcome], list[str]]:
    """Run points one after the other in one world, then ask the oracle; clean worlds are removed.

    No point is begun after `until` (monotonic clock). Who is not back at work after `return_limit_s` has failed.
    """
    outcomes: list[Outcome] = []
    with World(folder, slices=slices) as world:
        world.start(*ROLES)
        for point in points:
            if time.monotonic() > until:
                break
            outcome = run_point(world, point, return_limit_s)
            outcomes.append(outcome)
            say(
                f"{outcome.point}: {'died' if outcome.died else 'not reached'}, "
                f"back after {outcome.return_s or 0:.1f} s {' '.join(outcome.faults)}"
            )
        try:
            world.await_end(world.series, reviving=ROLES)
            faults = oracle.judge(world)
        except TimeoutError as exc:
            faults = [f"I7 {exc}", *oracle.judge(world, restart=False)]
    for fault in faults:
        say(f"ORACLE {fault}")
        for outcome in outcomes:
            if outcome.series in fault:
                outcome.faults.append(fault)
    if not faults and not any(outcome.faults for outcome in outcomes):
        shutil.rmtree(folder)
    return outcomes, faults


def run_point(world: World, point: Point, return_limit_s: float) -> Outcome:
    """Send one series, let the death happen, start again what died, and have the series sent to its end."""
    world.start(*ROLES)
    sent = world.new_series()
    outcome = Outcome(str(point), sent.uid, died=False, return_s=None)
    receiver_alone = isinstance(point, BytePoint) or getattr(point, "target", None) == Role.RECEIVER
    try:
        if not receiver_alone:
            # One death for each series: what is still enhanced after a receiver's death must not meet this one too,
            # since a job that sees three workers die is given up, rightly.
            world.await_end(world.series[:-1], reviving=ROLES)
        outcome.died = _die(world, point, sent)
        begin = time.monotonic()
        world.start(*ROLES)
        outcome.return_s = time.monotonic() - begin
        if outcome.return_s > return_limit_s:
            outcome.faults.append(f"not back after {return_limit_s:.0f} s")
        world.wait_for(lambda: world.send(sent), "the whole series to be acknowledged")
        if not receiver_alone:
            # A signal sent with the last call of a series may be carried out only now.
            world.await_end([sent], reviving=ROLES)
            outcome.return_s = time.monotonic() - begin
    except (TimeoutError, RuntimeError) as exc:
        outcome.faults.append(str(exc))
    return outcome


def _die(world: World, point: Point, sent: Sent) -> bool:
    """Send the series with death waiting; whether it came."""
    if isinstance(point, StepPoint):
        return _die_at_step(world, point, sent)
    if isinstance(point, BytePoint):
        proxy = Proxy(world.peer.port)
        size = sum(path.stat().st_size for path in sent.paths)
        proxy.after(int(size * point.share), lambda: world.kill(Role.RECEIVER))
        world.send(sent, peer=world.peer.model_copy(update={"port": proxy.port}))
        proxy.close()
        return not world.roles[Role.RECEIVER].alive
    return _die_at_call(world, point, sent)


def _die_at_call(world: World, point: CallPoint, sent: Sent) -> bool:
    """Kill one process by strace; waits until it is dead or the series is over."""
    pid = pid_of(world, point.target)
    if pid is None:
        return False
    victim = psutil.Process(pid)
    tracer = Tracer.killing(pid, point.call, point.number, output=world.folder / "killing.trace")
    try:
        if world.send(sent) and point.target != Role.RECEIVER:
            world.wait_for(lambda: _is_dead(victim) or _is_over(world, sent), "death or the series' end")
        return _is_dead(victim)
    finally:
        tracer.stop()


def _die_at_step(world: World, point: StepPoint, sent: Sent) -> bool:
    """Kill everything when the event stands in the trail."""
    engine = create_engine(world.settings.storage.resolved_database_url)
    seen = text(
        "SELECT count(*) FROM events WHERE id > :after AND name = :name AND CAST(data AS TEXT) LIKE :fact"
    )
    with engine.connect() as connection:
        after = connection.execute(text("SELECT coalesce(max(id), 0) FROM events")).scalar() or 0
    sender = threading.Thread(target=world.send, args=(sent,))
    sender.start()
    asked = {"after": after, "name": point.event, "fact": f"%{point.fact}%"}
    deadline, reached = time.monotonic() + LIMIT_S, False
    while not reached and time.monotonic() < deadline:
        with engine.connect() as connection:
            reached = (connection.execute(seen, asked).scalar() or 0) >= point.number
        if not reached and not sender.is_alive() and _is_over(world, sent):
            break
        time.sleep(0.005)
    if reached:
        world.kill(*ROLES)
    sender.join()
    engine.dispose()
    return reached


def pid_of(world: World, target: str) -> int | None:
    """The process of a role, or the one below the worker that enhances, which the worker starts by and by."""
    if target != CHILD:
        return world.roles[Role(target)].pid
    worker = psutil.Process(world.roles[Role.WORKER].pid)
    with suppress(TimeoutError, IndexError, psutil.NoSuchProcess):
        world.wait_for(lambda: _enhancing(worker), "the worker's child", CHILD_LIMIT_S)
        return _enhancing(worker)[0].pid
    return None


def _enhancing(worker: psutil.Process) -> list[psutil.Process]:
    """The children that enhance; what is loaded starts others for a moment."""
    return [child for child in worker.children() if "dicom_node.pipeline.child" in child.cmdline()]


def _is_dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_over(world: World, sent: Sent) -> bool:
    story = world.story(sent.uid)
    return story is not None and is_over(story)


def report_of(
    outcomes: list[Outcome], faults: list[str], *, seed: int, slices: int, seconds: float
) -> Report:
    """Sum up."""
    returns = [outcome.return_s for outcome in outcomes if outcome.return_s is not None and outcome.died]
    named = sum(bool(outcome.faults) for outcome in outcomes)
    return Report(
        seed=seed,
        slices=slices,
        points=len(outcomes),
        died=sum(outcome.died for outcome in outcomes),
        failed=named or (1 if faults else 0),
        return_median_s=round(statistics.median(returns), 2) if returns else 0.0,
        return_longest_s=round(max(returns), 2) if returns else 0.0,
        seconds=round(seconds, 1),
        by_target=dict(Counter(outcome.point.split(":")[0] for outcome in outcomes if outcome.died)),
        outcomes=outcomes,
        faults=faults,
    )


def main() -> int:
    """Run as a command; exit status 1 when the oracle found something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=None, help="how many (default: all)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--slices", type=int, default=30)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no point after so many (default: no limit)"
    )
    parser.add_argument("--worlds", type=int, default=1, help="how many at once (default: 1)")
    parser.add_argument("--json", type=Path, default=None, help="where the report goes")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    report = run(
        folder,
        points=asked.points,
        seed=seed,
        say=lambda line: print(line, flush=True),
        slices=asked.slices,
        minutes=asked.minutes,
        worlds=asked.worlds,
    )
    summary = {key: value for key, value in asdict(report).items() if key not in ("outcomes",)}
    print(json.dumps(summary, indent=2))
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(report), indent=2))
    if report.failed:
        print(f"what is left lies in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
