"""Which files have come into a folder, and which of them are complete."""

from __future__ import annotations

import heapq
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..images.formats import SUFFIXES

# Files that are known at a time; of those beyond, the next look at the folder finds the rest.
_MOST = 20_000


@dataclass(eq=False)
class Arrival:
    """A file that is to be inspected.

    Parameters
    ----------
    path : str
        Below the folder, with "/".
    size, modified : int
        Bytes, and time in ns.
    arrived : float
        Seconds since the epoch: its time, where it lay there before, or when it was noticed.
    """

    path: str
    size: int
    modified: int
    arrived: float
    # When it was seen to change, and since when it cannot be read, by time.monotonic().
    changed: float = 0.0
    failing: float | None = None
    is_complete: bool = False  # its size and time have not changed for long enough
    # What the folder was then: its drive may be away for a while.
    home: tuple[int, int] | None = None
    is_missing: bool = False  # it was complete and is not there

    def __lt__(self, other: Arrival) -> bool:
        return (self.arrived, self.path) < (other.arrived, other.path)


class Arrivals:
    """Files of a folder, from the moment that they are noticed until they have their row.

    A file is complete when its size and time have not changed for `settle` seconds, or when it was
    renamed into place. Complete files are taken in the order of their times.

    Parameters
    ----------
    folder : Path
        The folder, with those in it.
    settle : float
        Seconds.
    is_known : callable
        Whether a file (path, size, time) has its row.
    """

    def __init__(
        self, folder: Path, settle: float, is_known: Callable[[str, int, int], bool]
    ) -> None:
        self.folder = folder
        self.settle = settle
        self._is_known = is_known
        self._known: dict[str, Arrival] = {}
        self._ready: list[Arrival] = []
        self._settling: list[tuple[float, int, Arrival]] = []
        self._number = 0
        self._change = threading.Condition()
        self._is_over = False
        self.home: tuple[int, int] | None = None
        self.beyond = 0  # files that were found and are more than can be known at a time

    def __len__(self) -> int:
        """How many files wait, or are being inspected."""
        return len(self._known) + self.beyond

    def end(self) -> None:
        """Let everyone who waits go."""
        with self._change:
            self._is_over = True
            self._change.notify_all()

    def notice(self, path: str, *, is_written: bool = False, is_renamed: bool = False) -> None:
        """Something has happened to a file; from any thread.

        Parameters
        ----------
        path : str
            Below the folder, with "/".
        is_written : bool
            Whether it has been written and closed. A file that has its row is then taken once
            more: on file systems with coarse times its content may be new.
        is_renamed : bool
            Whether it was renamed into place, so that it is complete.
        """
        if not counts(path):
            return
        state = self.state(path)
        if state is None:
            return
        if not (is_written or is_renamed) and self._is_known(path, *state):
            return
        self._add(path, state, time.time(), is_complete=is_renamed)

    def gone(self, path: str) -> None:
        """A file was renamed to another name: it is not missed."""
        with self._change:
            self._known.pop(path, None)

    def is_wanted(self, one: Arrival) -> bool:
        """Whether a file that was taken still has its name."""
        with self._change:
            return self._known.get(one.path) is one

    def home_now(self) -> tuple[int, int] | None:
        """Which folder it is, and on which drive; None where it is not there."""
        try:
            status = os.stat(self.folder)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def look(self) -> None:
        """Notice all files that lie in the folder and have no row, the oldest first."""
        self.home = self.home_now()
        found = heapq.nsmallest(_MOST, self._unknown())
        room = max(_MOST - len(self._known), 0)
        for modified, path, size in found[:room]:
            self._add(path, (size, modified), min(modified / 1e9, time.time()))
        self.beyond = max(self._count - room, 0)

    def _unknown(self) -> Iterator[tuple[int, str, int]]:
        self._count = 0
        for path in below(self.folder):
            if self._is_over:
                return
            if path in self._known:
                continue
            state = self.state(path)
            if state is not None and not self._is_known(path, *state):
                self._count += 1
                yield state[1], path, state[0]

    def state(self, path: str) -> tuple[int, int] | None:
        """Size and time of a file; None where it is gone."""
        try:
            status = os.stat(self.folder / path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):  # to read from a pipe would take until someone writes
            return None
        return status.st_size, status.st_mtime_ns

    def _add(
        self, path: str, state: tuple[int, int], arrived: float, *, is_complete: bool = False
    ) -> None:
        with self._change:
            known = self._known.get(path)
            if known is None:
                if len(self._known) >= _MOST:
                    self.beyond += 1
                    return
                known = self._known[path] = Arrival(path, *state, arrived, home=self.home)
            elif known.is_complete or not is_complete:
                return  # it is being looked after; that it has changed is seen then
            known.size, known.modified = state
            known.changed = time.monotonic()
            if is_complete:
                self._complete(known)
            else:
                self._settle(known, known.changed + self.settle)

    def _complete(self, one: Arrival) -> None:
        one.is_complete = True
        heapq.heappush(self._ready, one)
        self._change.notify_all()  # whoever settles waits here as well

    def _settle(self, one: Arrival, until: float) -> None:
        self._number += 1
        heapq.heappush(self._settling, (until, self._number, one))
        if self._settling[0][2] is one:
            self._change.notify_all()

    def settle_all(self) -> None:
        """Find out which files have become complete, until `end`; for a thread of its own."""
        while True:
            with self._change:
                while not self._settling or self._settling[0][0] > time.monotonic():
                    if self._is_over:
                        return
                    wait = None
                    if self._settling:
                        wait = max(self._settling[0][0] - time.monotonic(), 0.001)
                    self._change.wait(wait)
                one = heapq.heappop(self._settling)[2]
                if self._is_over:
                    return
                if one.is_complete or self._known.get(one.path) is not one:
                    continue
            state = self.state(one.path)
            with self._change:
                if state is None and one.failing is None and not one.is_missing:
                    self._known.pop(one.path, None)  # it was never complete
                elif state is None:
                    self._complete(one)
                elif state != (one.size, one.modified):
                    one.size, one.modified = state
                    one.changed, one.failing = time.monotonic(), None
                    self._settle(one, one.changed + self.settle)
                else:
                    self._complete(one)

    def take(self, timeout: float) -> Arrival | None:
        """The oldest complete file; None where there is none in time, or at the end."""
        until = time.monotonic() + timeout
        with self._change:
            while True:
                if self._is_over:
                    return None
                while self._ready:
                    one = heapq.heappop(self._ready)
                    if self._known.get(one.path) is one:
                        return one
                left = until - time.monotonic()
                if left <= 0:
                    return None
                self._change.wait(left)

    @property
    def waiting(self) -> int:
        """How many complete files wait."""
        return len(self._ready)

    def put_back(self, one: Arrival, later: float) -> None:
        """A file is looked at again in so many seconds."""
        with self._change:
            one.is_complete = False
            self._settle(one, time.monotonic() + later)

    def forget(self, one: Arrival) -> None:
        """A file is away with its drive; once that is back it is found again."""
        with self._change:
            self._known.pop(one.path, None)

    def done(self, one: Arrival) -> None:
        """A file has its row, or needs none; a newer one of its name is noticed."""
        with self._change:
            self._known.pop(one.path, None)
        state = self.state(one.path)
        if state is not None and state != (one.size, one.modified):
            self.notice(one.path)


def counts(path: str) -> bool:
    """Whether a file is an image by its name, and neither it nor a folder on the way is hidden."""
    parts = path.split("/")
    return Path(parts[-1]).suffix.lower() in SUFFIXES and not any(
        part.startswith(".") for part in parts
    )


def below(folder: Path) -> Iterator[str]:
    """Images in a folder and those in it, as paths below it with "/", in no order."""
    waiting, seen = [""], set()
    while waiting:
        inner = waiting.pop()
        try:
            status = os.stat(folder / inner)
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder / inner) as entries:
                for entry in entries:
                    path = f"{inner}/{entry.name}" if inner else entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(path)
                    elif counts(path):
                        yield path
        except OSError:
            continue  # it was removed meanwhile, or may not be read; the next look tries again
