"""A small world to break: the node's roles as processes without a supervisor, an archive, a scanner with a ledger."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from pydicom import dcmread
from pydicom.uid import generate_uid

from config.sections import Peer
from config.settings import Settings, load_settings
from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import free_port, is_over
from dicom_node.errors import PeerError
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.network import scu
from dicom_node.node import Role
from dicom_node.operations import Operations, SeriesStory, open_node_store
from dicom_node.pipeline.stages import data_set_digest
from dicom_node.role_process import play
from engine.phantom import head_phantom, noisy_ct
from storage.errors import NotFoundError
from storage.store import Store
from tests.drill.proxy import Proxy
from tests.nursery import NURSERY

CANARY = "CANARYNAME^CANARYGIVEN"
CANARY_ID = "CANARYID7731"
ROLES = (Role.RECEIVER, Role.WORKER, Role.SENDER)
LIMIT_S = 240.0

_CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}, drain: 5 s}}
storage:
  directory: {directory}
{database}  watermarks: {{soft: 99 %, hard: 100 %, reserve: 1 MB}}
completion:
  quiet_period: 1 s
  quiet_period_by_modality: {{CT: 1 s}}
  interrupted_factor: {interrupted_factor}
enhancement: {{enhancer: classical, lease: 3 s, attempts: 3}}
delivery: {{backoff_first: 500 ms, backoff_longest: 1 s}}
receiving: {{processes: 1}}
api: {{enabled: false}}
peers:
  - {{name: archive, ae_title: ARCHIVE, host: 127.0.0.1, port: {archive_port}}}
routes:
  - {{name: all, when: {{modality: [CT, MR]}}, action: enhance, send_to: [archive]}}
logging: {{format: json}}
"""


@dataclass
class Sent:
    """One series as the scanner knows it. `acknowledged`: UIDs that were answered with success."""

    uid: str
    paths: list[Path]
    digests: dict[str, str]
    acknowledged: set[str] = field(default_factory=set)


