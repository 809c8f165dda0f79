"""ASGI middleware: what holds for every request, whatever it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .schema import Refusal
from .settings import Settings

# For whoever watches the process, and what holds nothing but this program's own text.
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})

_MAX_PATH = 200  # characters of it that are logged
_PIECE = 65_536  # bytes of an answer that are sent at a time
# Requests are small compared with the largest that is taken; this many of those fit at a time.
_LARGEST_AT_A_TIME = 8
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

_log = logging.getLogger(__name__)


class Access:
    """The token, the headers of every answer, the log, the counters, the last catch of errors.

    ``request.state.facts`` is a dict of what the log says of a request.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, is_ending: Callable[[], bool]
    ) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._is_ending = is_ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless its token is missing."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, request = time.perf_counter(), 0, secrets.token_hex(8)
        facts = {"request": request, "method": scope["method"], "path": scope["path"][:_MAX_PATH]}
        # HEAD is answered as GET; the server leaves the body out.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        scope = {**scope, "method": method, "state": {**scope.get("state", {}), "facts": facts}}

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({**_HEADERS, "x-request-id": request})
                if self._is_ending():
                    headers["connection"] = "close"
            await send(message)

        given, app = Headers(scope=scope).get("authorization", ""), self._app
        if scope["path"] not in OPEN and not self._settings.lets_in(given):
            wrong = "The token is wrong. " if given else ""
            app = Refusal(401, f"{wrong}Send the token: Authorization: Bearer <token>.").response()
        try:
            await app(scope, receive, send_noted)
        except Exception:
            _log.exception("a request failed", extra={"request": request})
            if not status:
                failure = Refusal(500, "The service failed; its log says why.").response()
                await failure(scope, receive, send_noted)
        finally:
            seconds, client = time.perf_counter() - start, scope.get("client")
            # None: the client had gone before the answer began.
            facts = {"status": status or None, "ms": round(1000 * seconds, 1), **facts}
            _log.info("request", extra={"client": client[0] if client else None, **facts})
            # Only paths that exist: a client must not be able to make up ever new labels.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(facts["status"] or "none")).inc()
            self._metrics.seconds.labels(path).observe(seconds)


class BodyLimits:
    """How many bytes requests and answers hold, each and all at a time, and for how long.

    A request has ``timeout`` seconds to arrive and as many until its answer is taken. One that is
    answered before it has arrived as a whole is read on until then and thrown away: if its bytes
    were left unread, the system would reset the connection, and the client would lose the answer
    (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self.settings = settings
        self.bytes = 0  # that are held now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with limits around its body and its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self.bytes -= exchange.held


class _Exchange:
    """One request and its answer."""

    def __init__(self, limits: BodyLimits, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits, self._receive, self._send = limits, receive, send
        self._deadline = asyncio.get_running_loop().time() + limits.settings.timeout
        self.held = 0  # bytes
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        self._size = int(declared[:20]) if declared.isascii() and declared.isdigit() else 0
        # Whether some of the request has not arrived.
        self._more = self._size > 0 or "transfer-encoding" in headers

    async def receive(self) -> Message:
        """A part of the request."""
        if not self._more:
            return await self._receive()
        settings = self._limits.settings
        self._check(self._size)
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            late = f"The request took longer than {settings.timeout:g} s to arrive."
            raise Refusal(408, late) from None
        self._more = message.get("more_body", False)
        self._hold(self.held + len(message.get("body", b"")))
        self._check(self.held)
        if self._limits.bytes > _LARGEST_AT_A_TIME * settings.max_bytes:
            raise Refusal(503, "The queue is full. Send the request again later.")
        return message

    def _check(self, size: int) -> None:
        most = self._limits.settings.max_bytes
        if size > most:
            raise Refusal(
                413,
                f"The request is larger than {most:,} bytes. Send fewer or smaller images, or "
                "start the service with a larger --max-bytes.",
            )

    async def send(self, message: Message) -> None:
        """A part of the answer; of a large one as much at a time as the client takes."""
        if message["type"] == "http.response.start":
            if self._more:
                MutableHeaders(scope=message)["connection"] = "close"
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        self._hold(len(body))  # in place of the request, which has been worked on
        with contextlib.suppress(TimeoutError):  # the server closes what is not complete
            async with asyncio.timeout(self._limits.settings.timeout):
                while len(body) > _PIECE:
                    await self._send({**message, "body": body[:_PIECE], "more_body": True})
                    body = body[_PIECE:]
                await self._send({**message, "body": body, "more_body": more or self._more})
        if self._more and not more:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._deadline):
                    while self._more:
                        self._more = (await self._receive()).get("more_body", False)
            await self._send({**message, "body": b"", "more_body": False})

    def _hold(self, size: int) -> None:
        self._limits.bytes += size - self.held
        self.held = size
