"""The soak: a node under its supervisor at half load, with a random fault every minute, judged by the oracle.

    python -m tests.drill.soak --minutes 30 --seed 11 --json soak.json [--sqlite]

The node keeps its state in PostgreSQL (or SQLite) and its files on a small file system of its own. The scanner
and the archive sit behind proxies that can be cut and stalled. Faults: every process killed, alone and all
together; processes paused; the disk full; the database restarted; the archive gone, refusing, or cut off; the
scanner's cable cut or pulled. Whatever happens, the scanner sends again what was not acknowledged, the
supervisor starts again what ended, and nobody else helps.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import queue
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil

from config.sections import Timeouts
from dicom_node.demo.bench import BenchError, RunningNode
from dicom_node.node import Role
from tests.conftest import PostgresServer
from tests.disks import small_disk
from tests.drill import oracle
from tests.drill.proxy import Proxy
from tests.drill.world import ROLES, Sent, World

EVERY_S = 60.0
_DISK_MB = 512
_PATIENCE = timedelta(seconds=20)  # of the scanner, with a node that says nothing
_SETTLE_S = 60.0  # a process this old has loaded what it needs


@dataclass
class Fault:
    """One fault of the run. `recovered_s`: from its end to the next series at the archive."""

    at_s: float
    name: str
    lasted_s: float
    recovered_s: float | None = None


@dataclass
class Sample:
    """One look at one process."""

    at_s: float
    role: str
    pid: int
    age_s: float
    rss_mb: float
    handles: int
    threads: int


@dataclass
class Report:
    """A whole run. `growth`: MB an hour and handles between the first settled and the last look, by process."""

    seed: int
    minutes: float
    database: str
    interval_s: float
    series: int
    instances: int
    faults: list[Fault]
    wrong: list[str]
    growth: dict[str, dict[str, float]]
    recovery_median_s: float
    recovery_longest_s: float
    samples: list[Sample] = field(default_factory=list)


class Soak:
    """One run: a world with a supervised node, a load, a chain of faults, and a look every ten seconds."""

    def __init__(self, folder: Path, *, seed: int, database: PostgresServer | None) -> None:
        self._rng = random.Random(seed)
        self._database = database
        self._disk = folder / "disk"
        self.world = World(
            folder,
            database_url=database.create() if database else None,
            interrupted_factor=60,
            storage=self._disk / "node-data",
            proxied=True,
        )
        self.node = RunningNode(self.world.config)
        self.to_node = Proxy(self.world.settings.node.port)
        self._begin = time.monotonic()
        self._stopping = threading.Event()
        self._waiting: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self.faults: list[Fault] = []
        self.samples: list[Sample] = []

    # --- load

    def send_until_acknowledged(self, sent: Sent) -> None:
        """What a scanner does: again and again until all is acknowledged."""
        quick = Timeouts(association=_PATIENCE, dimse=_PATIENCE, network=_PATIENCE)
        peer = self.world.peer.model_copy(update={"port": self.to_node.port, "timeouts": quick})
        while not self.world.send(sent, peer=peer) and not self._stopping.is_set():
            time.sleep(1.0)

    def load(self, interval_s: float, until: float) -> None:
        """Send a series each `interval_s`; a series that takes longer delays the next one."""
        while time.monotonic() < until:
            begin = time.monotonic()
            self.send_until_acknowledged(self.world.new_series())
            time.sleep(max(0.0, begin + interval_s - time.monotonic()))

    def calibrate(self) -> float:
        """Seconds between two series at half load: twice what one takes when several wait."""
        burst = [self.world.new_series() for _ in range(4)]
        for sent in burst:
            self.send_until_acknowledged(sent)
        begin = time.monotonic()
        self.world.await_end(burst)
        return round(max(2.0, 2.0 * (time.monotonic() - begin) / len(burst)), 1)

    # --- faults

    def repertoire(self) -> Mapping[str, Callable[[], object]]:
        """Every fault this run can make, by name."""
        kills = {f"kill {role}": lambda role=role: self._kill(role) for role in ROLES}
        pauses = {f"pause {role}": lambda role=role: self._pause(role) for role in ROLES}
        others: dict[str, Callable[[], object]] = {
            "kill the enhancing process": self._kill_child,
            "kill everything": self._kill_everything,
            "archive down": self._archive_down,
            "archive cut off": self._cut_archive_off,
            "scanner cut off": lambda: self._cut(self.to_node),
            "scanner's cable pulled": self._pull,
        }
        if os.path.ismount(self._disk):
            others["disk full"] = self._fill_disk
        if self._database is not None:
            others["database restarted"] = self._restart_database
        return {**kills, **pauses, **others}

    def break_things(self, until: float) -> None:
        """One fault a minute, in the seed's order, no kind twice before each has had its turn."""
        repertoire = self.repertoire()
        order: list[str] = []
        while time.monotonic() + EVERY_S < until:
            time.sleep(EVERY_S)
            order = order or self._rng.sample(sorted(repertoire), len(repertoire))
            name, begin = order.pop(), time.monotonic()
            arrived = len(self.world.contents())
            repertoire[name]()
            fault = Fault(round(begin - self._begin, 1), name, round(time.monotonic() - begin, 1))
            self.faults.append(fault)
            print(f"{fault.at_s:7.1f} s  {name} ({fault.lasted_s} s)", flush=True)
            threading.Thread(target=self._time_recovery, args=(fault, arrived), daemon=True).start()

    def _time_recovery(self, fault: Fault, arrived: int) -> None:
        begin = time.monotonic()
        while len(self.world.contents()) <= arrived and not self._stopping.is_set():
            time.sleep(0.5)
        if not self._stopping.is_set():
            fault.recovered_s = round(time.monotonic() - begin, 1)

    def _pid(self, role: Role) -> int | None:
        return self.node.pid_of(role)

    def _kill(self, role: Role) -> None:
        with suppress(ProcessLookupError):
            self.node.kill_role(role)

    def _kill_child(self) -> None:
        with suppress(psutil.Error):
            for child in psutil.Process(self._pid(Role.WORKER)).children():
                child.kill()

    def _kill_everything(self) -> None:
        self.node.kill()
        self._start_node()

    def _start_node(self) -> None:
        """Start it; on a busy machine that may take longer than the minute a node is given as a rule."""
        try:
            self.node.start()
        except BenchError:
            self.node.wait_for(self.node.answers, timedelta(minutes=4), "the receiver's answer")

    def _pause(self, role: Role) -> None:
        pid = self._pid(role)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._rng.uniform(4.0, 12.0))
            os.kill(pid, signal.SIGCONT)

    def _archive_down(self) -> None:
        self.world.close_archive()
        time.sleep(self._rng.uniform(5.0, 20.0))
        self.world.open_archive()

    def _cut(self, proxy: Proxy) -> None:
        proxy.cut()
        time.sleep(self._rng.uniform(2.0, 15.0))
        proxy.mend()

    def _cut_archive_off(self) -> None:
        if self.world.to_archive is not None:
            self._cut(self.world.to_archive)

    def _pull(self) -> None:
        self.to_node.stall()
        time.sleep(self._rng.uniform(5.0, 15.0))
        self.to_node.mend()

    def _fill_disk(self) -> None:
        ballast = self._disk / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"\0" * (1 << 20))
        time.sleep(self._rng.uniform(5.0, 15.0))
        ballast.unlink(missing_ok=True)

    def _restart_database(self) -> None:
        if self._database is not None:
            self._database.stop("immediate")
            time.sleep(self._rng.uniform(1.0, 8.0))
            self._database.start()

    # --- looking

    def look(self) -> None:
        """Note memory, handles and threads of each process every ten seconds."""
        while not self._stopping.wait(10.0):
            for role in ROLES:
                with suppress(psutil.Error, TypeError):
                    process = psutil.Process(self._pid(role))
                    self.samples.append(
                        Sample(
                            at_s=round(time.monotonic() - self._begin, 1),
                            role=str(role),
                            pid=process.pid,
                            age_s=round(time.time() - process.create_time(), 1),
                            rss_mb=round(process.memory_info().rss / 2**20, 1),
                            handles=process.num_fds(),
                            threads=process.num_threads(),
                        )
                    )

    def run(self, minutes: float) -> tuple[float, list[str]]:
        """The whole run; the interval of the load, and what the oracle found."""
        with self.world:
            self._start_node()
            interval_s = self.calibrate()
            until = time.monotonic() + minutes * 60.0
            print(f"a series every {interval_s} s for {minutes} min", flush=True)
            threads = [
                threading.Thread(target=self.load, args=(interval_s, until)),
                threading.Thread(target=self.break_things, args=(until,)),
                threading.Thread(target=self.look, daemon=True),
            ]
            for thread in threads:
                thread.start()
            for thread in threads[:2]:
                thread.join()
            try:
                self.world.await_end(self.world.series, limit_s=600.0)
                late = []
            except TimeoutError as exc:
                late = [f"I7 {exc}"]
            self._stopping.set()
            self.node.stop()
            return interval_s, [*late, *oracle.judge(self.world)]


