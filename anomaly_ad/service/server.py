"""The process: socket, models, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from ..errors import OptionError
from .app import Service, create_app
from .log import json_log
from .metrics import Metrics
from .models import Models
from .protocol import SILENCE, Protocol
from .settings import Settings

_BACKLOG = 128
_KEEP_ALIVE = 30  # seconds that a connection may lie idle between two requests

_ENDS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Says where it listens; SIGTERM, SIGINT and SIGHUP end it in order, the second one at once."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Print the address when requests are taken."""
        await super().startup(sockets)
        print(self._address, flush=True)
        _log.info("listening", extra={"address": self._address})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted."""
        Protocol.end_lingering()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals; uvicorn would raise them again after an orderly end."""
        # What is ignored stays so: nohup does that with SIGHUP.
        handled = [number for number in _ENDS if signal.getsignal(number) != signal.SIG_IGN]
        previous = {number: signal.signal(number, self._end) for number in handled}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: Any) -> None:
        if self.should_exit:
            os._exit(128 + number)  # whatever is stuck
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket's address is taken before anything is loaded.

    Raises
    ------
    OptionError
        It is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        why = str(error).rstrip(".")
        raise OptionError(
            f"The service cannot listen on {host} port {port}: {why}. Choose another --host or "
            "--port."
        ) from error


def serve(directories: Mapping[str, Path], settings: Settings, host: str, port: int) -> None:
    """Answer requests until SIGTERM, SIGINT or SIGHUP, then finish what was accepted.

    Parameters
    ----------
    directories : mapping of str to Path
        Model directories by name.
    settings : Settings
        How requests are taken.
    host, port
        Where to listen; port 0 takes a free one. The address is printed on stdout.

    Raises
    ------
    OptionError, ModelError
        The address cannot be had, or a model cannot be loaded.
    """
    with json_log(), bind(host, port) as listener:
        metrics = Metrics()

        def changed(name: str, worked: bool) -> None:
            metrics.reloads.labels(name, "taken_up" if worked else "failed").inc()

        models = Models(directories, changed)
        service = Service(settings, models, metrics)
        if settings.token is None and not _is_local(host):
            _log.warning("whoever reaches this address may use it: set a token, see README")
        app = create_app(service)
        attributes = {
            "timeout": settings.timeout,
            "max_connections": _max_connections(),
            "note_refused": staticmethod(app.note_refused),
        }
        config = uvicorn.Config(
            app,
            http=type("TimedProtocol", (Protocol,), attributes),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            # A request that was accepted has four deadlines to meet, then it is given up: its turn
            # comes, it arrives, it is judged, its answer is taken. Then its connection lingers.
            timeout_graceful_shutdown=int(4 * settings.timeout + SILENCE) + 1,
        )
        models.start()
        try:
            asyncio.run(Server(config, _address(listener)).serve([listener]))
        finally:
            models.stop()
            service.close()
            _log.info("ended")


def _max_connections() -> int:
    """As many as leave the process half of the files that it may open."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return Protocol.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Protocol.max_connections if files < 0 else min(Protocol.max_connections, files // 2)


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
