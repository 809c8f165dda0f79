"""Who gets the verdicts: each at least once, in order for each file, for as long as it takes."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any, Protocol

from ..support import duration
from .journal import Delivery, Journal

DAYS = 7.0  # after that a verdict that nobody takes is given up, and counted
_SOONEST, _LATEST = 0.1, 300.0  # seconds between two tries
_LATEST_REFUSED = 3600.0  # of a verdict that the receiver answers, and does not take
_AT_A_TIME = 100
_TROUBLE = 4  # tries that came to nothing, until people are told

_log = logging.getLogger(__name__)


class NotTakenError(Exception):
    """A receiver did not take a verdict.

    Parameters
    ----------
    message : str
        Why.
    is_away : bool
        Whether the receiver itself cannot be reached, so that others need not be tried.
    """

    def __init__(self, message: str, *, is_away: bool) -> None:
        super().__init__(message)
        self.is_away = is_away


class Receiver(Protocol):
    """Takes verdicts, one at a time, from one thread."""

    name: str

    def send(self, key: str, answer: dict[str, Any]) -> None:
        """Send a verdict and wait until it is acknowledged; NotTakenError otherwise.

        `key` is the same each time that a verdict is sent.
        """

    def close(self) -> None:
        """End the connection."""


class Sender:
    """Sends what the journal holds for a receiver, in a thread of its own.

    What is not taken is tried again after 0.1, 0.2, 0.4, ... seconds, five minutes at most, each a
    little at random; after `DAYS` days it is given up.

    Parameters
    ----------
    journal : Journal
        The record.
    receiver : Receiver
        Where to.
    """

    def __init__(self, journal: Journal, receiver: Receiver) -> None:
        self.receiver = receiver
        self.trouble = ""  # why nothing is taken, for people; empty while all is well
        self._journal = journal
        self._new = threading.Event()
        self._end = threading.Event()
        self._away_since = 0.0
        self._tries = 0
        self._thread = threading.Thread(target=self._work, name=f"to {receiver.name}", daemon=True)

    def start(self) -> None:
        """Begin with what was left."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._new.set()

    def end(self, patience: float = 5.0) -> None:
        """Send what can be sent within so many seconds; the rest stays in the journal."""
        self._end.set()
        self._new.set()
        self._thread.join(patience)

    def _work(self) -> None:
        try:
            while True:
                self._new.clear()
                more = self._round()
                if self._end.is_set() and (not more or self._tries):
                    return
                if not more:
                    self._new.wait(1.0)
                elif self._tries:
                    self._end.wait(self._pause())
        finally:
            self.receiver.close()

    def _pause(self) -> float:
        return _after(self._tries) * random.uniform(0.75, 1.0)

    def _round(self) -> bool:
        """Send what is due. Whether there was anything."""
        try:
            due = self._journal.deliveries(self.receiver.name, time.time(), _AT_A_TIME)
            taken: list[int] = []
            try:
                for one in due:
                    if not self._send(one, taken):
                        break
            finally:
                if taken:
                    self._journal.delivered(taken)
        except Exception as error:  # a full disk, for example: what was sent is sent again
            self._fail(f"the journal cannot be used ({error})")
            return True
        return bool(due)

    def _send(self, one: Delivery, taken: list[int]) -> bool:
        """Send one. Whether to go on with others."""
        try:
            self.receiver.send(one.key, one.answer)
        except NotTakenError as error:
            if error.is_away:
                self._fail(str(error))
                return False  # its turn comes again, in the same order
            now = time.time()
            give_up = now - one.since > DAYS * 86_400
            due = now + _after(one.tries + 1, _LATEST_REFUSED)
            self._journal.put_off(one.id, due, str(error), give_up=give_up)
            if give_up or one.tries == 0:
                facts = {"receiver": self.receiver.name, "file": one.path, "error": str(error)}
                _log.error("given up" if give_up else "not taken", extra=facts)
            return not self._end.is_set()
        taken.append(one.id)
        self._recover()
        return True

    def _fail(self, why: str) -> None:
        self._tries += 1
        if self._tries < _TROUBLE:
            return
        if not self.trouble:
            self._away_since = time.monotonic()
            _log.error("nothing is taken", extra={"receiver": self.receiver.name, "error": why})
        self.trouble = why

    def _recover(self) -> None:
        self._tries = 0
        if self.trouble:
            away = duration(time.monotonic() - self._away_since)
            _log.info("verdicts are taken", extra={"receiver": self.receiver.name, "after": away})
        self.trouble = ""


def _after(tries: int, latest: float = _LATEST) -> float:
    """Seconds to wait after so many tries in a row that came to nothing."""
    return min(_SOONEST * 2.0 ** min(tries - 1, 20), latest)