def growth_of(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """For the longest-lived process of each role: how memory and handles grew after it had settled."""
    growth = {}
    for role in sorted({sample.role for sample in samples}):
        lives: dict[int, list[Sample]] = {}
        for sample in samples:
            if sample.role == role and sample.age_s > _SETTLE_S:
                lives.setdefault(sample.pid, []).append(sample)
        if not lives:
            continue
        life = max(lives.values(), key=len)
        third = max(1, len(life) // 3)
        early, recent = life[:third], life[-third:]
        hours = (recent[-1].at_s - early[0].at_s) / 3600.0 * 2.0 / 3.0
        gained = statistics.mean(s.rss_mb for s in recent) - statistics.mean(s.rss_mb for s in early)
        growth[role] = {
            "observed_s": round(life[-1].at_s - life[0].at_s, 1),
            "rss_mb": life[-1].rss_mb,
            "rss_mb_gained": round(gained, 2),
            "rss_mb_per_hour": round(gained / hours, 2) if hours else 0.0,
            "handles_first": life[0].handles,
            "handles_last": life[-1].handles,
            "threads_last": life[-1].threads,
        }
    return growth


@contextmanager
def postgresql() -> Iterator[PostgresServer]:
    """A server of our own, as the unprivileged user that it insists on."""
    programs = {
        name: shutil.which(name) or str(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[-1])
        for name in ("initdb", "pg_ctl")
    }
    user = pwd.getpwnam("postgres").pw_name if os.getuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="soak-pg-"))
    if user:
        shutil.chown(home, user)
    server = PostgresServer(home, user, programs)
    server.start()
    try:
        yield server
    finally:
        with suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


