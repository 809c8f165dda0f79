"""Files that go to another folder once they have their verdict: moved, or linked there as well."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .journal import Journal, Transfer

MOVE, LINK = "move", "link"
_AT_A_TIME = 256
_PATIENCE = 30.0  # seconds to finish a file at the end
_PAUSE, _LATER = 5.0, 60.0  # seconds until what could not be moved, or is away, is tried again
_GONE = 86_400.0  # seconds after which a file that is away is taken to be gone, and not its drive

_log = logging.getLogger(__name__)


class Transfers:
    """Moves or links the files whose rows name a destination, in a thread of its own.

    Nothing is ever replaced or lost: a file first takes a hidden name where it lies, then it is
    seen whether it is the one that was inspected, then it gets its place under a name that is free.
    Each step can be repeated after a kill at any moment.

    Parameters
    ----------
    journal : Journal
        The record.
    inbox : Path
        Where the files are.
    way : {"move", "link"}
        Whether files leave the inbox.
    came_back : callable
        Called with the path of a file that was replaced before it could be moved, and so stays.
    """

    def __init__(
        self,
        journal: Journal,
        inbox: Path,
        way: str = MOVE,
        came_back: Callable[[str], object] = lambda path: None,
    ) -> None:
        self.trouble = ""
        self._journal = journal
        self._inbox = inbox
        self._way = way
        self._came_back = came_back
        self._new = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="transfers", daemon=True)

    def start(self) -> None:
        """Begin with what was left."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._new.set()

    def end(self) -> None:
        """Finish the file that is being moved; the rest is done at the next start."""
        self._end.set()
        self._new.set()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        after = 0
        while not self._end.is_set():
            self._new.clear()
            failed = False
            try:
                after, failed = self.round(after)
            except Exception as error:  # the journal cannot be read, for example
                self._complain(error)
                failed = True
            # Woken, it goes on with what is new; after a pause it tries all that is left again.
            if failed or not self._new.wait(_LATER):
                self._end.wait(_PAUSE if failed else 0)
                after = 0

    def round(self, after: int = 0) -> tuple[int, bool]:
        """Transfer what is waiting behind a row. The last row, and whether something failed."""
        failed = False
        while not self._end.is_set():
            some = self._journal.transfers(_AT_A_TIME, after)
            for one in some:
                if self._end.is_set():
                    return after, failed
                after = one.id
                try:
                    where = self._transfer(one)
                    if where is not None or time.time() - one.ended > _GONE:
                        self._journal.transferred(one.id, where or "")
                except Exception as error:  # a full disk, a folder that is away: it stays to do
                    failed = True
                    self._complain(error)
            if len(some) < _AT_A_TIME:
                if not failed:
                    self.trouble = ""
                break
        return after, failed

    def _complain(self, error: Exception) -> None:
        if not self.trouble:
            _log.error("files cannot be transferred yet", extra={"error": str(error)})
        self.trouble = str(error)

    def _transfer(self, one: Transfer) -> str | None:
        """Where the file is now; "" if it was replaced, None if it is not there."""
        source = self._inbox / one.path
        hidden = source.with_name(f".{one.key}.moving")
        if not hidden.exists():
            if not _is(source, one):
                return self._placed_before(one) or ("" if source.exists() else None)
            if self._way == LINK:
                return self._place(one, source)
            source.rename(hidden)
        if not _is(hidden, one):  # it was replaced in that very moment
            self._put_back(hidden, source)
            self._came_back(one.path)
            return ""
        where = self._place(one, hidden)
        hidden.unlink()
        return where

    def _placed_before(self, one: Transfer) -> str:
        """Where a file was put by a process that ended before it could say so."""
        return next((str(name) for name in _names(one) if _is_same(name, one)), "")

    def _place(self, one: Transfer, source: Path) -> str:
        """Give a file its place; its own name, or one with its key where that is taken."""
        for name in _names(one):
            if _is_same(name, one, source):
                return str(name)  # by a process that ended then
            name.parent.mkdir(parents=True, exist_ok=True)
            try:
                _link_or_copy(source, name, one.key)
            except FileExistsError:
                continue
            return str(name)
        raise FileExistsError(errno.EEXIST, "there is another file of this name", str(name))

    @staticmethod
    def _put_back(hidden: Path, source: Path) -> None:
        """The newer file gets its name back, or one next to it where a newer one still has that."""
        other = source.with_name(f"{source.stem}-{hidden.name[1:13]}{source.suffix}")
        for name in (source, other):
            try:
                _link_or_copy(hidden, name, hidden.name)
            except FileExistsError:
                continue
            hidden.unlink()
            return


def _names(one: Transfer) -> list[Path]:
    wanted = Path(one.destination, one.path)
    return [wanted, wanted.with_name(f"{wanted.stem}-{one.key[:12]}{wanted.suffix}")]


def _is(path: Path, one: Transfer) -> bool:
    """Whether a path is the file that was inspected, by size and time."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (
        one.size,
        one.modified,
    )


def _is_same(path: Path, one: Transfer, source: Path | None = None) -> bool:
    """Whether a path is the file that was inspected, by its content as well."""
    if not _is(path, one):
        return False
    if source is not None and path.samefile(source):
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == one.digest


def _link_or_copy(source: Path, target: Path, key: str) -> None:
    """A second name for a file, or a copy on another file system; FileExistsError if it is taken.

    A copy appears whole, with the times of the file, and is on the disk then.
    """
    try:
        os.link(source, target)
        return
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
    # Another file system, or one without links. What a kill leaves of the copy is written over by
    # the next try.
    unfinished = target.with_name(f".{key}.tmp")
    try:
        with source.open("rb") as old, unfinished.open("wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())
        shutil.copystat(source, unfinished)
        try:
            os.link(unfinished, target)
        except FileExistsError:
            raise
        except OSError:  # no links here
            if target.exists():
                raise FileExistsError(errno.EEXIST, "there is such a file", str(target)) from None
            unfinished.rename(target)
        _to_disk(target.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _to_disk(folder: Path) -> None:
    """Make sure that the names in a folder outlive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
