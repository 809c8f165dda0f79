"""Progress of long work, on stderr: a bar for a person at a terminal, plain lines for a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from tqdm import tqdm

FIRST_LINE, BETWEEN_LINES = 1.0, 10.0  # seconds; what is over in less says nothing
# The first step may hold what is done once, so that it tells little of the others.
_STEPS_FOR_AN_ESTIMATE = 3
_UNTIMED = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_TIMED = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"

Step = Callable[[str], None]


@contextmanager
def bar(
    total: int | None, what: str, *, shown: bool = True, is_timed: bool = True
) -> Iterator[Step]:
    """Progress of `total` steps (None: not known); call what it gives after each step.

    That takes a short note, or ''. Where stderr is not a terminal, a plain line says how far it is:
    the first after a second, and then one in ten seconds. Time left is said from the third step on;
    not where `is_timed` is False: the notes say it themselves, and the first is shown at once.
    """
    if not shown:
        yield _ignore
    elif not sys.stderr.isatty():
        with _Lines(total, what, is_timed) as lines:
            yield lines.step
    else:
        with tqdm(total=total, desc=what, dynamic_ncols=True) as line:
            if total is not None:
                line.bar_format = _UNTIMED

            def step(note: str = "") -> None:
                if is_timed and total is not None and line.n + 1 == _STEPS_FOR_AN_ESTIMATE:
                    line.bar_format = _TIMED
                line.set_postfix_str(note, refresh=False)
                line.update()

            yield step


class _Lines:
    """Says now and then how far a work is, also while a single step takes long."""

    def __init__(self, total: int | None, what: str, is_timed: bool) -> None:
        self._total, self._what, self._is_timed = total, what, is_timed
        self._done, self._note = 0, ""
        self._start = self._last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._report, name="anomaly_ad_progress", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def step(self, note: str = "") -> None:
        self._done += 1
        self._note = note
        self._last = time.monotonic()
        if self._done == 1 and not self._is_timed:
            say(self._line())

    def _report(self) -> None:
        pause = FIRST_LINE
        while not self._over.wait(pause):
            say(self._line())
            pause = BETWEEN_LINES

    def _line(self) -> str:
        done, total = self._done, self._total
        words = [f"{self._what}: {done}" + ("" if total is None else f" of {total}")]
        if self._note:
            words.append(self._note)
        if self._is_timed and total is not None and done >= _STEPS_FOR_AN_ESTIMATE:
            each = (self._last - self._start) / done
            left = each * (total - done) - (time.monotonic() - self._last)
            words.append(f"about {duration(max(left, 0))} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _ignore(note: str = "") -> None:
    pass


def say(text: str) -> None:
    """Print a line on stderr, above a bar that may be shown there."""
    tqdm.write(printable(text), file=sys.stderr)


def printable(text: object) -> str:
    """A text that can be printed: file names may hold bytes that are not UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
