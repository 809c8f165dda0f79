"""What every request passes: the token, the log, the counters, and the last catch of errors."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .metrics import Metrics
from .settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# For whoever watches the process, and what holds nothing but this program's own text.
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})

_MAX_PATH = 200  # characters of it that are logged
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]

_log = logging.getLogger(__name__)


class Gate:
    """Wraps the application.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
        For the token.
    metrics : Metrics
        Counts the requests.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless its token is missing."""
        if scope["type"] != "http":
            return
        start, status = time.perf_counter(), 0
        request_id = secrets.token_hex(8)
        seen: dict[str, Any] = {}
        scope.setdefault("state", {})["seen"] = seen
        headers = [*_HEADERS, (b"x-request-id", request_id.encode())]

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            if scope["path"] in OPEN or self._settings.lets_in(_authorization(scope)):
                await self._app(scope, receive, noted)
            else:
                await _refuse(noted, 401, "Send the token: Authorization: Bearer <token>.")
        except Exception:
            # Starlette has answered with status 500 by now, if there was still time.
            _log.exception("a request failed", extra={"request": request_id})
            if not status:
                await _refuse(noted, 500, "The service failed; its log says why.")
        finally:
            self._note(scope, status, time.perf_counter() - start, request_id, seen)

    def _note(
        self, scope: Scope, status: int, seconds: float, request_id: str, seen: dict[str, Any]
    ) -> None:
        # Only paths that exist: a client must not be able to make up ever new labels.
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client")
        facts = {
            "request": request_id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:_MAX_PATH],
            "status": status or None,  # None: the client had gone before the answer began
            "ms": round(1000 * seconds, 1),
            **seen,
        }
        _log.info("request", extra=facts)


def _authorization(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"authorization"), b"")


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
