"""Errors as problem responses (RFC 9457): one table from our error classes to status and type.

A problem never repeats input: a value that was refused may be a patient's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from config.errors import ConfigError
from dicom_node.desk.access import (
    LastAdministratorError,
    LoginRefusedError,
    LoginThrottledError,
    WeakPasswordError,
)
from dicom_node.errors import NodeError, PeerError, ReasonedError
from dicom_node.observability.logs import describe_error
from dicom_node.operations import UnknownNameError
from engine.errors import EngineError
from storage.errors import (
    DatabaseUnavailableError,
    IllegalTransitionError,
    NotFoundError,
    SpoolFullError,
    StorageError,
    TakenError,
)

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class ApiProblemError(NodeError):
    """A refusal of the API itself: a status, a type and a sentence."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.headers = headers
        self.more = more


# The first class that fits decides, so a class stands before its bases.
TABLE: Sequence[tuple[type[Exception], int, str]] = (
    (LoginRefusedError, 401, "login-refused"),
    (LoginThrottledError, 429, "login-throttled"),
    (WeakPasswordError, 422, "weak-credentials"),
    (LastAdministratorError, 409, "last-administrator"),
    (UnknownNameError, 404, "not-found"),
    (NotFoundError, 404, "not-found"),
    (TakenError, 409, "taken"),
    (IllegalTransitionError, 409, "not-possible-now"),
    (SpoolFullError, 507, "no-space"),
    (DatabaseUnavailableError, 503, "database-unavailable"),
    (PeerError, 502, "peer"),
    (ReasonedError, 422, "refused"),
    (ConfigError, 422, "invalid-configuration"),
    (StorageError, 500, "storage"),
    (EngineError, 422, "engine"),
    (NodeError, 422, "refused"),
)


def problem(
    status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """A problem response; `kind` is stable and meant for programs, `detail` for people."""
    body = {"type": f"urn:dicom-node:problem:{kind}", "title": kind.replace("-", " "), "status": status}
    return JSONResponse(
        {**body, "detail": detail, **more}, status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def of_error(error: Exception) -> JSONResponse:
    """The problem response for one of our errors; anything unknown is an internal error without details."""
    if isinstance(error, ApiProblemError):
        return problem(error.status, error.kind, str(error), headers=error.headers, **error.more)
    for kind, status, slug in TABLE:
        if isinstance(error, kind):
            return problem(status, slug, str(error), headers=_headers(error), **_facts(error))
    log.error("api.failed", **describe_error(error))
    return problem(500, "internal-error", "The node made a mistake; the log names the place.")


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""

    def ours(_request: Request, error: Exception) -> JSONResponse:
        return of_error(error)

    def http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 (registered for it alone)
        words = {
            404: "not-found",
            405: "method-not-allowed",
            408: "too-slow",
            413: "too-large",
            400: "bad-request",
        }
        kind = words.get(error.status_code, "http")
        return problem(error.status_code, kind, str(error.detail), headers=error.headers)

    def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        errors = [
            {"at": [str(part) for part in fault["loc"]], "message": str(fault["msg"])[:200]}
            for fault in error.errors()[:20]
        ]
        return problem(422, "invalid-request", "The request does not fit; see errors.", errors=errors)

    for kind in (NodeError, StorageError, EngineError, ConfigError, Exception):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def _headers(error: Exception) -> dict[str, str]:
    if isinstance(error, LoginThrottledError):
        return {"Retry-After": str(max(1, round(error.wait.total_seconds())))}
    return {"Retry-After": "5"} if isinstance(error, DatabaseUnavailableError) else {}


def _facts(error: Exception) -> dict[str, Any]:
    if isinstance(error, ReasonedError):
        return {"reason": str(error.reason)}
    if isinstance(error, ConfigError):
        lines = [
            {"at": found.key_path, "line": found.line, "message": found.message} for found in error.problems
        ]
        return {"errors": lines}
    return {}
