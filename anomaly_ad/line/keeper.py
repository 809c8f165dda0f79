"""Writes what came of images, and waits where that cannot be done."""

from __future__ import annotations

import errno
import logging
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..images import Image
from ..images.photograph import Photograph
from ..inspection import Inspector
from ..inspection.inspector import Decision
from ..inspection.output import picture_name, write_picture
from .journal import Journal, Row

PICTURES = "pictures"
PICTURES_OF = ("all", "anomalous", "none")
_AT_A_TIME = 64  # rows in one transaction
_WAITING = 64  # rows that wait for theirs
_PAUSE = 2.0  # seconds until writing is tried again
_LONGEST = 180  # bytes of a name that a picture keeps
# What does not come right by waiting.
_FOR_EVER = (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """An image that was seen: what a row says of it before anything is known.

    Parameters
    ----------
    path, size, modified, digest, arrived
        As in `Row`.
    begun : float
        Seconds since the epoch.
    """

    path: str
    size: int | None
    modified: int | None
    digest: str | None
    arrived: float
    begun: float


class Keeper:
    """Makes rows of verdicts, and keeps them and their pictures; from any thread.

    Where the disk is full, or cannot be written for another reason, whoever hands something over
    waits, so that nothing more is taken, and goes on when there is room.

    Parameters
    ----------
    journal : Journal
        The record.
    inspector : Inspector
        What it says of images.
    name : str
        Of the model, for receivers.
    receivers : sequence of str
        Names of those that get each verdict.
    pictures : {"all", "anomalous", "none"}
        Of which images pictures are kept.
    kept : callable
        Called with rows once they are in the journal.
    """

    def __init__(
        self,
        journal: Journal,
        inspector: Inspector,
        name: str,
        receivers: Sequence[str] = (),
        pictures: str = "all",
        kept: Callable[[Sequence[Row]], None] = lambda rows: None,
    ) -> None:
        self._journal = journal
        self._inspector = inspector
        self._name = name
        self._receivers = tuple(receivers)
        self._pictures = pictures
        self._kept = kept
        # Pictures that a killed process left unfinished; nobody else writes to this folder.
        self._scratch = journal.folder / ".unfinished"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._rows: queue.Queue[tuple[Row, Callable[[], object]] | None] = queue.Queue(_WAITING)
        self._ending = threading.Event()  # what cannot be written now is not waited for
        self._given_up = threading.Event()  # nobody writes any more
        self.trouble = ""  # why nothing can be written, for people; empty while all is well
        self.failure: BaseException | None = None  # what has ended the thread that writes
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def keep(
        self,
        subject: Subject,
        photo: Photograph,
        decision: Decision,
        ended: float,
        *,
        destination: Path | None = None,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep a verdict; `done` is called once it is in the journal."""
        found = decision.prediction
        if found.error is not None:
            self.fail(subject, found.error, ended, done=done)
            return
        row = self._row(
            subject,
            "anomalous" if found.is_anomalous else "good",
            found.answer(subject.path, self._name, self._inspector.digest),
            ended,
            destination=None if destination is None else str(destination),
            has_picture=self._pictures == "all" or bool(found.is_anomalous),
        )
        kept = self._with_picture(row, photo, decision)
        if kept is not None:
            self._put(kept, done)

    def _with_picture(self, row: Row, photo: Photograph, decision: Decision) -> Row | None:
        """Write the picture of a row. What cannot be drawn or named leaves the row without one.

        None at the end, where nothing can be written.
        """
        if row.picture is None:
            return row
        target = self._journal.folder / row.picture
        bare = replace(row, picture=None)
        try:
            picture: Image = self._inspector.picture(photo.picture(), decision)
        except Exception:
            _log.exception("a picture cannot be drawn", extra={"file": row.path})
            return bare
        while True:
            try:
                write_picture(picture, target, self._scratch)
            except Exception as error:
                if not _is_temporary(error):
                    facts = {"file": row.path, "error": str(error)}
                    _log.error("a picture cannot be written", extra=facts)
                    return bare
                self._complain(error)
                if self._ending.wait(_PAUSE):
                    return None
                continue
            self._recover()
            return row

    def fail(
        self,
        subject: Subject,
        error: str,
        ended: float,
        *,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep that an image could not be inspected, and why."""
        about = {"name": subject.path, "model": self._name, "digest": self._inspector.digest}
        self._put(self._row(subject, "error", {**about, "error": error}, ended), done)

    def _row(
        self,
        subject: Subject,
        verdict: str,
        answer: dict[str, Any],
        ended: float,
        *,
        destination: str | None = None,
        has_picture: bool = False,
    ) -> Row:
        row = Row(
            subject.path,
            subject.size,
            subject.modified,
            subject.digest,
            verdict,
            answer,
            self._inspector.digest,
            None,
            subject.arrived,
            subject.begun,
            ended,
            destination,
        )
        if not has_picture or self._pictures == "none":
            return row
        # The key makes it one of its own: a camera may use its names again, and the same file
        # gives the same picture, should a process end between picture and row.
        name = picture_name(Path(subject.path))
        stem = os.fsdecode(os.fsencode(name.stem)[:_LONGEST])
        whole = f"{stem}-{row.key[:12]}{name.suffix}"
        return replace(row, picture=(Path(PICTURES) / name.with_name(whole)).as_posix())

    def _put(self, row: Row, done: Callable[[], object]) -> None:
        while not self._given_up.is_set():
            try:
                self._rows.put((row, done), timeout=0.5)
                return
            except queue.Full:
                continue

    def _complain(self, error: Exception) -> None:
        why = str(error) if isinstance(error, OutputError) else f"{error}."
        if not self.trouble:
            _log.error("nothing is taken until results can be written", extra={"error": why})
        self.trouble = why

    def _recover(self) -> None:
        if self.trouble:
            _log.info("results can be written again")
        self.trouble = ""

    def _write(self) -> None:
        try:
            self._write_all()
        except BaseException as error:  # without this thread nothing is recorded
            _log.exception("the journal cannot be written any more")
            self.failure = error
        finally:
            self._given_up.set()

    def _write_all(self) -> None:
        is_last = False
        while not is_last:
            some = [self._rows.get()]
            while len(some) < _AT_A_TIME:
                try:
                    some.append(self._rows.get_nowait())
                except queue.Empty:
                    break
            pairs = [pair for pair in some if pair is not None]
            is_last = len(pairs) < len(some)
            rows = [row for row, _ in pairs]
            while rows:
                try:
                    self._journal.add(rows, self._receivers)
                except (OSError, sqlite3.Error) as error:
                    self._complain(error)
                    if self._ending.wait(_PAUSE):
                        return
                    continue
                self._recover()
                break
            for _, done in pairs:
                _quietly(done)
            _quietly(lambda: self._kept(rows))  # noqa: B023 - called at once

    def finish(self) -> None:
        """Wait for nothing any more that cannot be written now; from any thread."""
        self._ending.set()

    def end(self) -> None:
        """Write what was handed over; what cannot be written now is inspected again later."""
        self.finish()
        while self._thread.is_alive() and not self._given_up.is_set():
            try:
                self._rows.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()


def _quietly(call: Callable[[], object]) -> None:
    """Call what follows a row; a fault there must not end the thread that writes rows."""
    try:
        call()
    except Exception:
        _log.exception("a fault of the program, after a row was written")


def _is_temporary(error: Exception) -> bool:
    """Whether a picture may be written later: the disk is full or away, its name is not wrong."""
    cause = error.__cause__ or error
    return isinstance(cause, OSError) and cause.errno not in (None, *_FOR_EVER)