class RoleProcess:
    """One role of the node in a process of its own, forked from one that has loaded it, as the supervisor's are."""

    def __init__(self, role: Role, config: Path, log: Path) -> None:
        self.role = role
        theirs, self._ours = NURSERY.Pipe(duplex=False)
        self._process = NURSERY.Process(target=_play, args=(role, config, log, theirs))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it still runs. One whose first thread has ended is dead, though others may be on their way out."""
        if not self._process.is_alive():
            return False
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def kill(self) -> None:
        """SIGKILL, its children too: their input ends with it."""
        self._process.kill()
        self._process.join()
        self._ours.close()

    def stop(self) -> int:
        """Ask it to end as the supervisor would; the exit status."""
        self._process.terminate()
        self._process.join(60)
        self.kill()
        return self._process.exitcode or 0

    def signal(self, number: int) -> None:
        """Send any other signal."""
        os.kill(self.pid, number)

    def wait_for_death(self, seconds: float) -> bool:
        """Whether it ends within that time."""
        self._process.join(seconds)
        return not self.alive


def _play(role: Role, config: Path, log: Path, standard_input: Connection[Any, Any]) -> None:
    """Be the role, with what it writes in the log."""
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    play(role, config, standard_input.fileno())


class World:
    """Everything the drill breaks and looks at; use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        slices: int = 30,
        side: int = 64,
        database_url: str | None = None,
        storage: Path | None = None,
        interrupted_factor: int = 10,
        proxied: bool = False,
    ) -> None:
        """`storage`: where the node keeps its files. `proxied`: the node reaches the archive by `to_archive`."""
        self.folder = folder
        self.archive_port = free_port()
        self.to_archive = Proxy(self.archive_port) if proxied else None
        self._templates = self._make_templates(slices, side)
        database = f'  database_url: "{database_url}"\n' if database_url else ""
        self.config = folder / "node.yaml"
        self.config.write_text(
            _CONFIG.format(
                port=free_port(),
                directory=storage or folder / "node-data",
                database=database,
                interrupted_factor=interrupted_factor,
                archive_port=self.to_archive.port if self.to_archive else self.archive_port,
            )
        )
        self.settings: Settings = load_settings(self.config)
        self.log = folder / "node.log"
        self.roles: dict[Role, RoleProcess] = {}
        self.archive: Archive | None = None
        self.archive_contents: dict[str, set[str]] = {}
        self.series: list[Sent] = []
        self._lock = threading.Lock()

    def __enter__(self) -> World:
        self.open_archive()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill(*ROLES)
        self.close_archive()
        if self.to_archive is not None:
            self.to_archive.close()

    # --- processes

    def start(self, *roles: Role) -> None:
        """Start what does not run; a receiver counts as started when it answers."""
        self.revive(*roles)
        if Role.RECEIVER in roles:
            self.wait_for(self.answers, "the receiver's answer")

    def revive(self, *roles: Role) -> None:
        """Start what does not run, as the supervisor would, and wait for nothing."""
        for role in roles:
            if role not in self.roles or not self.roles[role].alive:
                self.kill(role)
                self.roles[role] = RoleProcess(role, self.config, self.log)

    def kill(self, *roles: Role) -> None:
        """SIGKILL."""
        for role in roles:
            if role in self.roles:
                self.roles[role].kill()

    def open_archive(self) -> None:
        """Have the archive listen, with what it has stored before."""
        archive = Archive(self.folder / "archive", port=self.archive_port)
        self.archive = archive.__enter__()

    def close_archive(self) -> None:
        """Have the archive gone; its stored contents are remembered."""
        if self.archive is not None:
            self.archive.__exit__(None, None, None)
            for uid, digests in self.archive.contents.items():
                self.archive_contents.setdefault(uid, set()).update(digests)
        self.archive = None

    def contents(self) -> dict[str, set[str]]:
        """Every content that ever arrived at the archive, by SOP Instance UID."""
        found = {uid: set(digests) for uid, digests in self.archive_contents.items()}
        if self.archive is not None:
            for uid, digests in dict(self.archive.contents).items():
                found.setdefault(uid, set()).update(digests)
        return found

    # --- the scanner

    @property
    def peer(self) -> Peer:
        """The node as the scanner knows it."""
        node = self.settings.node
        return Peer(
            name="node",
            ae_title=node.ae_titles[0],
            host=node.host,
            port=node.port,
            calling_ae_title="SCANNER",
        )

    def answers(self) -> bool:
        """Whether the node answers a C-ECHO."""
        try:
            return scu.echo(self.peer).status == 0
        except PeerError:
            return False

    def new_series(self) -> Sent:
        """A series that was never sent: the phantom's slices under new UIDs."""
        folder = self.folder / "scanner" / f"{len(self.series):05}"
        folder.mkdir(parents=True)
        study, series, frame = generate_uid(), generate_uid(), generate_uid()
        paths = []
        for number, template in enumerate(self._templates):
            data_set = dcmread(template)
            data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study, series
            data_set.FrameOfReferenceUID = frame
            data_set.SOPInstanceUID = generate_uid()
            data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
            path = folder / f"{number:04}.dcm"
            data_set.save_as(path)
            paths.append(path)
        sent = Sent(str(series), paths, {_uid_of(path): data_set_digest(path) for path in paths})
        with self._lock:
            self.series.append(sent)
        return sent

    def send(
        self, sent: Sent, *, peer: Peer | None = None, after: Callable[[int], object] = lambda _count: None
    ) -> bool:
        """Send what is not acknowledged yet over one association; True when that ended well with all of it sent.

        When nothing is left the last slice goes again, so that the node sees an association that ends well.
        `after` is called with the number of answers so far. A broken association is no error here.
        """
        missing = [path for path in sent.paths if _uid_of(path) not in sent.acknowledged] or sent.paths[-1:]
        answers = 0

        def heard(uid: str, status: int, _comment: str) -> bool:
            nonlocal answers
            if status == 0:
                sent.acknowledged.add(uid)
            answers += 1
            after(answers)
            return True

        try:
            scu.send(peer or self.peer, [scu.outgoing(path) for path in missing], heard)
        except PeerError:
            return False
        return len(sent.acknowledged) == len(sent.paths)

    # --- looking

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The node's store."""
        with open_node_store(self.settings) as store:
            yield store

    def story(self, uid: str) -> SeriesStory | None:
        """What happened to a series; None when the node does not know it."""
        with self.store() as store, suppress(NotFoundError):
            return Operations(store, self.settings).series_story(uid)
        return None

    def await_end(
        self, series: Sequence[Sent], limit_s: float = LIMIT_S, *, reviving: Sequence[Role] = ()
    ) -> None:
        """Wait until nothing more will happen to these series by itself; who dies meanwhile is started again."""
        left = [sent.uid for sent in series]

        def all_over() -> bool:
            self.revive(*reviving)
            with self.store() as store:
                operations = Operations(store, self.settings)
                left[:] = [uid for uid in left if not is_over(operations.series_story(uid))]
            return not left

        self.wait_for(all_over, f"the end of {len(left)} series", limit_s)

    def wait_for(self, question: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        """Ask until the answer is yes; raises `TimeoutError`."""
        deadline = time.monotonic() + limit_s
        while not question():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {limit_s:.0f} s in vain for {what}")
            time.sleep(0.1)

    def _make_templates(self, slices: int, side: int) -> list[Path]:
        """The slices that every series is made of; the patient's name must never be seen anywhere."""
        clean = head_phantom(shape=(slices, side, side), spacing_mm=(3.0, 230.0 / side, 230.0 / side))
        style = PhantomStyle(patient_name=CANARY, patient_id=CANARY_ID)
        folder = self.folder / "templates"
        folder.mkdir(parents=True)
        return write_ct_series(noisy_ct(clean, 20.0, seed=3), folder, style=style)


def _uid_of(path: Path) -> str:
    return scu.outgoing(path).sop_instance_uid
