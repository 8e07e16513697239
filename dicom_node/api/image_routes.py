"""Slices as PNG, windows, and quality figures. Images are patient data: each look is in the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict

from dicom_node.api.read_routes import Id
from dicom_node.api.security import DeskDep, Viewer
from dicom_node.desk import rendering
from dicom_node.desk.desk import Desk
from dicom_node.desk.images import Layer, Shown, Slice
from dicom_node.desk.rendering import Window
from dicom_node.desk.roles import Caller
from dicom_node.observability import events

router = APIRouter(tags=["images"])

Place = Annotated[int, Path(ge=0, le=1_000_000)]
Centre = Annotated[float | None, Query(ge=-1e6, le=1e6, allow_inf_nan=False)]
Width = Annotated[float | None, Query(gt=0, le=1e6, allow_inf_nan=False)]
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}
# Layers with a window of their own; the others share the one of the source.
_AUTOMATIC: Mapping[Layer, Callable[[Slice], Window]] = {
    Layer.DIFFERENCE: rendering.symmetric,
    Layer.UNCERTAINTY: rendering.upwards,
}
_TOLD_EVERY = timedelta(minutes=15)
_PRIVATE = {"Cache-Control": "private, max-age=300"}


class WindowOut(BaseModel):
    """A window to start from; for CT in HU."""

    name: str
    centre: float
    width: float


class StackOut(BaseModel):
    """What a viewer has to know before the first slice."""

    layers: list[str]
    slices: int
    rows: int
    columns: int
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    modality: str
    unit: str
    windows: list[WindowOut]
    difference: WindowOut | None
    uncertainty: WindowOut | None


class QualityOut(BaseModel):
    """Figures of what an enhancement did."""

    model_config = ConfigDict(from_attributes=True)

    noise_before: float | None
    noise_after: float | None
    bias: float | None
    mean_difference: float
    std_difference: float
    largest_difference: float
    frequencies: list[float]
    spectrum_source: list[float]
    spectrum_derived: list[float]
    spectrum_difference: list[float]
    guards: dict[str, Any]
    seconds: dict[str, Any]


@router.get("/series/{series_id}/images")
def series_stack(desk: DeskDep, caller: Viewer, series_id: Id) -> StackOut:
    """The stack of a received series."""
    shown = desk.images.of_series(series_id)
    _tell(desk, caller, series_id=series_id)
    return _stack_out(desk, shown)


@router.get("/series/{series_id}/images/{place}.png", response_class=Response, responses=_PNG)
def series_slice(
    desk: DeskDep, _caller: Viewer, series_id: Id, place: Place, centre: Centre = None, width: Width = None
) -> Response:
    """One slice of a received series as PNG."""
    shown = desk.images.of_series(series_id)
    values = desk.images.slice_of(shown.source, place)
    return _png(values, _window(values, shown.modality, centre, width), inverted=shown.source.inverted)


@router.get("/jobs/{job_id}/images")
def job_stack(desk: DeskDep, caller: Viewer, job_id: Id) -> StackOut:
    """The stacks of an enhancement, all on one grid; layers that do not exist are not listed."""
    shown = desk.images.of_job(job_id)
    _tell(desk, caller, series_id=shown.series_id, job_id=job_id)
    return _stack_out(desk, shown)


@router.get("/jobs/{job_id}/images/{layer}/{place}.png", response_class=Response, responses=_PNG)
def job_slice(
    desk: DeskDep,
    _caller: Viewer,
    *,
    job_id: Id,
    layer: Layer,
    place: Place,
    centre: Centre = None,
    width: Width = None,
) -> Response:
    """One slice of a layer of an enhancement as PNG; source and derived share their window."""
    shown = desk.images.of_job(job_id)
    values = desk.images.layer_slice(shown, layer, place)
    if layer in _AUTOMATIC:
        window = _AUTOMATIC[layer](values) if width is None else Window(centre or 0.0, width)
        return _png(values, window, inverted=False)
    if centre is not None and width is not None:
        window = Window(centre, width)
    else:
        window = _window(desk.images.slice_of(shown.source, place), shown.modality, centre, width)
    return _png(values, window, inverted=shown.source.inverted)


@router.get("/jobs/{job_id}/quality")
def job_quality(desk: DeskDep, _caller: Viewer, job_id: Id) -> QualityOut:
    """Noise before and after, bias, and spectra of source, derived and difference."""
    return QualityOut.model_validate(desk.quality.of_job(job_id))


def _window(values: Slice, modality: str, centre: float | None, width: float | None) -> Window:
    if centre is not None and width is not None:
        return Window(centre, width)
    return rendering.CT_PRESETS["soft tissue"] if modality == "CT" else rendering.automatic(values)


def _png(values: Slice, window: Window, *, inverted: bool) -> Response:
    grey = rendering.to_grey(values, window, inverted=inverted)
    return Response(rendering.to_png(grey), media_type="image/png", headers=_PRIVATE)


def _stack_out(desk: Desk, shown: Shown) -> StackOut:
    stack, is_ct = shown.source, shown.modality == "CT"
    middle = desk.images.slice_of(stack, shown.middle)
    windows = rendering.CT_PRESETS if is_ct else {"automatic": rendering.automatic(middle)}
    own = {
        layer: _window_out(layer, automatic(desk.images.layer_slice(shown, layer, shown.middle)))
        for layer, automatic in _AUTOMATIC.items()
        if layer in shown.layers
    }
    return StackOut(
        layers=[layer.value for layer in shown.layers],
        slices=len(stack.paths),
        rows=stack.rows,
        columns=stack.columns,
        row_spacing_mm=stack.row_spacing_mm,
        column_spacing_mm=stack.column_spacing_mm,
        modality=shown.modality,
        unit="HU" if is_ct else "",
        windows=[_window_out(name, window) for name, window in windows.items()],
        difference=own.get(Layer.DIFFERENCE),
        uncertainty=own.get(Layer.UNCERTAINTY),
    )


def _window_out(name: str, window: Window) -> WindowOut:
    return WindowOut(name=name, centre=round(window.centre, 3), width=round(window.width, 3))


def _tell(desk: Desk, caller: Caller, *, series_id: int, job_id: int | None = None) -> None:
    """Note in the audit trail that a person looks at a series, once in a quarter of an hour."""
    if desk.looks.first(f"{caller.actor}/{series_id}", _TOLD_EVERY):
        desk.store.trail.append(
            events.INSTANCES_VIEWED, series_id=series_id, job_id=job_id, data={"actor": caller.actor}
        )
