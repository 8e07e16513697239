"""The application: limits outside, problems for errors, routers under /api/v1, and no route without a role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from dicom_node import __version__
from dicom_node.api import (
    act_routes,
    health_routes,
    image_routes,
    people_routes,
    problems,
    read_routes,
    review_routes,
    rule_routes,
    search_routes,
    session_routes,
    shadow_routes,
    watch_routes,
)
from dicom_node.api.limits import Limits
from dicom_node.api.security import Allow, allowance_of
from dicom_node.desk.desk import Desk
from dicom_node.desk.metrics import Metrics
from dicom_node.errors import NodeError

PREFIX = "/api/v1"
ROUTERS: tuple[APIRouter, ...] = (
    session_routes.router,
    read_routes.router,
    act_routes.router,
    rule_routes.router,
    image_routes.router,
    review_routes.router,
    people_routes.router,
    health_routes.router,
    search_routes.router,
    watch_routes.router,
    shadow_routes.router,
)
UPLOADS = (f"{PREFIX}/uploads",)


class OpenRouteError(NodeError):
    """A route declares no role; nothing is served rather than that."""


def create_app(desk: Desk) -> FastAPI:
    """The API in front of a desk. Raises `OpenRouteError` for a route that declares no role."""
    app = FastAPI(
        title="DICOM enhancement node",
        version=__version__,
        description="Research use only. Not a cleared medical device.",
        openapi_url=f"{PREFIX}/openapi.json",
        # The interactive pages load scripts from outside hosts.
        docs_url=None,
        redoc_url=None,
        responses={"default": {"description": "A problem (RFC 9457)", "content": {problems.MEDIA_TYPE: {}}}},
    )
    app.state.desk = desk
    app.state.metrics = Metrics(desk)
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    refuse_open_routes(app)
    app.add_middleware(
        Limits,
        unlimited=lambda path: path.startswith(UPLOADS),
        hsts=desk.settings.api.tls is not None,
    )
    return app


@dataclass(frozen=True)
class ServedRoute:
    """One route as it is served: its path, its methods, and whom it lets in (None: it does not say)."""

    path: str
    methods: frozenset[str]
    allow: Allow | None


def served_routes(app: FastAPI) -> Iterator[ServedRoute]:
    """Every route with a handler of ours, wherever the framework keeps it."""
    for found in iter_route_contexts(app.routes):
        if isinstance(found.original_route, APIRoute):
            methods = frozenset(found.methods or ()) - {"HEAD"}
            yield ServedRoute(found.path or "", methods, allowance_of(found.original_route))


def refuse_open_routes(app: FastAPI) -> None:
    """Raise `OpenRouteError` when a route does not say who may call it."""
    for route in served_routes(app):
        if route.allow is None:
            raise OpenRouteError(f"the route {route.path} declares no role")
