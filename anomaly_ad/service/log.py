"""The log: one JSON object a line on stderr."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..support import printable

_MAX_LINE = 2_000  # characters
_LINES_PER_SECOND = 10
_MAX_WAITING = 4_096  # lines that nobody has read yet
_PATIENCE = 1.0  # seconds for whoever reads the last ones

_log = logging.getLogger(__name__)

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A record as JSON: time, level, message, and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a line break in a value cannot begin another."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return printable(json.dumps(entry, default=str))


class _Lines(logging.Handler):
    """Writes lines to a file descriptor, in a thread: nothing waits for whoever reads them.

    Lines for which there is no room any more are left out; the next that has room says how many.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._descriptor = os.dup(descriptor)  # the thread's own: it closes it
        self._left_out = 0
        # None ends it.
        self._waiting: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line where it will be written from."""
        if self._left_out:
            record.lines_left_out = self._left_out
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._left_out += 1
        except Exception:
            self.handleError(record)
        else:
            self._left_out = 0

    def close(self) -> None:
        """Write what waits, unless nobody reads."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_PATIENCE)
            self._thread.join(_PATIENCE)
        super().close()

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            # Where it cannot be written there is nobody to tell, least of all by the log.
            with suppress(OSError):
                _write(self._descriptor, line.encode(errors="replace") + b"\n")
        os.close(self._descriptor)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # whoever has opened it wants no writer to wait; this thread may
            select.select([], [descriptor], [])


@contextmanager
def json_log() -> Iterator[None]:
    """Send everything that is logged to stderr, and what else is written there to the log.

    The libraries that decode images write their warnings to file descriptor 2 by themselves. It
    leads to a pipe here, and each line that comes out of it becomes one of the log.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with _logging_to(stderr), _crashes_to(stderr), _others_to_log():
            yield
    finally:
        os.close(stderr)


@contextmanager
def _logging_to(stderr: int) -> Iterator[None]:
    handler = _Lines(stderr)
    root = logging.getLogger()
    before = root.handlers, root.level
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # A client that breaks off or sends nonsense is no event; the requests themselves are logged.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers, level = before
        root.setLevel(level)
        handler.close()


@contextmanager
def _crashes_to(stderr: int) -> Iterator[None]:
    # If the process falls, nobody reads the pipe any more: where it fell is written past it.
    faulthandler.enable(stderr)
    try:
        yield
    finally:
        faulthandler.disable()


@contextmanager
def _others_to_log() -> Iterator[None]:
    stderr = os.dup(2)
    end, begin = os.pipe()
    os.set_blocking(begin, False)  # lines are lost rather than waited for
    os.dup2(begin, 2)
    os.close(begin)
    reader = threading.Thread(target=_read_lines, args=(end,), name="stderr", daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)  # closes the pipe's last other end, which ends the reader
        os.close(stderr)
        reader.join()


def _read_lines(descriptor: int) -> None:
    """Log each line, up to a number a second: one damaged image can cause a million."""
    second, count, left_out = 0, 0, 0
    with open(descriptor, encoding="utf-8", errors="replace") as pipe:
        while line := pipe.readline(_MAX_LINE):
            now = int(time.monotonic())
            if now != second:
                second, count = now, 0
            count += 1
            if count > _LINES_PER_SECOND:
                left_out += 1
                continue
            more = {"left_out": left_out} if left_out else {}
            _log.warning("a library says", extra={"text": line.strip(), **more})
            left_out = 0
        if left_out:
            _log.warning("a library says", extra={"text": "", "left_out": left_out})
