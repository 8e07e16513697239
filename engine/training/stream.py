"""The batches of a run, one for every step, drawn ahead by processes of their own and shown several times.

Simulating a scan and its pilot costs more than a step of the network, so a drawn batch stays in a memory of the
last ones and is shown `repeats` times on average, turned differently each time. Which batch a step sees is a
function of the seed and the step alone: a resumed run draws the memory again and continues exactly.

Beside a GPU the processes only simulate; a thread carries what they drew to its memory while it works, and the
pilot is made there.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import fields, replace
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.multiprocessing as mp
from torch import Tensor

from engine.diffusion.conditioning import Condition
from engine.simulation.randomness import Draw
from engine.training.batches import Batch, States, draw_states, with_pilot
from engine.training.config import TrainingConfig
from engine.training.patches import PatchSource
from engine.training.volumes import TrainingVolume

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

Drawn = TypeVar("Drawn", bound=States)

_AHEAD = 4
"""Batches that a process may be ahead of the run."""
_CARRIED = 3
"""Batches that wait in a GPU's memory for the run."""
_APART = 1_000_003
"""Distance of the seeds of two runs; batches and turns of one run lie in between."""


class BatchStream:
    """Gives the batch of every step; `close` ends the processes. Steps only ever grow."""

    def __init__(self, volumes: list[TrainingVolume], config: TrainingConfig, device: torch.device) -> None:
        self._volumes, self._config, self._device = volumes, config, device
        self._memory: deque[Batch] = deque(maxlen=config.memory if config.repeats > 1 else 1)
        self._next = -1
        self._queues: list[Queue[States]] = []
        self._processes: list[SpawnProcess] = []
        self._carried: queue.Queue[States | Exception] = queue.Queue(_CARRIED)
        self._closed = threading.Event()

    def take(self, step: int) -> Batch:
        """Return the batch of a step, turned at random."""
        fresh, shown_again = divmod(step, self._config.repeats)
        if self._next < 0:
            self._start(max(0, fresh - (self._memory.maxlen or 1) + 1))
        while self._next <= fresh:
            self._memory.append(self._receive(self._next))
            self._next += 1
        draw = Draw(self._config.seed * _APART + 2 * step + 1, "cpu")
        chosen = draw.integer(0, len(self._memory) - 1) if shown_again else len(self._memory) - 1
        return turned(self._memory[chosen], draw)

    def close(self) -> None:
        """End the processes that draw, and the thread that carries."""
        self._closed.set()
        for process in self._processes:
            process.terminate()
            process.join()
        self._processes.clear()

    def _start(self, first: int) -> None:
        """Begin with batch `first`; process w draws every batch whose number is w modulo their count."""
        self._next = first
        count = self._config.workers
        context = mp.get_context("spawn")
        for worker in range(count):
            drawn: Queue[States] = context.Queue(_AHEAD)
            start = first + (worker - first) % count
            process = context.Process(
                target=_draw_ahead, args=(drawn, self._volumes, self._config, start, count), daemon=True
            )
            process.start()
            self._queues.append(drawn)
            self._processes.append(process)
        if count and self._device.type == "cuda":
            threading.Thread(target=self._carry, args=(first,), name="carry", daemon=True).start()

    def _receive(self, number: int) -> Batch:
        """Return batch `number`, drawn here or by a process."""
        if not self._queues:
            return with_pilot(numbered_states(self._volumes, self._config, number, self._device))
        if self._device.type == "cuda":
            carried = self._carried.get()
            if isinstance(carried, Exception):
                raise carried
            # Its memory may be used again only after what this run has asked of it.
            return with_pilot(_each_image(carried, lambda image: _used_here(image, self._device)))
        sent = self._queues[number % len(self._queues)].get()
        # Copied out of shared memory: a long memory would hold hundreds of open files.
        copied = _each_image(sent, lambda image: image.clone())
        if not isinstance(copied, Batch):
            raise TypeError("a process beside a CPU sends batches with their pilots")
        return copied

    def _carry(self, number: int) -> None:
        """Bring what the processes drew to the GPU, batch by batch, beside whatever runs there.

        What goes wrong here is raised in the run, which would wait for ever otherwise.
        """
        try:
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            while not self._closed.is_set():
                sent = self._queues[number % len(self._queues)].get()
                with torch.cuda.stream(side):
                    there = _each_image(sent, lambda x: x.pin_memory().to(self._device, non_blocking=True))
                side.synchronize()
                self._carried.put(there)
                number += 1
        except Exception as exc:
            self._carried.put(exc)


def numbered_states(
    volumes: list[TrainingVolume], config: TrainingConfig, number: int, device: torch.device
) -> States:
    """Draw batch `number` of a run: the same for the same seed, whatever was drawn before."""
    draw = Draw(config.seed * _APART + 2 * number, device)
    size = config.shapes[draw.integer(0, len(config.shapes) - 1)]
    return draw_states(PatchSource(volumes, config, draw), size, config.batch, draw)


def turned(batch: Batch, draw: Draw) -> Batch:
    """Flip a batch along random axes, and exchange rows with columns where they are as many."""
    axes = [axis for axis in (2, 3, 4) if draw.chance(0.5)]
    exchange = batch.clean.shape[3] == batch.clean.shape[4] and draw.chance(0.5)

    def turn(image: Tensor) -> Tensor:
        image = image.flip(axes) if axes else image
        return (image.transpose(3, 4) if exchange else image).contiguous()

    return replace(
        batch,
        clean=turn(batch.clean),
        scan=turn(batch.scan),
        pilot=turn(batch.pilot),
        state=turn(batch.state),
    )


def _each_image(drawn: Drawn, change: Callable[[Tensor], Tensor]) -> Drawn:
    """Apply a function to every tensor of a batch."""
    changed = {
        field.name: change(value)
        for field in fields(drawn)
        if isinstance(value := getattr(drawn, field.name), Tensor)
    }
    facts = drawn.condition
    condition = Condition(
        noise=change(facts.noise),
        colour=change(facts.colour),
        is_ct=change(facts.is_ct),
        spacing=change(facts.spacing),
    )
    return replace(drawn, condition=condition, **changed)


def _used_here(image: Tensor, device: torch.device) -> Tensor:
    """Tell the GPU's allocator that this thread's stream uses a tensor made on another."""
    image.record_stream(torch.cuda.current_stream(device))
    return image


def _draw_ahead(
    drawn: Queue[States], volumes: list[TrainingVolume], config: TrainingConfig, first: int, step: int
) -> None:
    """Draw batches first, first + step, ... for ever, on one thread; with pilots where no GPU makes them."""
    torch.set_num_threads(1)
    number, here = first, torch.device("cpu")
    beside_gpu = torch.device(config.device).type == "cuda"
    while True:
        states = numbered_states(volumes, config, number, here)
        drawn.put(states if beside_gpu else with_pilot(states))
        number += step
