"""The receiver of a node: in this process, or spread over several where there are cores for them."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from config.settings import Settings
from dicom_node.intake.receiver import build_scp
from dicom_node.network.channel import Channel
from dicom_node.network.dispatch import Dispatcher
from dicom_node.network.limits import ScpSettings
from dicom_node.network.served import RemoteGate, serve_channel
from dicom_node.network.services import ScpService
from storage.store import Store

_MOST = 4
COMMAND = "receiver-process"


def process_count(wanted: int | Literal["auto"], cores: int | None = None) -> int:
    """How many receiver processes: as wanted, or one for each two cores, at most four."""
    if wanted != "auto":
        return wanted
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    return max(1, min(_MOST, cores // 2))


def serve_receiver(
    store: Store,
    settings: Settings,
    stop: threading.Event,
    *,
    new_run_id: Callable[[], str],
    config: Path | None,
    services: Sequence[ScpService] = (),
) -> None:
    """Receive until `stop`, then drain. Without the path of the configuration there is one process only."""
    settle()
    count = process_count(settings.receiving.processes)
    if config is None or count == 1:
        scp = build_scp(store, settings, run_id=new_run_id(), services=services)
        scp.start()
        try:
            stop.wait()
        finally:
            scp.stop(settings.node.drain)
        return
    dispatcher = build_dispatcher(store, settings, config, count, new_run_id=new_run_id)
    dispatcher.start()
    try:
        stop.wait()
    finally:
        dispatcher.stop(settings.node.drain)


def build_dispatcher(
    store: Store, settings: Settings, config: Path, count: int, *, new_run_id: Callable[[], str]
) -> Dispatcher:
    """The parent of so many receiver processes, not yet started; what earlier runs left open is closed as lost."""
    store.index.close_lost_associations(new_run_id())
    return Dispatcher(
        ScpSettings.of(settings.node, settings.receiving),
        count,
        spawn=lambda theirs, run_id: _spawn(config, theirs, run_id),
        new_run_id=new_run_id,
        lost=store.index.close_run,
    )


def settle() -> None:
    """Take what is loaded by now out of the garbage collector's rounds: it stays, and there is a lot of it."""
    gc.collect()
    gc.freeze()


def serve_process(
    store: Store, settings: Settings, descriptor: int, *, run_id: str, services: Sequence[ScpService] = ()
) -> None:
    """Serve what the parent hands over the descriptor, until it says stop or is gone."""
    settle()
    channel = Channel.inherited(descriptor)
    gate = RemoteGate(ScpSettings.of(settings.node, settings.receiving), channel)
    scp = build_scp(store, settings, run_id=run_id, services=services, gate=gate)
    serve_channel(scp, gate, channel)


def _spawn(config: Path, theirs: socket.socket, run_id: str) -> subprocess.Popen[bytes]:
    """Start one receiver process; it ends when its channel closes."""
    descriptor = theirs.fileno()
    command = [sys.executable, "-m", "dicom_node", COMMAND, "--config", str(config)]
    return subprocess.Popen(
        [*command, "--descriptor", str(descriptor), "--run", run_id],
        stdin=subprocess.DEVNULL,
        pass_fds=[descriptor],
    )
