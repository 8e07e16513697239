"""What every page shares: the frame, how refusals look to a person, and the way to the login."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from config.errors import ConfigError
from dicom_node import __version__
from dicom_node.api.problems import ApiProblemError, of_error
from dicom_node.api.security import desk_of
from dicom_node.desk.roles import Caller, Role
from dicom_node.errors import NodeError
from dicom_node.web import words
from engine.errors import EngineError
from storage.errors import StorageError

HERE = Path(__file__).parent
RESEARCH_USE = "Research use only. Not a cleared medical device. Not for primary diagnosis."

# Everything is escaped, whatever the template is called; a name that nobody gave is an error, not a blank.
templates = Jinja2Templates(
    env=Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
)
templates.env.filters.update(words.FILTERS)
templates.env.globals.update(node_version=__version__, research_use=RESEARCH_USE)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route for people: who is not signed in is sent to the login, and a refusal is a page."""

    def get_route_handler(self) -> Handler:
        """The handler, with its errors turned into pages."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except RequestValidationError:
                return _refusal(
                    request, 404, "There is no such page: the address holds a value that does not fit."
                )
            except (NodeError, StorageError, EngineError, ConfigError) as exc:
                if isinstance(exc, ApiProblemError) and exc.status == 401:
                    return RedirectResponse(f"/login?next={quote(_target(request), safe='')}", 303)
                answer = of_error(exc)
                return _refusal(request, answer.status_code, json.loads(bytes(answer.body))["detail"])

        return handle


def render(request: Request, name: str, caller: Caller | None = None, **values: Any) -> HTMLResponse:
    """A page of the frame. `caller` None: nobody is signed in, and there is no navigation."""
    desk = desk_of(request)
    role = None if caller is None else caller.role
    frame = {
        "caller": caller,
        "role": role,
        "may_act": role is not None and role.rank >= Role.OPERATOR.rank,
        "may_rule": role is Role.ADMIN,
        "now": desk.now(),
        "here": request.url.path,
    }
    return templates.TemplateResponse(request, name, {**frame, **values})


def _refusal(request: Request, status: int, detail: str) -> HTMLResponse:
    response = render(request, "refused.html", None, status=status, detail=detail)
    response.status_code = status
    return response


def _target(request: Request) -> str:
    """Path and query to come back to; never another host, for it is taken from the path alone."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def local_target(target: str | None) -> str:
    """Where to go after the login: a path of this page, whatever was asked for."""
    fine = target is not None and target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if fine and target is not None and target.isprintable() else "/overview"
