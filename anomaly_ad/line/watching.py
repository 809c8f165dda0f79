"""A folder that is watched: every image that arrives has one row and one verdict."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from ..errors import ImageError, OptionError, PathError
from ..images import Photograph
from ..model import StoredModel
from .arrivals import Arrival, Arrivals
from .journal import Row, key_of
from .keeper import Subject
from .line import Settings, opened
from .transfers import MOVE, Transfers

# Half of them read, decode and draw while the others wait for the model.
_WORKERS_PER_CPU = 2
_LOOK_EVERY = 30.0  # seconds between two looks at the whole folder, in case an event was lost
_POLL_EVERY = 1.0  # where there are no events
_SHARE = 20  # and it takes at most this part of the time
_MOST_BYTES = 1_000_000_000  # of a file
# File systems whose changes, made by other machines, are not told to this one.
_WITHOUT_EVENTS = (
    *("nfs", "cifs", "smb", "9p", "fuse", "vboxsf", "virtiofs", "drvfs", "afs", "ceph", "ncp"),
    *("lustre", "gpfs", "beegfs", "gluster", "ocfs2", "gfs2"),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inbox:
    """The folder, and what happens to its files.

    Parameters
    ----------
    folder : Path
        Watched with the folders in it.
    settle : float
        Seconds for which size and time of a file have not changed when it is complete.
    give_up : float
        Seconds after which a complete file that cannot be read is recorded as an error.
    poll : bool
        Look at the folder every second instead of waiting for events. A folder on a file system
        that is known to have none is looked at anyway.
    good, bad : Path or None
        Where files go once they are found good or anomalous; None: they stay.
    transfer : {"move", "link"}
        Whether they leave the inbox or get a second name.
    """

    folder: Path
    settle: float = 1.0
    give_up: float = 30.0
    poll: bool = False
    good: Path | None = None
    bad: Path | None = None
    transfer: str = MOVE

    def __post_init__(self) -> None:
        if not os.path.isdir(self.folder):
            raise PathError(f"{self.folder}: there is no such folder. Make it first.")
        for name in ("settle", "give_up"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OptionError(
                    f"{name} is a number of seconds. Received: {getattr(self, name)!r}."
                )

    def check(self, output: Path) -> None:
        """Raise OptionError where what is written would come in again."""
        inbox = Path(os.path.realpath(self.folder))
        for name, folder in (("output", output), ("good", self.good), ("bad", self.bad)):
            if folder is None:
                continue
            real = Path(os.path.realpath(folder))
            if real.is_relative_to(inbox):
                raise OptionError(
                    f"--{name} {folder} is or lies in the inbox, where it would be inspected "
                    "again. Choose a folder outside it."
                )
            if inbox.is_relative_to(real) and name == "output":
                raise OptionError(
                    f"The inbox lies in the output folder {folder}. Choose another --output."
                )


def watch(stored: StoredModel, inbox: Inbox, settings: Settings, stop: threading.Event) -> None:
    """Inspect what arrives in a folder until `stop` is set; what is under way then is finished.

    Parameters
    ----------
    stored : StoredModel
        The model.
    inbox : Inbox
        The folder.
    settings : Settings
        What is done with verdicts.
    stop : threading.Event
        Ends it.

    Raises
    ------
    OptionError
        Folders lie in each other, or another process writes to the output.
    """
    inbox.check(settings.output)
    _Watch(stored, inbox, settings).run(stop)


class _Watch:
    def __init__(self, stored: StoredModel, inbox: Inbox, settings: Settings) -> None:
        self._stored = stored
        self._inbox = inbox
        self._settings = settings
        self._busy = 0  # workers that are at work
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._trouble = ""
        self._arrivals = Arrivals(inbox.folder, inbox.settle, self._knows)
        self._transfers: Transfers | None = None
        self._noted: tuple[int, int] | None = None

    def _is_there(self, path: str, size: int, modified: int) -> bool:
        """Whether a file would be found again; also where its drive is away."""
        try:
            status = os.stat(self._inbox.folder / path)
        except FileNotFoundError:
            home = self._arrivals.home_now()
            return home is None or str(home[1]) != self._line.journal.about().get("home")
        except OSError:
            return True
        return (status.st_size, status.st_mtime_ns) == (size, modified)

    def _knows(self, path: str, size: int, modified: int) -> bool:
        return self._line.journal.knows(path, size, modified)

    def run(self, stop: threading.Event) -> None:
        inbox = self._inbox
        source = os.path.realpath(inbox.folder)
        with ExitStack() as stack:
            line = stack.enter_context(
                opened(
                    self._stored,
                    source,
                    self._settings,
                    waiting=lambda: len(self._arrivals),
                    trouble=lambda: "; ".join(filter(None, (self._trouble, self._stuck()))),
                    kept=self._kept,
                    is_there=self._is_there,
                )
            )
            self._line = line
            transfers = self._transfers = Transfers(
                line.journal, inbox.folder, inbox.transfer, self._arrivals.notice
            )
            transfers.start()
            stack.callback(transfers.end)
            self._warm_up()
            self._arrivals.home = self._arrivals.home_now()
            # Events first: what arrives while the folder is looked at is not missed.
            events = stack.enter_context(_events(self._arrivals, inbox))
            work: list[Callable[[], None]] = [
                self._arrivals.settle_all,
                lambda: self._look(events, stop),
                *[lambda: self._work(stop)]
                * (_WORKERS_PER_CPU * self._stored.engine.device.n_threads),
            ]
            threads = [threading.Thread(target=each, name="watch", daemon=True) for each in work]
            for thread in threads:
                thread.start()
            while not stop.wait(0.5):  # without a limit no signal would be seen on Windows
                if line.keeper.failure is not None:
                    break
            stop.set()
            line.keeper.finish()
            self._arrivals.end()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _stuck(self) -> str:
        trouble = "" if self._transfers is None else self._transfers.trouble
        return f"files cannot be moved: {trouble}" if trouble else ""

    def _warm_up(self) -> None:
        """Compile both ways of running now, so that the first image does not wait for it."""
        import numpy as np

        engine = self._line.inspector.engine
        views = np.zeros((1, *engine.view_shape), np.uint8)
        engine.run(views)
        engine.run_concurrently(views)

    def _kept(self, rows: Sequence[Row]) -> None:
        home = self._arrivals.home_now()
        if home is not None and home != self._noted:  # where files were found, for `_is_there`
            self._line.journal.note(home=home[1])
            self._noted = home
        if self._transfers is not None and any(row.destination is not None for row in rows):
            self._transfers.wake()

    def _look(self, events: bool, stop: threading.Event) -> None:
        """Look at the whole folder: at first, now and then, and where that is all there is."""
        home = self._arrivals.home
        while not stop.is_set():
            begun = time.monotonic()
            try:
                self._arrivals.look()
                is_there = os.path.isdir(self._inbox.folder)
                self._trouble = "" if is_there else "the inbox is not there"
            except Exception as error:
                self._trouble = f"the inbox cannot be looked at ({error})"
                _log.warning("the inbox cannot be looked at", extra={"error": str(error)})
            taken = time.monotonic() - begun
            # A folder that was replaced by another of its name tells of nothing.
            has_events = events and self._arrivals.home == home
            if has_events and not self._arrivals.beyond:
                stop.wait(max(_LOOK_EVERY, _SHARE * taken))
            else:
                stop.wait(max(_POLL_EVERY, taken))

    def _work(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                one = self._arrivals.take(1.0)
                if one is not None:
                    with self._lock:
                        self._busy += 1
                    try:
                        self._inspect(one)
                    except Exception as error:  # this image has no verdict, others do
                        _log.exception("a fault of the program", extra={"file": one.path})
                        self._unreadable(one, time.time(), f"{type(error).__name__}: {error}")
                    finally:
                        with self._lock:
                            self._busy -= 1
        except BaseException as error:
            self._failure = error
            stop.set()

    def _inspect(self, one: Arrival) -> None:
        begun = time.time()
        path = self._inbox.folder / one.path
        try:
            data = _read(path)
        except FileNotFoundError:
            self._missed(one, begun)
            return
        except OSError as error:
            self._unreadable(one, begun, f"{path}: {error.strerror or error}.")
            return
        if self._arrivals.state(one.path) != (one.size, one.modified) or len(data) != one.size:
            self._arrivals.put_back(one, self._inbox.settle)  # it is being written after all
            return
        digest = hashlib.sha256(data).hexdigest()
        if self._line.journal.has(key_of(one.path, one.size, one.modified, digest)):
            self._arrivals.done(one)
            return
        subject = Subject(one.path, one.size, one.modified, digest, one.arrived, begun)
        line = self._line
        try:
            photo = Photograph.decode(data, path, line.inspector.framing)
            if photo.n_pages > 1:
                raise ImageError(
                    f"{path} has {photo.n_pages} pages. Each page must be a file of its own."
                )
            alone = self._busy == 1 and not self._arrivals.waiting
            decision = line.inspector.inspect(photo, str(path), alone=alone)
        except ImageError as error:
            self._unreadable(one, begun, str(error), digest)
            return
        found = decision.prediction
        destination = self._inbox.bad if found.is_anomalous else self._inbox.good
        line.keeper.keep(
            subject,
            photo,
            decision,
            time.time(),
            destination=None if destination is None else Path(os.path.abspath(destination)),
            done=lambda: self._arrivals.done(one),
        )

    def _unreadable(
        self, one: Arrival, begun: float, error: str, digest: str | None = None
    ) -> None:
        """Try again later, until it has been so for too long."""
        now = time.monotonic()
        if one.failing is None:
            one.failing = now
        left = self._inbox.give_up - (now - one.failing)
        if left > 0:
            pause = min(max(now - one.failing, self._inbox.settle, 0.2), left)
            self._arrivals.put_back(one, pause)
            return
        if not self._is_away(one):
            subject = Subject(one.path, one.size, one.modified, digest, one.arrived, begun)
            self._fail(one, subject, error)

    def _is_away(self, one: Arrival) -> bool:
        """Whether the drive is away, and not the file; then it is found again once that is back."""
        if self._arrivals.home_now() == one.home:
            return False
        self._arrivals.forget(one)
        return True

    def _missed(self, one: Arrival, begun: float) -> None:
        """A complete file is gone. Where it was only renamed, its new name is inspected."""
        if self._is_away(one) or not self._arrivals.is_wanted(one):
            return
        if self._knows(one.path, one.size, one.modified):  # moved, once it had its verdict
            self._arrivals.done(one)
            return
        if not one.is_missing:  # the event of another name may be on its way
            one.is_missing = True
            self._arrivals.put_back(one, 1.0)
            return
        subject = Subject(one.path, one.size, one.modified, None, one.arrived, begun)
        self._fail(one, subject, f"{one.path} was removed before it could be inspected.")

    def _fail(self, one: Arrival, subject: Subject, error: str) -> None:
        done: Callable[[], object] = lambda: self._arrivals.done(one)  # noqa: E731
        self._line.keeper.fail(subject, error, time.time(), done=done)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, "the file is too large for an image")
        return file.read()


@contextmanager
def _events(arrivals: Arrivals, inbox: Inbox) -> Iterator[bool]:
    """Events of the file system go to `arrivals`; whether there are any."""
    if inbox.poll or not _has_events(inbox.folder):
        yield False
        return
    observer = _observer()
    real = os.path.realpath(inbox.folder)  # a link is not followed
    observer.schedule(_Handler(arrivals, Path(real)), real, recursive=True)
    try:
        observer.start()
    except OSError as error:  # the system's limit of watches, for example
        _log.warning("no events; the folder is polled", extra={"error": str(error)})
        with suppress(RuntimeError):
            observer.stop()
        yield False
        return
    try:
        yield True
    finally:
        observer.stop()
        observer.join()


def _observer() -> Any:
    """The system's own; on Linux one that tells a file that was renamed into the folder."""
    try:
        from watchdog.observers.inotify import InotifyObserver
    except ImportError:
        return Observer()
    return InotifyObserver(generate_full_events=True)


