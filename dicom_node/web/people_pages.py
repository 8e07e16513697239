"""The doors: login, first run, one's own account, and the users."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dicom_node.api.security import Admin, Anyone, DeskDep, Viewer
from dicom_node.desk.access import SECRET_FILE, SHORTEST_PASSWORD
from dicom_node.desk.roles import Role, Scope
from dicom_node.web.frame import PageRoute, local_target, render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)


@router.get("/login")
def login(request: Request, desk: DeskDep, _caller: Anyone) -> Response:
    """The login; the first run instead while there is no user."""
    if not desk.store.access.any_user():
        return RedirectResponse("/first-run", 303)
    return render(request, "login.html", target=local_target(request.query_params.get("next")))


@router.get("/first-run")
def first_run(request: Request, desk: DeskDep, _caller: Anyone) -> Response:
    """Make the first administrator; the login instead once there is one."""
    if desk.store.access.any_user():
        return RedirectResponse("/login", 303)
    return render(request, "first_run.html", secret_file=SECRET_FILE, shortest=SHORTEST_PASSWORD)


@router.get("/account")
def account(request: Request, desk: DeskDep, caller: Viewer) -> HTMLResponse:
    """One's own password and keys."""
    tokens = desk.store.access.tokens(caller.name)
    return render(
        request,
        "account.html",
        caller,
        tokens=tokens,
        scopes=_scopes(caller.role),
        shortest=SHORTEST_PASSWORD,
    )


@router.get("/people")
def people(request: Request, desk: DeskDep, caller: Admin) -> HTMLResponse:
    """Users and everyone's keys."""
    return render(
        request,
        "people.html",
        caller,
        users=desk.store.access.users(),
        tokens=desk.store.access.tokens(None),
        roles=list(Role),
        shortest=SHORTEST_PASSWORD,
    )


def _scopes(role: Role | None) -> list[Scope]:
    """What a key of this person can be good for."""
    ranks = {Scope.READ: 0, Scope.METRICS: 0, Scope.ACT: 1, Scope.ADMIN: 2}
    return [scope for scope in Scope if role is not None and ranks[scope] <= role.rank]
