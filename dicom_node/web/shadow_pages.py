"""The page of models: the one that is sent beside the one on trial, and the act that promotes or drops it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dicom_node.api.security import DeskDep, Viewer
from dicom_node.desk import shadow
from dicom_node.web.asked import Asked
from dicom_node.web.frame import PageRoute, render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)

_NAMES: Mapping[str, str] = {
    "noise_before": "Noise before",
    "noise_after": "Noise after",
    "bias": "Bias",
    "seconds": "Seconds for a series",
}


@dataclass(frozen=True)
class Side:
    """One figure of both models; `change` is the share by which the one on trial differs, None if that says nothing."""

    name: str
    primary: float | None
    shadow: float | None
    change: float | None


@router.get("/models")
def models_page(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """The model in use, the trial that runs or was asked for, and every trial before it."""
    trials = desk.store.shadow.trials()
    chosen = Asked(request.query_params).number("trial") or (trials[0].id if trials else None)
    found = None if chosen is None else shadow.compare(desk, chosen)
    return render(
        request,
        "models.html",
        caller,
        in_use=desk.rules.settings().enhancement.enhancer,
        promoted=desk.store.shadow.promoted(),
        running=desk.store.shadow.running(),
        choices=shadow.choices(),
        found=found,
        sides=[] if found is None else side_by_side(found.primary, found.shadow),
        trials=trials,
    )


def side_by_side(primary: Mapping[str, float], tried: Mapping[str, float]) -> list[Side]:
    """The medians of both models, figure by figure."""
    return [
        Side(name, primary.get(key), tried.get(key), _change(primary.get(key), tried.get(key)))
        for key, name in _NAMES.items()
    ]


def _change(before: float | None, after: float | None) -> float | None:
    """The relative difference. Of a bias, which should be nought, and from nought there is none."""
    return None if not before or after is None or before < 0 else after / before - 1.0
