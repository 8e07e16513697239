"""The whole site: the API, the static files and the pages on one application."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from starlette.staticfiles import StaticFiles

from dicom_node import __version__
from dicom_node.api.app import create_app, refuse_open_routes
from dicom_node.api.security import Anyone
from dicom_node.desk.desk import Desk

HERE = Path(__file__).parent
templates = Jinja2Templates(directory=HERE / "templates")
router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


def build_site(desk: Desk) -> FastAPI:
    """The application that the web process serves."""
    app = create_app(desk)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.include_router(router)
    refuse_open_routes(app)
    return app


@router.get("/")
def front(request: Request, _caller: Anyone) -> HTMLResponse:
    """The frame of the page; what it shows comes from the API, behind the login."""
    return templates.TemplateResponse(request, "base.html", {"version": __version__})
