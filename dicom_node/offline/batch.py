"""A whole request: everything in INPUT along its line, then all of it put in place at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.errors import Reason, ReasonedError
from dicom_node.imaging.nifti import NiftiError, write_map
from dicom_node.offline.inputs import Inputs, Item, NiftiItem, Refusal, find_inputs, refusal_of
from dicom_node.offline.lines import Enhanced, Work, enhance_item
from dicom_node.offline.placement import Placement, remove
from dicom_node.offline.report import Outcome, Result, write_report
from dicom_node.offline.request import EnhanceRequest, OfflineError
from engine.enhancer import EnhanceOptions, Enhancer, Progress
from engine.errors import EngineError
from engine.registry import build_enhancer

Watch = Callable[[int, int, float, str], None]
"""Called with the number of the input (from 0), how many there are, the fraction of it done, and the step."""


@dataclass(frozen=True)
class _Places:
    """Temporary paths of what one run writes."""

    output: Path
    report: Path | None
    uncertainty: Path | None


@dataclass
class _Run:
    """One run under way."""

    request: EnhanceRequest
    inputs: Inputs
    enhancer: Enhancer
    watch: Watch
    outcomes: list[Outcome] = field(default_factory=list)
    last: Enhanced | None = None


def enhance_files(request: EnhanceRequest, watch: Watch) -> tuple[Outcome, ...]:
    """Enhance what INPUT holds; return the outcome of every input.

    Unless at least one input was enhanced, nothing is written. Raises `OfflineError` or `EngineError` for
    a request that cannot be carried out, and then nothing is written either.
    """
    enhancer = build_enhancer(request.model, request.options)
    inputs = find_inputs(request)
    run = _Run(request, inputs, enhancer, watch)
    if inputs.items:
        _check_targets(request, inputs)
        with Placement(force=request.force) as placement:
            places = _reserve(placement, request, inputs)
            for number, item in enumerate(inputs.items):
                _enhance(run, number, item, places.output)
            if run.last is not None:
                _finish(run, places)
                placement.commit()
    return (*run.outcomes, *(_refused(refusal) for refusal in inputs.refused))


def _check_targets(request: EnhanceRequest, inputs: Inputs) -> None:
    """One map for one volume, and no input written over."""
    if request.uncertainty is not None:
        if len(inputs.items) > 1:
            raise OfflineError(f"--uncertainty takes one volume; {request.source} holds {len(inputs.items)}")
        if not request.uncertainty.name.lower().endswith((".nii", ".nii.gz")):
            raise OfflineError(f"{request.uncertainty}: an uncertainty map is named .nii or .nii.gz")
    read = {path.resolve() for item in inputs.items for path in _paths(item)}
    for target in (request.output, request.report, request.uncertainty):
        if target is not None and target.resolve() in read:
            raise OfflineError(f"{target} would replace the input; choose another name")


def _paths(item: Item) -> tuple[Path, ...]:
    return (item.path,) if isinstance(item, NiftiItem) else item.paths


def _reserve(placement: Placement, request: EnhanceRequest, inputs: Inputs) -> _Places:
    """Claim every target before any work starts."""
    single_file = not inputs.in_folder and isinstance(inputs.items[0], NiftiItem)
    report = None if request.report is None else placement.file(request.report)
    uncertainty = None if request.uncertainty is None else placement.file(request.uncertainty)
    if single_file:
        return _Places(placement.file(request.output), report, uncertainty)
    folder = placement.folder(request.output, replaceable=inputs.written)
    return _Places(folder, report, uncertainty)


def _enhance(run: _Run, number: int, item: Item, output: Path) -> None:
    """Enhance one input and note how it came out; what it left behind on failure is removed."""
    request = run.request
    options = EnhanceOptions(strength=request.strength, extra=request.options)
    work = Work(run.enhancer, options, request.model, _progress(run, number))
    target = output / item.name if item.name else output
    if item.name:
        target.parent.mkdir(parents=True, exist_ok=True)
    what = str(item.path) if isinstance(item, NiftiItem) else f"series {item.series_instance_uid}"
    try:
        run.last = enhance_item(item, target, work)
    except (ReasonedError, NiftiError, EngineError, OSError, MemoryError) as exc:
        remove(target)
        _prune(target.parent, output)
        run.outcomes.append(_refused(_refusal(what, exc)))
        return
    final = request.output / item.name if item.name else request.output
    run.outcomes.append(Outcome(what, "ENHANCED", final, "", "", run.last.facts))


def _progress(run: _Run, number: int) -> Progress:
    """The progress of one input as the watcher wants it."""
    return lambda fraction, step: run.watch(number, len(run.inputs.items), fraction, step)


def _refusal(what: str, error: Exception) -> Refusal:
    """Why an input failed, in one line."""
    if isinstance(error, ReasonedError):
        return refusal_of(what, error)
    if isinstance(error, NiftiError):
        return Refusal(what, Reason.INVALID_NIFTI, error.detail, proper=False)
    if isinstance(error, EngineError):
        return Refusal(what, Reason.ENGINE_REFUSED, str(error), proper=False)
    if isinstance(error, OSError):
        return Refusal(what, Reason.FILE_ERROR, f"cannot be read or written ({error.strerror})", proper=False)
    return Refusal(what, Reason.OUT_OF_MEMORY, "the memory of this machine does not suffice", proper=False)


def _refused(refusal: Refusal) -> Outcome:
    result: Result = "LEFT_ALONE" if refusal.proper else "FAILED"
    return Outcome(refusal.what, result, None, refusal.reason, refusal.message, {})


def _prune(folder: Path, root: Path) -> None:
    """Remove folders that a failed input left empty."""
    while folder != root and root in folder.parents:
        with suppress(OSError):
            folder.rmdir()
        folder = folder.parent


def _finish(run: _Run, places: _Places) -> None:
    """Write the map and the report."""
    request, last = run.request, run.last
    outcomes = (*run.outcomes, *(_refused(refusal) for refusal in run.inputs.refused))
    try:
        if places.uncertainty is not None and request.uncertainty is not None and last is not None:
            if last.uncertainty is None:
                raise OfflineError(
                    f"enhancer {request.model!r} estimates no uncertainty; leave out --uncertainty"
                )
            compressed = request.uncertainty.name.lower().endswith(".gz")
            write_map(places.uncertainty, last.uncertainty, axes=last.axes, compressed=compressed)
        if places.report is not None:
            write_report(places.report, request, run.enhancer.identity, outcomes)
    except OSError as exc:
        raise OfflineError(f"the report or the map cannot be written ({exc.strerror})") from exc
