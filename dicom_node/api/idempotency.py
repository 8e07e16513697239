"""`Idempotency-Key` on writes: the same key and the same request get the same answer, and one effect.

The same key with another request is refused with 422. Equal requests in parallel wait for the first one's answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from config.errors import ConfigError
from dicom_node.api.problems import MEDIA_TYPE, ApiProblemError, of_error
from dicom_node.api.security import caller_of, desk_of
from dicom_node.errors import NodeError
from engine.errors import EngineError
from storage.errors import StorageError
from storage.idempotency import Idempotency, KeptAnswer

HEADER = "Idempotency-Key"
_WAIT_S = 30.0
_NOT_KEPT = frozenset({401, 403, 408, 413, 429})

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class WriteRoute(APIRoute):
    """A route whose writes may be repeated safely under a key."""

    def get_route_handler(self) -> Handler:
        """The handler, with the key looked at first."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            key = request.headers.get(HEADER)
            if key is None or request.method in ("GET", "HEAD"):
                return await inner(request)
            if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
                raise ApiProblemError(422, "bad-key", f"{HEADER} has 1 to 255 printable ASCII characters.")
            caller = await run_in_threadpool(caller_of, request)
            if caller is None:
                return await inner(request)  # which refuses it
            return await _once(request, inner, caller.actor, key)

        return handle


async def _once(request: Request, inner: Handler, owner: str, key: str) -> Response:
    kept: Idempotency = desk_of(request).store.idempotency
    asked = await _hash(request)
    found = await run_in_threadpool(kept.begin, owner, key, asked)
    if found is not None:
        return await _repeat(kept, owner, key, asked, found)
    try:
        response = await _answer(request, inner)
    except BaseException:
        await run_in_threadpool(kept.give_back, owner, key)
        raise
    if response.status_code >= 500 or response.status_code in _NOT_KEPT:
        await run_in_threadpool(kept.give_back, owner, key)
    else:
        body = bytes(response.body).decode()
        await run_in_threadpool(kept.keep, owner, key, response.status_code, body)
    return response


async def _answer(request: Request, inner: Handler) -> Response:
    """The answer, refusals included: a refused write is as final as one that was done."""
    try:
        return await inner(request)
    except (NodeError, StorageError, EngineError, ConfigError) as exc:
        return of_error(exc)


async def _repeat(kept: Idempotency, owner: str, key: str, asked: str, found: KeptAnswer) -> Response:
    """The answer of the first request with this key."""
    deadline = asyncio.get_running_loop().time() + _WAIT_S
    seen: KeptAnswer | None = found
    while seen is not None:
        if seen.request_hash != asked:
            raise ApiProblemError(422, "key-reused", f"{HEADER} was used for another request.")
        if seen.status is not None:
            media = "application/json" if seen.status < 400 else MEDIA_TYPE
            headers = {"Idempotent-Replay": "true"}
            if seen.status == 204:
                return Response(status_code=204, headers=headers)
            return Response(seen.body, seen.status, headers=headers, media_type=media)
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.02)
        seen = await run_in_threadpool(kept.look, owner, key)
    raise ApiProblemError(409, "in-progress", "A request with this key is being answered; try again.")


async def _hash(request: Request) -> str:
    parts = (request.method, request.url.path, request.url.query)
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + await request.body()).hexdigest()
