"""The whole site: the API, the static files and the pages on one application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from dicom_node.api.app import create_app, refuse_open_routes
from dicom_node.desk.desk import Desk
from dicom_node.web import finding_pages, image_pages, line_pages, people_pages, rule_pages, shadow_pages
from dicom_node.web.frame import HERE

ROUTERS = (
    line_pages.router,
    image_pages.router,
    rule_pages.router,
    finding_pages.router,
    people_pages.router,
    shadow_pages.router,
)


def build_site(desk: Desk) -> FastAPI:
    """The application that the web process serves."""
    app = create_app(desk)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for router in ROUTERS:
        app.include_router(router)
    refuse_open_routes(app)
    return app
