"""What a request may bring, and what every response carries: the outermost layer, plain ASGI.

Bodies are counted as they come, so a wrong Content-Length deceives nobody; compressed bodies are refused, so none can
grow in here; a body that does not arrive in time ends the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_node.api.problems import problem

LARGEST_BODY = 1024 * 1024
LARGEST_HEADERS = 16 * 1024
BODY_TIME_S = 30.0

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SECURITY = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class _BodyTooLargeError(HTTPException):
    """More bytes came than the path may take."""

    def __init__(self) -> None:
        super().__init__(413, "The body is larger than allowed.")


class _BodyTooSlowError(HTTPException):
    """The body did not come in time."""

    def __init__(self) -> None:
        super().__init__(408, "The body did not arrive in time.")


class Limits:
    """Holds requests to their limits and puts the security headers on every response.

    `unlimited(path)` names the paths whose handlers count for themselves. `hsts`: the page is reached by TLS.
    """

    def __init__(self, app: ASGIApp, *, unlimited: Callable[[str], bool], hsts: bool) -> None:
        self._app = app
        self._unlimited = unlimited
        self._headers = dict(_SECURITY)
        if hsts:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(MutableHeaders(scope=message), scope["path"])
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        # What `receive` raises is answered by the application, like every other error.
        await self._app(scope, self._counted(scope["path"], receive), sending)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """The answer to a request that need not be looked at, or None."""
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEADERS:
            return problem(431, "headers-too-large", "The headers are larger than allowed.")
        if headers.get("content-encoding", "identity").lower() != "identity":
            return problem(415, "encoded-body", "Compressed bodies are not taken.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal() and len(length) <= 19):
            return problem(400, "bad-request", "Content-Length is not a number.")
        if int(length) > LARGEST_BODY and not self._unlimited(scope["path"]):
            return problem(413, "too-large", "The body is larger than allowed.")
        return None

    def _counted(self, path: str, receive: Receive) -> Receive:
        """`receive` that counts, and waits for a body no longer than is decent."""
        if self._unlimited(path):
            return receive
        seen, deadline = 0, asyncio.get_running_loop().time() + BODY_TIME_S
        done = False

        async def receiving() -> Message:
            nonlocal seen, done
            if done:  # the handler waits for the end of the connection, however long that takes
                return await receive()
            wait_s = max(0.0, deadline - asyncio.get_running_loop().time())
            try:
                message = await asyncio.wait_for(receive(), wait_s)
            except TimeoutError as exc:
                raise _BodyTooSlowError from exc
            seen += len(message.get("body", b""))
            done = message["type"] != "http.request" or not message.get("more_body", False)
            if seen > LARGEST_BODY:
                raise _BodyTooLargeError
            return message

        return receiving

    def _dress(self, headers: MutableHeaders, path: str) -> None:
        for name, value in self._headers.items():
            headers[name] = value
        if not path.startswith("/static/"):
            headers["Cache-Control"] = headers.get("Cache-Control", "no-store")


def real_peer(scope: Scope, trusted: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """The address a request really came from: the last one that no trusted proxy vouches for."""
    client = scope.get("client")
    peer: str = client[0] if client else "unknown"
    forwarded = Headers(scope=scope).get("x-forwarded-for", "")
    for candidate in reversed([part.strip() for part in forwarded.split(",")]):
        if not _within(peer, trusted) or not candidate:
            break
        if not _is_address(candidate):
            break
        peer = candidate
    return peer


def _within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
