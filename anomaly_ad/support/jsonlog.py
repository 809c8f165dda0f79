"""The log: one JSON object a line on stderr."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any

_MAX_WAITING = 4_096  # lines that nobody has read yet
_PATIENCE = 1.0  # seconds for whoever reads the last ones

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A record as JSON: time, level, message, and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a line break in a value cannot begin another."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{second}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _USUAL},
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _Lines(QueueHandler):
    """Puts lines into a queue. Those for which it has no room are left out, and counted."""

    left_out = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make the line now: what it tells of may change."""
        if self.left_out:
            record.lines_left_out = self.left_out
        return super().prepare(record)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a line into the queue, if it has room."""
        try:
            super().enqueue(record)
            self.left_out = 0
        except queue.Full:
            self.left_out += 1


class _Writer(QueueListener):
    """Writes lines from a queue in a thread: nothing waits for whoever reads the log."""

    def __init__(self, lines: queue.Queue[Any], descriptor: int) -> None:
        super().__init__(lines)
        self._descriptor = descriptor

    def handle(self, record: logging.LogRecord) -> None:
        """Write a line. Where that cannot be done there is nobody to tell."""
        with suppress(OSError):
            os.write(self._descriptor, f"{record.getMessage()}\n".encode())

    def end(self) -> None:
        """Write what waits, unless nobody reads."""
        with suppress(queue.Full):
            self.stop()


@contextmanager
def json_log() -> Iterator[None]:
    """Send everything that is logged to stderr, and nothing else.

    The libraries that decode images write to file descriptor 2 by themselves, up to a million
    lines for one damaged image. What is wrong with an image is said in its answer.
    """
    sys.stderr.flush()
    descriptor, stderr = os.dup(2), sys.stderr
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    faulthandler.enable(descriptor)
    sys.stderr = open(descriptor, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    lines: queue.Queue[Any] = queue.Queue(_MAX_WAITING)
    handler, writer = _Lines(lines), _Writer(lines, descriptor)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    handlers, root.handlers, level = root.handlers, [handler], root.level
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for library in ("uvicorn.error", "python_multipart"):  # what clients do wrong is not an event
        logging.getLogger(library).setLevel(logging.ERROR)
    writer.start()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers, sys.stderr = handlers, stderr
        root.setLevel(level)
        faulthandler.disable()
        os.dup2(descriptor, 2)
        last = threading.Thread(target=writer.end, daemon=True)
        last.start()
        last.join(_PATIENCE)
