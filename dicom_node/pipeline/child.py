"""The enhancement process: reads attempts as JSON lines, answers with JSON lines, knows no database.

A decoder or an enhancer may crash, hang or eat all memory; here it takes only this process along.
The process serves one attempt after the other, so a loaded model stays warm, and it ends when its
standard input closes: an orphan never outlives its worker.

Lines in:   {"attempt": AttemptSpec}   {"cancel": true}
Lines out:  {"ready": true}   {"stage": NAME}   {"progress": FRACTION, "step": NAME}
            {"result": {...}}   {"error": REASON, "detail": TEXT, "log": {...}}   {"canceled": true}
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from dicom_node.imaging.derived_writer import DerivedInstance
from dicom_node.observability.logs import configure, describe_error
from dicom_node.pipeline.attempt import AttemptSpec
from dicom_node.pipeline.stages import reason_of, run_attempt
from engine.enhancer import CancelToken, Enhancer
from engine.errors import EnhancementCancelledError
from engine.registry import build_enhancer


class Mouth:
    """Writes one JSON line per message; safe from several threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, **message: Any) -> None:
        """Write one message and flush it."""
        with self._lock:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()


class Child:
    """Takes attempts from a queue that a reader thread fills, so that a cancel is heard at once."""

    def __init__(self, mouth: Mouth) -> None:
        self._mouth = mouth
        self._attempts: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._cancel = CancelToken()
        self._enhancers: dict[str, Enhancer] = {}

    def listen(self, lines: TextIO) -> None:
        """Read lines until the worker closes the pipe; then stop whatever runs and end."""
        for line in lines:
            message = json.loads(line)
            if message.get("cancel"):
                self._cancel.cancel()
            elif "attempt" in message:
                self._attempts.put(message["attempt"])
        self._cancel.cancel()
        self._attempts.put(None)

    def serve(self) -> None:
        """Run attempts until the pipe closes."""
        self._mouth.say(ready=True)
        while (attempt := self._attempts.get()) is not None:
            self._cancel = CancelToken()
            self._run(attempt)

    def _run(self, attempt: Mapping[str, Any]) -> None:
        """Run one attempt and answer with exactly one of result, error or canceled."""
        try:
            spec = AttemptSpec.from_json(attempt)
            result = run_attempt(
                spec,
                self._enhancer(spec),
                on_stage=lambda stage: self._mouth.say(stage=stage),
                progress=lambda fraction, step: self._mouth.say(progress=round(fraction, 3), step=step),
                cancel=self._cancel,
            )
        except EnhancementCancelledError:
            self._mouth.say(canceled=True)
        except Exception as exc:  # the edge of this process: everything becomes one answer
            reason, detail = reason_of(exc)
            self._mouth.say(error=str(reason), detail=detail, log=describe_error(exc))
        else:
            derived = [derived_as_json(instance) for instance in result.derived]
            self._mouth.say(result={"derived": derived, "facts": dict(result.facts)})

    def _enhancer(self, spec: AttemptSpec) -> Enhancer:
        """Build an enhancer once per name and options, so that weights are read once."""
        key = json.dumps([spec.enhancer, dict(spec.options)], sort_keys=True)
        if key not in self._enhancers:
            self._enhancers[key] = build_enhancer(spec.enhancer, spec.options)
        return self._enhancers[key]


def derived_as_json(instance: DerivedInstance) -> dict[str, Any]:
    """Plain values of a derived instance."""
    return {**asdict(instance), "path": str(instance.path)}


def _go_first() -> None:
    """When memory runs out, the kernel shall end this process and its decoders, not the receiver (Linux)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def main() -> None:
    """Keep the protocol's pipe to ourselves and send everything libraries print to standard error."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    configure()
    _go_first()
    child = Child(Mouth(protocol))
    threading.Thread(target=child.listen, args=(sys.stdin,), daemon=True).start()
    child.serve()


if __name__ == "__main__":
    main()
