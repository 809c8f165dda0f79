"""Signals that end a process in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ENDS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}


@contextmanager
def ended_by_signals(end: Callable[[], object]) -> Iterator[None]:
    """The first of SIGINT, SIGTERM and SIGHUP calls `end`; the second ends the process at once.

    For the main thread.
    """
    numbers: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if numbers:
            os._exit(128 + number)  # whatever is stuck
        numbers.append(number)
        # Not here: this may have come while the main thread held what `end` waits for.
        threading.Thread(target=end, name="end", daemon=True).start()

    # What is ignored stays so: nohup does that with SIGHUP.
    handled = [number for number in _ENDS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
