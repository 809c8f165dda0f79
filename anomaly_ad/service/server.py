"""The process: socket, models, signals."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ..errors import OptionError
from ..inspection import check_place, place
from ..support.jsonlog import json_log
from ..support.signals import ended_by_signals
from .app import Service, create_app
from .metrics import Metrics
from .models import Models
from .settings import Settings

_KEEP_ALIVE = 30  # seconds that a connection may lie idle between two requests
_MAX_CONNECTIONS = 512
_MAX_HEADERS = 32_768  # bytes
# After a signal connections are taken for this long: a request may be on its way in one that lies
# idle, and its client is told there that the connection ends.
_LAST_REQUESTS = 0.25  # seconds

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket: its address is taken before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        why = str(error).rstrip(".")
        raise OptionError(
            f"The service cannot listen on {host} port {port}: {why}. Choose another --host or "
            "--port."
        ) from error
    # Connections inherit these. Head and body of an answer are two writes: the second must not
    # wait until the client has acknowledged the first. And clients that are gone must be noticed.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return listener


def serve(directories: Mapping[str, Path], settings: Settings, host: str, port: int) -> None:
    """Answer requests until SIGTERM, SIGINT or SIGHUP, then finish what was accepted.

    The address is printed on stdout; port 0 takes a free one.
    """
    with bind(host, port) as listener, json_log():
        metrics = Metrics()
        models = Models(
            directories,
            metrics.note_reload,
            lambda stored: check_place(place(stored, settings.device, settings.check)),
        )
        service = Service(settings, models, metrics)
        if settings.token is None and not (host in ("localhost", "::1") or host[:4] == "127."):
            _log.warning("whoever reaches this address may use it: set a token (--token-file)")

        def end() -> None:
            service.ending = True
            loop = asyncio.get_running_loop()
            loop.call_later(_LAST_REQUESTS, setattr, server, "should_exit", True)

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            host, port = listener.getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            loop = asyncio.get_running_loop()
            with models.watched(), ended_by_signals(lambda: loop.call_soon_threadsafe(end)):
                print(address, flush=True)
                _log.info("listening", extra={"address": address})
                yield

        config = uvicorn.Config(
            create_app(service, lifespan),
            loop="asyncio",
            http="h11",  # it bounds the headers
            h11_max_incomplete_event_size=_MAX_HEADERS,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE,
            # A request has three deadlines: it arrives, it is inspected, its answer is taken.
            timeout_graceful_shutdown=int(3 * settings.timeout) + 1,
        )
        server = uvicorn.Server(config)
        try:
            server.run([listener])
        finally:
            service.close()
            _log.info("ended")
