"""The pages of what the operator decided: routes and peers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from config.explain import describe
from config.sections import Peer
from dicom_node.api.security import DeskDep, Viewer
from dicom_node.desk.desk import Desk
from dicom_node.web.frame import PageRoute, render
from storage.filters import EventFilter, SeriesFilter

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)


@router.get("/routes")
def routes_page(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """The rules in plain words, each with its last matches; a draft to try, apply and take back."""
    routes = desk.rules.settings().routes
    shown = [
        {
            "route": route,
            "when": describe(route.when),
            "latest": desk.store.listing.series(SeriesFilter(route=route.name), limit=4).items,
        }
        for route in routes
    ]
    return render(
        request,
        "routes.html",
        caller,
        routes=shown,
        text=desk.rules.text(),
        version=desk.rules.version(),
        versions=desk.store.route_versions.list(20),
    )


@router.get("/peers")
def peers_page(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """Every peer: whether it answers, what waits for it, how much of what it was sent arrived."""
    figures = desk.figures.overview().figures
    names = {peer.name for peer in desk.settings.peers}
    return render(
        request,
        "peers.html",
        caller,
        peers=[_peer(desk, peer) for peer in desk.settings.peers],
        others={name: found for name, found in figures.peers.items() if name not in names},
        senders=figures.series_by_sender,
        echoes=_echoes(desk),
    )


def _peer(desk: Desk, peer: Peer) -> dict[str, Any]:
    figures = desk.figures.overview().figures.peers.get(peer.name)
    return {
        "peer": peer,
        "status": desk.store.destinations.status(peer.name),
        "jobs": figures.jobs if figures else {},
        "instances": figures.instances if figures else {},
        "oldest": figures.oldest_waiting if figures else None,
    }


def _echoes(desk: Desk) -> dict[str, Any]:
    """The latest echo of each peer that a person asked for."""
    found = desk.store.listing.events(EventFilter(name="peer.echoed"), limit=100).items
    return {str(event.data.get("peer")): event for event in reversed(found)}
