"""What every line has, wherever its images come from: a journal, receivers, counters, their end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..inspection import Inspector
from ..model import StoredModel
from .journal import Journal, Row
from .keeper import PICTURES_OF, Keeper
from .receivers import Receiver, Sender
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
            if settings.tell is not None:
                for row in rows:
                    settings.tell(row)

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
        looker = threading.Thread(
            target=_look_after, args=(line, settings, over, is_there), name="state", daemon=True
        )
        looker.start()
        stack.callback(looker.join)
        stack.callback(over.set)
        yield line


def _look_after(
    line: Line,
    settings: Settings,
    over: threading.Event,
    is_there: Callable[[str, int, int], bool],
) -> None:
    """Show how things are and remove what is too old, until the end."""
    pruned = -_PRUNE
    while True:
        last = over.wait(_BETWEEN)
        try:
            state = line.tally.state()
            settings.show(state)
            line.tally.note(state)
            if settings.keep_days is not None and time.monotonic() - pruned > _PRUNE and not last:
                pruned = time.monotonic()
                prune(line.journal, time.time() - settings.keep_days * _DAY, is_there)
        except Exception as error:  # a full disk, for example
            _log.warning("the state cannot be noted", extra={"error": str(error)})
        if last:
            return


def prune(
    journal: Journal, before: float, is_there: Callable[[str, int, int], bool]
) -> tuple[int, int]:
    """Remove pictures and rows of images that ended before a moment.

    A row whose file still lies where it would be found again stays, so that the file is not
    inspected once more; what is still to be sent or moved stays, too.

    Returns
    -------
    (int, int)
        Pictures and rows that were removed.
    """
    pictures = rows = 0
    after = (0.0, 0)
    while some := journal.older(before, _AT_A_TIME, after):
        gone, bare = [], []
        for number, ended, path, size, modified, picture in some:
            after = (ended, number)
            if picture is not None:
                with suppress(FileNotFoundError):
                    (journal.folder / picture).unlink()
                pictures += 1
            if size is None or modified is None or not is_there(path, size, modified):
                gone.append(number)
            elif picture is not None:
                bare.append(number)
        journal.forget_picture(bare)
        journal.forget(gone)
        rows += len(gone)
    return pictures, rows
