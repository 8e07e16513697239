"""The straight line of one attempt: read, enhance, guard, derive, verify. Each arrow is one function.

Runs inside the enhancement process (`pipeline.child`), which has no database and no network: it gets
an `AttemptSpec` and leaves derived files in a directory of its own. Only the worker that owns the job
commits them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.errors import DeriveError, NodeError, Reason, ReasonedError
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.derivation import DerivationPolicy, Provenance
from dicom_node.imaging.derived_writer import DerivedInstance
from dicom_node.imaging.series import derive_source, read_source, verify_source
from dicom_node.imaging.series_reader import SourceSeries, SourceVolume
from dicom_node.imaging.uids import UidPlan
from dicom_node.pipeline.accompany import accompany
from dicom_node.pipeline.attempt import AttemptSpec, SourceFile
from engine.enhancer import CancelToken, EnhancementResult, EnhanceOptions, Enhancer, Progress
from engine.errors import EngineError, OutOfRangeError, UnsafeOutputError
from engine.guardrails import GuardReport, guard
from engine.volume import Volume

StageListener = Callable[[str], None]


class SourceChangedError(ReasonedError):
    """A stored source instance no longer matches the digest taken when it was received."""

    def __init__(self, sop_instance_uid: str) -> None:
        super().__init__(Reason.SOURCE_CHANGED, f"SOP instance {sop_instance_uid}.")


@dataclass(frozen=True)
class AttemptResult:
    """What the worker commits: the derived instances and the facts for the job log (JSON-ready).

    uncertainty  of each volume on its own grid, None when the enhancer estimates none; no part of the series
    """

    derived: tuple[DerivedInstance, ...]
    facts: Mapping[str, Any]
    uncertainty: tuple[Volume | None, ...] = ()


class StageClock:
    """Tells a listener which stage begins and keeps the wall seconds of each."""

    def __init__(self, listener: StageListener) -> None:
        self.seconds: dict[str, float] = {}
        self._listener = listener

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the enclosed block under `name`."""
        self._listener(name)
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - begin, 3)


def run_attempt(
    spec: AttemptSpec,
    enhancer: Enhancer,
    *,
    on_stage: StageListener,
    progress: Progress,
    cancel: CancelToken,
) -> AttemptResult:
    """Take one series along the whole line and leave its derived files in `spec.directory`.

    Nothing is visible to anyone until the worker commits the manifest. Raises `ReasonedError` with the
    reason of the stage that refused, `EnhancementCancelledError` when the token was set.
    """
    clock = StageClock(on_stage)
    with clock.stage("READ"):
        check_sources(spec.sources)
        source = read_source([file.path for file in spec.sources], AssemblyPolicy(**spec.assembly))
    with clock.stage("ENHANCE"):
        options = EnhanceOptions(strength=spec.strength, extra=spec.options)
        results = enhance_volumes(source, enhancer, options, progress, cancel)
    with clock.stage("GUARD"):
        guards = guard_volumes(source, results)
    cancel.raise_if_cancelled()
    with clock.stage("DERIVE"):
        derived = derive(source, results, enhancer, spec)
    cancel.raise_if_cancelled()
    with clock.stage("VERIFY"):
        bias = verify(spec, source, derived)
        companions = accompany(
            spec.companions,
            source,
            results,
            derived,
            provenance=provenance_of(spec, enhancer, results),
            policy=DerivationPolicy(**spec.policy),
            uids=uid_plan(spec),
            directory=spec.directory,
            neighbours=spec.neighbours,
        )
    return AttemptResult(
        derived=(*derived, *companions.instances),
        facts={
            "seconds": clock.seconds,
            "enhancer": asdict(enhancer.identity),
            **volume_facts(source, results, guards),
            "bias": bias,
            "slices": len(derived),
            "companions": len(companions.instances),
            "companion_notes": companions.notes,
            "assembly": source.evidence.as_json(),
        },
        uncertainty=tuple(
            uncertainty_of(part.volume, result) for part, result in zip(source.volumes, results, strict=True)
        ),
    )


def enhance_volumes(
    source: SourceSeries, enhancer: Enhancer, options: EnhanceOptions, progress: Progress, cancel: CancelToken
) -> tuple[EnhancementResult, ...]:
    """volumes -> enhanced, one after the other; one that is refused ends the job and is named.

    A series in which no stored value would change ends it as well: a copy is no derived series.
    """
    sizes = [part.volume.array.size for part in source.volumes]
    results, done = [], 0
    for part, size in zip(source.volumes, sizes, strict=True):
        first, share = done / sum(sizes), size / sum(sizes)
        with naming(source, part):
            results.append(
                enhance(part.volume, enhancer, options, _within(progress, first=first, share=share), cancel)
            )
        done += size
    meant = options.strength == 0 or enhancer.identity.name.startswith("identity")
    if not meant and not any(map(_changes, source.volumes, results)):
        raise DeriveError(Reason.OUT_OF_RANGE, "NO_NOISE: no stored value would change")
    return tuple(results)


def _changes(part: SourceVolume, result: EnhancementResult) -> bool:
    """Whether any voxel changes by half a stored value or more."""
    slices = zip(part.slices, part.volume.array, result.volume.array, strict=False)
    return any(float(np.abs(after - before).max()) >= 0.5 * abs(one.slope) for one, before, after in slices)


def guard_volumes(source: SourceSeries, results: Sequence[EnhancementResult]) -> tuple[GuardReport, ...]:
    """enhanced -> guarded, every volume for itself."""
    reports = []
    for part, result in zip(source.volumes, results, strict=True):
        with naming(source, part):
            reports.append(check(part.volume, result))
    return tuple(reports)


