"""Sign in, sign out, the first run, and who I am."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from dicom_node.api.schemas import SessionOut
from dicom_node.api.security import COOKIE, Anyone, DeskDep, Viewer, anyone, peer_of, viewer
from dicom_node.desk.roles import Caller

router = APIRouter(prefix="/session", tags=["session"])

Name = Annotated[str, Field(min_length=1, max_length=64)]
Secret = Annotated[str, Field(min_length=1, max_length=1024)]


class LoginIn(BaseModel):
    """A name and a password."""

    name: Name
    password: Secret


class FirstRunIn(LoginIn):
    """The one-use secret, and who the first administrator will be."""

    secret: Secret


class FirstRunOut(BaseModel):
    """Whether the node waits for its first administrator."""

    waiting: bool


@router.post("", dependencies=[Depends(anyone)])
def sign_in(asked: LoginIn, request: Request, response: Response, desk: DeskDep) -> SessionOut:
    """Sign in; the session comes as a cookie, its CSRF token in the body."""
    _end_session(request, desk)
    caller, secret = desk.access.login(asked.name, asked.password, peer=peer_of(request))
    # Secure also on loopback without TLS: browsers treat that address as trustworthy.
    response.set_cookie(COOKIE, secret, path="/", secure=True, httponly=True, samesite="strict", max_age=None)
    return _session_out(caller)


@router.delete("", status_code=204, dependencies=[Depends(viewer)])
def sign_out(request: Request, response: Response, desk: DeskDep) -> None:
    """Sign out: the session is forgotten here, whatever happens to the cookie."""
    _end_session(request, desk)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


@router.get("")
def who_am_i(caller: Viewer) -> SessionOut:
    """Who is signed in."""
    return _session_out(caller)


@router.get("/first-run", dependencies=[Depends(anyone)])
def first_run_waiting(desk: DeskDep) -> FirstRunOut:
    """Whether the node waits for its first administrator."""
    return FirstRunOut(waiting=not desk.store.access.any_user())


@router.post("/first-run", status_code=201)
def first_run(asked: FirstRunIn, request: Request, desk: DeskDep, _caller: Anyone) -> SessionOut:
    """Make the first administrator with the secret that the node wrote into its storage directory."""
    user = desk.access.first_run(asked.secret, asked.name, asked.password, peer=peer_of(request))
    return SessionOut(name=user.name, role=user.role, csrf=None, may_reveal=False)


def _session_out(caller: Caller) -> SessionOut:
    role = caller.role.value if caller.role is not None else None
    return SessionOut(name=caller.name, role=role, csrf=caller.csrf, may_reveal=caller.may_reveal)


def _end_session(request: Request, desk: DeskDep) -> None:
    secret = request.cookies.get(COOKIE)
    if secret:
        desk.access.logout(secret)
