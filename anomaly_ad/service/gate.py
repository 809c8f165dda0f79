"""What every request passes: the token, the log, the counters, and the last catch of errors."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .refusal import Refusal
from .settings import Settings

# For whoever watches the process, and what holds nothing but this program's own text.
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})

_MAX_PATH = 200  # characters of it that are logged
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]

_log = logging.getLogger(__name__)


@dataclass
class Visit:
    """What is known of one request beside ASGI; ``scope["state"]["visit"]``.

    Parameters
    ----------
    give_up : callable
        Ends the request, because its client keeps the service waiting.
    request_id : str
        In the answer's headers and in the log.
    seen : dict
        What the log says of it.
    until_sent : ExitStack
        Closed when the answer was sent or nobody waits for it any more.
    refused : int or None
        Status that the protocol has answered with by itself.
    broke_off : bool
        Whether the client has left before it had an answer.
    """

    give_up: Callable[[], None] = lambda: None
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    seen: dict[str, Any] = field(default_factory=dict)
    until_sent: ExitStack = field(default_factory=ExitStack)
    refused: int | None = None
    broke_off: bool = False


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

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless its token is missing."""
        if scope["type"] != "http":
            return
        start, status = time.perf_counter(), 0
        visit: Visit = scope.setdefault("state", {}).setdefault("visit", Visit())
        headers = [*_HEADERS, (b"x-request-id", visit.request_id.encode())]
        visit.seen["method"] = scope["method"]
        if scope["method"] == "HEAD":
            # Answered as GET; the protocol leaves the body out.
            scope = {**scope, "method": "GET"}

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            with visit.until_sent:
                if scope["path"] in OPEN or self._settings.lets_in(_authorization(scope)):
                    await self._app(scope, receive, noted)
                else:
                    given = "This is not the token. " if _authorization(scope) else ""
                    message = f"{given}Send the token: Authorization: Bearer <token>."
                    await _refuse(noted, Refusal(401, message))
        except Exception:
            # Starlette has answered with status 500 by now, if there was still time.
            _log.exception("a request failed", extra={"request": visit.request_id})
            if not status:
                await _refuse(noted, Refusal(500, "The service failed; its log says why."))
        finally:
            if visit.refused or visit.broke_off:
                status = visit.refused or 0  # what the application has said then, nobody got
            self._note(scope, status, time.perf_counter() - start, visit)

    def note_refused(self, client: tuple[str, int] | None, status: int) -> None:
        """Count and log what the protocol has refused before it was a request."""
        self._metrics.requests.labels("other", str(status)).inc()
        _log.info("request", extra={"client": client[0] if client else None, "status": status})

    def _note(self, scope: Scope, status: int, seconds: float, visit: Visit) -> None:
        # Only paths that exist: a client must not be able to make up ever new labels.
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(path, str(status or "none")).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client")
        facts = {
            "request": visit.request_id,
            "client": client[0] if client else None,
            "path": scope["path"][:_MAX_PATH],
            "status": status or None,  # None: the client had gone before the answer began
            "ms": round(1000 * seconds, 1),
            **visit.seen,
        }
        _log.info("request", extra=facts)


def _authorization(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"authorization"), b"")


async def _refuse(send: Send, refusal: Refusal) -> None:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})