def soak(folder: Path, *, minutes: float, seed: int, sqlite: bool) -> Report:
    """Run for so long and report."""
    with small_disk(folder / "disk", mebibytes=_DISK_MB), _database(sqlite) as database:
        run = Soak(folder, seed=seed, database=database)
        interval_s, wrong = run.run(minutes)
        if wrong:
            shutil.copytree(folder / "disk", folder / "disk-as-it-was", dirs_exist_ok=True)
    recoveries = [fault.recovered_s for fault in run.faults if fault.recovered_s is not None]
    return Report(
        seed=seed,
        minutes=minutes,
        database="sqlite" if database is None else "postgresql",
        interval_s=interval_s,
        series=len(run.world.series),
        instances=sum(len(sent.acknowledged) for sent in run.world.series),
        faults=run.faults,
        wrong=wrong,
        growth=growth_of(run.samples),
        recovery_median_s=round(statistics.median(recoveries), 1) if recoveries else 0.0,
        recovery_longest_s=max(recoveries, default=0.0),
        samples=run.samples,
    )


@contextmanager
def _database(sqlite: bool) -> Iterator[PostgresServer | None]:
    if sqlite:
        yield None
        return
    with postgresql() as server:
        yield server


def main() -> int:
    """Run as a command; exit status 1 when the oracle found something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of PostgreSQL")
    parser.add_argument("--json", type=Path, default=None, help="where the report goes")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    report = soak(folder, minutes=asked.minutes, seed=seed, sqlite=asked.sqlite)
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(report), indent=2))
    print(json.dumps({key: value for key, value in asdict(report).items() if key != "samples"}, indent=2))
    if report.wrong:
        print(f"what is left lies in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
