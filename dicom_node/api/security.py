"""Who is asking, and whether they may: each route declares a role, and what declares none is not served.

A browser comes with a session cookie; its writes also need the session's CSRF token in a header and an Origin that is
this page. A program comes with `Authorization: Bearer KEY`.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from dicom_node.api.limits import real_peer
from dicom_node.api.problems import ApiProblemError
from dicom_node.desk.desk import Desk
from dicom_node.desk.roles import Caller, Role

COOKIE = "__Host-session"
CSRF_HEADER = "X-CSRF-Token"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def desk_of(request: Request) -> Desk:
    """The desk this application stands in front of."""
    desk: Desk = request.app.state.desk
    return desk


async def _desk(request: Request) -> Desk:
    """As `desk_of`; a plain function would be sent to a thread of its own with every request."""
    return desk_of(request)


DeskDep = Annotated[Desk, Depends(_desk)]


class Allow:
    """A dependency that lets only callers of a role pass and returns the caller; `None` means anyone."""

    def __init__(self, role: Role | None) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Caller:
        """The caller. Raises 401 for nobody, 403 for somebody who may not."""
        caller = await run_in_threadpool(caller_of, request)
        if self.role is None:
            check_origin(request)
            return caller or Caller("anonymous", None)
        if caller is None:
            raise ApiProblemError(
                401, "not-signed-in", "Sign in, or send a key.", headers={"WWW-Authenticate": "Bearer"}
            )
        if caller.token_id is None:
            check_csrf(request, caller)
        if not caller.may(self.role):
            await run_in_threadpool(_tell_denied, request, caller)
            raise ApiProblemError(403, "not-allowed", f"This needs the role {self.role}.")
        request.state.caller = caller
        return caller


anyone = Allow(None)
viewer = Allow(Role.VIEWER)
operator = Allow(Role.OPERATOR)
admin = Allow(Role.ADMIN)

Anyone = Annotated[Caller, Depends(anyone)]
Viewer = Annotated[Caller, Depends(viewer)]
Operator = Annotated[Caller, Depends(operator)]
Admin = Annotated[Caller, Depends(admin)]


def _tell_denied(request: Request, caller: Caller) -> None:
    """Note once in a minute that somebody asked for what the role does not allow; paths hold numbers only."""
    desk, path = desk_of(request), request.url.path[:200]
    if desk.looks.first(f"denied/{caller.actor}/{request.method}/{path}", timedelta(minutes=1)):
        data = {"actor": caller.actor, "method": request.method, "path": path}
        desk.store.trail.append("access.denied", data=data)


def caller_of(request: Request) -> Caller | None:
    """Who comes with this request, by key or by cookie; None for nobody."""
    desk = desk_of(request)
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and key:
        return desk.access.token(key.strip())
    secret = request.cookies.get(COOKIE)
    return desk.access.session(secret) if secret else None


def check_csrf(request: Request, caller: Caller) -> None:
    """Refuse a write by cookie that this page did not send. Raises 403."""
    if request.method in _READING:
        return
    check_origin(request)
    sent = request.headers.get(CSRF_HEADER, "")
    if caller.csrf is None or not hmac.compare_digest(sent.encode(), caller.csrf.encode()):
        raise ApiProblemError(403, "cross-site", f"{CSRF_HEADER} is missing or wrong.")


def check_origin(request: Request) -> None:
    """Refuse a write whose Origin is missing or another page. Raises 403."""
    if request.method in _READING:
        return
    origin = request.headers.get("origin", "")
    if not origin or urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise ApiProblemError(403, "cross-site", "Origin is missing or is not this page.")


def peer_of(request: Request) -> str:
    """The address the request really came from."""
    return real_peer(request.scope, desk_of(request).settings.api.proxies)


def allowance_of(route: object) -> Allow | None:
    """What a route declares; None when it declares nothing."""
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return None
    found = [d.call for d in dependant.dependencies if isinstance(d.call, Allow)]
    return found[0] if found else None