class _Handler(FileSystemEventHandler):
    def __init__(self, arrivals: Arrivals, folder: Path) -> None:
        self._arrivals = arrivals
        self._folder = folder

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, in its thread."""
        if event.is_directory or event.event_type in ("opened", "closed_no_write", "deleted"):
            return
        try:
            if event.event_type == "moved":
                if event.src_path and event.dest_path:
                    self._arrivals.gone(self._below(event.src_path))
                if event.dest_path:
                    self._arrivals.notice(self._below(event.dest_path), is_renamed=True)
                return
            self._arrivals.notice(
                self._below(event.src_path), is_written=event.event_type == "closed"
            )
        except Exception as error:  # the next look at the folder finds what was missed
            _log.warning("an event was lost", extra={"error": str(error)})

    def _below(self, path: bytes | str) -> str:
        return Path(os.fsdecode(path)).relative_to(self._folder).as_posix()


def _has_events(folder: Path) -> bool:
    """Whether the file system of a folder tells of changes; Linux says what it is."""
    if os.path.realpath(folder).startswith("\\\\"):  # a share, on Windows
        return False
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return True
    real, kind, longest = os.path.realpath(folder), "", -1
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        place = before.split()[4].replace("\\040", " ")
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= longest:
            kind, longest = after.split()[0], len(place)
    return not kind.startswith(_WITHOUT_EVENTS)
