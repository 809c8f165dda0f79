"""What every line has, wherever its images come from: a journal, receivers, counters, their end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..inspection import Inspector
from ..model import StoredModel
from .journal import Journal, Row
from .keeper import PICTURES_OF, Keeper
from .receivers import DAYS, Receiver, Sender
from .tally import State, Tally

_BETWEEN = 1.0  # seconds between two looks at how things are
_PRUNE = 600.0  # seconds between two looks for what is too old
_DAY = 86_400.0
_AT_A_TIME = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is done with verdicts.

    Parameters
    ----------
    output : Path
        Folder of the journal and of the pictures.
    pictures : {"all", "anomalous", "none"}
        Of which images pictures are kept.
    keep_days : float or None
        Pictures and rows that are older are removed; None keeps all.
    receivers : sequence of Receiver
        Who gets each verdict.
    metrics : int or None
        Port of the counters for Prometheus on this machine.
    tell : callable or None
        Called with the row of each verdict once it is in the journal.
    show : callable
        Called once a second with the `State`.
    look : dict
        What pictures show, and the threshold: arguments of `Inspector`.
    """

    output: Path
    pictures: str = "all"
    keep_days: float | None = None
    receivers: Sequence[Receiver] = ()
    metrics: int | None = None
    tell: Callable[[Row], object] | None = None
    show: Callable[[State], object] = lambda state: None
    look: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pictures not in PICTURES_OF:
            raise OptionError(
                f"pictures is one of {', '.join(PICTURES_OF)}. Received: {self.pictures!r}."
            )
        if self.keep_days is not None and not self.keep_days > 0:
            raise OptionError(f"Days are greater than 0. Received: {self.keep_days!r}.")


class Line:
    """A journal with what writes to it and sends from it; made by `opened`.

    Parameters
    ----------
    journal : Journal
        The record.
    inspector : Inspector
        The model.
    keeper : Keeper
        Takes verdicts.
    tally : Tally
        Counts.
    """

    def __init__(
        self, journal: Journal, inspector: Inspector, keeper: Keeper, tally: Tally
    ) -> None:
        self.journal = journal
        self.inspector = inspector
        self.keeper = keeper
        self.tally = tally


@contextmanager
def opened(
    stored: StoredModel,
    source: str,
    settings: Settings,
    *,
    waiting: Callable[[], int],
    dropped: Callable[[], int] = lambda: 0,
    trouble: Callable[[], str] = lambda: "",
    kept: Callable[[Sequence[Row]], object] = lambda rows: None,
    is_there: Callable[[str, int, int], bool] = lambda path, size, modified: False,
) -> Iterator[Line]:
    """A line that is ready to take verdicts; at the end what was handed over is written.

    Parameters
    ----------
    stored : StoredModel
        The model.
    source : str
        Where images come from.
    settings : Settings
        What is done with verdicts.
    waiting, dropped, trouble : callable
        How many images wait, how many were dropped, and what is wrong, for `State`.
    kept : callable
        Called with rows once they are in the journal.
    is_there : callable
        Whether the file (path, size, time) of a row is still where it would be found again.
    """
    name = Path(os.path.abspath(stored.directory)).name
    inspector = Inspector(
        stored, keep_maps=False, draw=settings.pictures != "none", **settings.look
    )
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(settings.output, source))
        senders = [Sender(journal, receiver) for receiver in settings.receivers]

        def all_trouble() -> str:
            away = (f"{s.receiver.name}: {s.trouble}" for s in senders if s.trouble)
            return "; ".join(filter(None, (keeper.trouble, trouble(), *away)))

        def written(rows: Sequence[Row]) -> None:
            line.tally.add(rows)
            for sender in senders:
                sender.wake()
            kept(rows)
            tell(rows)

        told = [settings.tell]

        def tell(rows: Sequence[Row]) -> None:
            try:
                for row in rows:
                    if told[0] is not None:
                        told[0](row)
            except OSError as error:  # whoever read them is gone
                _log.error("verdicts are not printed any more", extra={"error": str(error)})
                told[0] = None

        names = [receiver.name for receiver in settings.receivers]
        keeper = Keeper(journal, inspector, name, names, settings.pictures, written)
        tally = Tally(journal, stored, name, waiting, all_trouble, dropped)
        line = Line(journal, inspector, keeper, tally)
        for sender in senders:
            sender.start()
            stack.callback(sender.end)
        stack.callback(keeper.end)
        if settings.metrics is not None:
            stack.callback(tally.serve(settings.metrics))
        over = threading.Event()
        work: list[Callable[[], None]] = [
            lambda: _look_after(line, settings, over),
            lambda: _tidy(line, settings, over, is_there),
        ]
        threads = [threading.Thread(target=each, name="state", daemon=True) for each in work]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        yield line
        if keeper.failure is not None:
            raise keeper.failure


def _look_after(line: Line, settings: Settings, over: threading.Event) -> None:
    """Show how things are, until the end."""
    while True:
        is_last = over.wait(_BETWEEN)
        try:
            state = line.tally.state()
            settings.show(state)
            line.tally.note(state)
        except Exception as error:  # a full disk, for example
            _log.warning("the state cannot be noted", extra={"error": str(error)})
        if is_last:
            return


def _tidy(
    line: Line,
    settings: Settings,
    over: threading.Event,
    is_there: Callable[[str, int, int], bool],
) -> None:
    """Give up and remove what is too old, now and then, until the end."""
    pruner = Pruner(line.journal, is_there, over)
    while not over.is_set():
        now = time.time()
        try:
            line.journal.give_up(now - DAYS * _DAY)
            if settings.keep_days is not None:
                pruner.prune(now - settings.keep_days * _DAY)
        except Exception as error:
            _log.warning("what is old cannot be removed", extra={"error": str(error)})
        over.wait(_PRUNE)


class Pruner:
    """Removes pictures and rows of images that are too old.

    A row whose file still lies where it would be found again stays, so that the file is not
    inspected once more; what is still to be sent or moved stays, too. Rows that stayed are looked
    at again a day later.

    Parameters
    ----------
    journal : Journal
        The record.
    is_there : callable
        Whether the file (path, size, time) of a row is still where it would be found again.
    over : threading.Event
        Ends it.
    """

    def __init__(
        self,
        journal: Journal,
        is_there: Callable[[str, int, int], bool],
        over: threading.Event,
    ) -> None:
        self._journal = journal
        self._is_there = is_there
        self._over = over
        self._after = (0.0, 0)
        self._begun = time.monotonic()

    def prune(self, before: float) -> tuple[int, int]:
        """Remove what ended before a moment. How many pictures and rows that were."""
        if time.monotonic() - self._begun > _DAY:
            self._after, self._begun = (0.0, 0), time.monotonic()
        pictures = rows = 0
        while not self._over.is_set():
            some = self._journal.older(before, _AT_A_TIME, self._after)
            if not some:
                break
            gone, bare = [], []
            for number, ended, path, size, modified, picture in some:
                self._after = (ended, number)
                if picture is not None:
                    try:
                        (self._journal.folder / picture).unlink(missing_ok=True)
                    except OSError:  # someone has it open: tomorrow
                        continue
                    pictures += 1
                if size is None or modified is None or not self._is_there(path, size, modified):
                    gone.append(number)
                elif picture is not None:
                    bare.append(number)
            self._journal.forget_picture(bare)
            self._journal.forget(gone)
            rows += len(gone)
        return pictures, rows