@contextmanager
def naming(source: SourceSeries, part: SourceVolume) -> Iterator[None]:
    """Say of which volume an error speaks, where the series has several."""
    try:
        yield
    except DeriveError as exc:
        if len(source.volumes) == 1:
            raise
        raise DeriveError(exc.reason, f"Volume {part.label}: {exc.detail}") from exc


def _within(progress: Progress, *, first: float, share: float) -> Progress:
    """The progress of one volume as a part of the whole."""
    return lambda fraction, step: progress(first + fraction * share, step)


def volume_facts(
    source: SourceSeries, results: Sequence[EnhancementResult], guards: Sequence[GuardReport]
) -> dict[str, Any]:
    """What was measured, of the first volume and, where there are several, of each of them."""
    facts = [
        {
            "noise_before": result.report.noise_before,
            "noise_after": result.report.noise_after,
            "parameters": dict(result.report.parameters),
            "guards": report.as_json(),
            "unit": str(part.volume.unit),
            "shape": list(part.volume.array.shape),
            "spacing_mm": list(part.volume.spacing_mm),
        }
        for part, result, report in zip(source.volumes, results, guards, strict=True)
    ]
    if len(facts) == 1:
        return facts[0]
    named = [{"label": part.label, **fact} for part, fact in zip(source.volumes, facts, strict=True)]
    return {**facts[0], "volumes": named}


def check_sources(sources: tuple[SourceFile, ...]) -> None:
    """Prove that every stored data set still hashes to what was acknowledged (raises `SourceChangedError`)."""
    for source in sources:
        if data_set_digest(source.path) != source.digest:
            raise SourceChangedError(source.sop_instance_uid)


def data_set_digest(path: Path) -> str:
    """SHA-256 of the data set of a Part 10 file: what follows the file meta group (PS3.10 7.1)."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            head = file.read(144)
            # 128 preamble, "DICM", then (0002,0000) UL 4: the length of the rest of the group.
            if len(head) < 144 or head[128:132] != b"DICM" or head[132:136] != b"\x02\x00\x00\x00":
                return ""
            file.seek(144 + int.from_bytes(head[140:144], "little"))
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def enhance(
    volume: Volume, enhancer: Enhancer, options: EnhanceOptions, progress: Progress, cancel: CancelToken
) -> EnhancementResult:
    """volume -> enhanced. An enhancer that is out of its range ends the job; it never passes input off as output."""
    try:
        return enhancer.enhance(volume, options=options, progress=progress, cancel=cancel)
    except OutOfRangeError as exc:
        raise DeriveError(Reason.OUT_OF_RANGE, f"{exc.reason}: {exc}") from exc


def uncertainty_of(volume: Volume, result: EnhancementResult) -> Volume | None:
    """The uncertainty as a volume on the source's grid."""
    return None if result.uncertainty is None else volume.with_array(result.uncertainty)


def check(before: Volume, result: EnhancementResult) -> GuardReport:
    """enhanced -> guarded."""
    try:
        return guard(before, result)
    except UnsafeOutputError as exc:
        raise DeriveError(Reason.UNSAFE_OUTPUT, str(exc)) from exc


def derive(
    source: SourceSeries, results: Sequence[EnhancementResult], enhancer: Enhancer, spec: AttemptSpec
) -> tuple[DerivedInstance, ...]:
    """guarded -> derived: one synced file per source slice in the attempt's own directory."""
    return derive_source(
        source,
        [result.volume for result in results],
        provenance=provenance_of(spec, enhancer, results),
        policy=DerivationPolicy(**spec.policy),
        uids=uid_plan(spec),
        directory=spec.directory,
        neighbours=spec.neighbours,
        parameters=[result.report.parameters for result in results],
    )


def provenance_of(spec: AttemptSpec, enhancer: Enhancer, results: Sequence[EnhancementResult]) -> Provenance:
    """Who enhanced, with what, when."""
    identity = enhancer.identity
    return Provenance(
        algorithm=identity.name,
        version=identity.version,
        digest=identity.digest,
        title=identity.title,
        strength=spec.strength,
        parameters=results[0].report.parameters,
        node_version=spec.node_version,
        processed_at=datetime.fromisoformat(spec.processed_at),
    )


def uid_plan(spec: AttemptSpec) -> UidPlan:
    """The UIDs this job may use."""
    return UidPlan(spec.job_key, DerivationPolicy(**spec.policy).uid_root)


def verify(spec: AttemptSpec, source: SourceSeries, derived: tuple[DerivedInstance, ...]) -> float:
    """Re-read what was written and check it against the source; return the mean bias in real units."""
    report = verify_source(
        [source.path for source in spec.sources],
        [instance.path for instance in derived],
        policy=DerivationPolicy(**spec.policy),
        left_out=frozenset(entry.sop_instance_uid for entry in source.left_out),
    )
    if not report.passed:
        failed = ", ".join(f"{check.number} {check.title}" for check in report.checks if not check.passed)
        raise DeriveError(Reason.VERIFY_FAILED, f"Assertions failed: {failed}.")
    return float(report.bias)


def reason_of(error: Exception) -> tuple[Reason, str]:
    """The reason code and the safe detail under which a failed attempt is recorded."""
    if isinstance(error, ReasonedError):
        return error.reason, error.detail
    if isinstance(error, EngineError):
        return Reason.ENGINE_REFUSED, str(error)
    if isinstance(error, NodeError):
        return Reason.INTERNAL_ERROR, str(error)
    if isinstance(error, MemoryError):
        return Reason.INTERNAL_ERROR, "The machine ran out of memory."
    return Reason.INTERNAL_ERROR, f"{type(error).__name__} in the enhancement process."
