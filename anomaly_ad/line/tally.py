"""How a line is doing: for a terminal, for Prometheus, and for whoever asks later."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import prometheus_client as prometheus

from ..errors import MissingExtraError, ModelError, OptionError
from ..evaluation.drift import CROSS_FITTED, compare
from ..model import StoredModel
from ..model.calibration import GoodScores
from ..support import printable
from .journal import Journal, Reader, Row

_RATE_OVER = 60.0  # seconds
_LAST = 300  # images whose scores are compared with those of the calibration
_FEWEST = 50
_SHARE = 50  # counting takes at most this part of the time
# Of a comparison that is made again and again: once in a thousand is often enough for a false one.
_SIGNIFICANCE = 0.001
NONE_YET, STEADY = "not known yet", "none"
# Seconds; an image takes milliseconds, one that waits for others seconds.
_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


@dataclass(frozen=True)
class State:
    """A line at a moment. Its `str` is one line for people.

    Parameters
    ----------
    good, anomalous, errors : int
        Images so far, as the journal has them.
    waiting : int
        Files that have come and have no verdict; or of a camera frames.
    rate : float
        Images a second, over the last minute.
    drift : str
        "none", "not known yet", or what has changed.
    undelivered : dict of str to int
        Verdicts that each receiver has not taken yet.
    trouble : str
        What stands in the way, for people; empty while all is well.
    dropped : int
        Frames of a camera that came too fast.
    """

    good: int
    anomalous: int
    errors: int
    waiting: int
    rate: float
    drift: str
    undelivered: dict[str, int]
    trouble: str = ""
    dropped: int = 0

    def __str__(self) -> str:
        parts = [
            f"{self.good + self.anomalous + self.errors:,} images: {self.anomalous:,} anomalous, "
            f"{self.errors:,} not inspected",
            f"{self.waiting:,} waiting",
            f"{self.rate:.1f}/s",
            f"drift: {self.drift}",
        ]
        if self.dropped:
            parts.append(f"{self.dropped:,} frames dropped")
        parts += [f"{n:,} to send by {name}" for name, n in self.undelivered.items() if n]
        return printable("; ".join(parts) + (f"; {self.trouble}" if self.trouble else ""))


class Tally:
    """Counts, from the journal and for a registry of Prometheus.

    Parameters
    ----------
    journal : Journal
        The record.
    stored : StoredModel
        The model.
    name : str
        Of the model.
    waiting, trouble, dropped : callable
        See `State`.
    """

    def __init__(
        self,
        journal: Journal,
        stored: StoredModel,
        name: str,
        waiting: Callable[[], int],
        trouble: Callable[[], str],
        dropped: Callable[[], int] = lambda: 0,
    ) -> None:
        self._journal = journal
        self._waiting, self._trouble, self._dropped = waiting, trouble, dropped
        self._stored = stored
        self._name = name
        self._good_scores: GoodScores | None = None
        with suppress(ModelError):  # of a version that did not keep them
            self._good_scores = stored.good_scores()
        self._compared = (0, NONE_YET)
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self._images = prometheus.Counter(
            "anomaly_ad_images",
            "Images, by model and verdict: good, anomalous, or error.",
            ["model", "verdict"],
            registry=registry,
        )
        self._seconds = prometheus.Histogram(
            "anomaly_ad_verdict_seconds",
            "Time from an image's arrival to its verdict.",
            buckets=_BUCKETS,
            registry=registry,
        )
        for label, text, value in (
            ("images_waiting", "Images that have come and have no verdict.", waiting),
            ("frames_dropped", "Frames of a camera that came too fast.", self._dropped),
            ("drifting", "Whether the scores have moved away from the calibration.", self._drifts),
            ("stopped", "Whether results cannot be written or sent.", lambda: bool(trouble())),
        ):
            gauge = prometheus.Gauge(f"anomaly_ad_{label}", text, registry=registry)
            gauge.set_function(value)
        self._undelivered = prometheus.Gauge(
            "anomaly_ad_undelivered",
            "Verdicts that a receiver has not taken yet.",
            ["receiver"],
            registry=registry,
        )
        self._waits: dict[str, int] = {}
        self._counted = 0.0  # until when that count will do

    def add(self, rows: Sequence[Row]) -> None:
        """Rows have been written."""
        for row in rows:
            self._images.labels(self._name, row.verdict).inc()
            self._seconds.observe(max(row.ended - row.arrived, 0))

    def state(self) -> State:
        """How it is now; also noted in the journal, for `describe`."""
        counts = self._journal.counts()
        self._count_undelivered()
        now = time.time()
        return State(
            counts["good"],
            counts["anomalous"],
            counts["error"],
            self._waiting(),
            self._journal.since(now - _RATE_OVER) / _RATE_OVER,
            self._drift(counts.total()),
            self._waits,
            self._trouble(),
            self._dropped(),
        )

    def _count_undelivered(self) -> None:
        """Of very many verdicts that takes a while: not always at once, then."""
        begun = time.monotonic()
        if begun < self._counted:
            return
        self._waits = {**dict.fromkeys(self._waits, 0), **self._journal.undelivered()}
        for receiver, number in self._waits.items():
            self._undelivered.labels(receiver).set(number)
        self._counted = begun + _SHARE * (time.monotonic() - begun)

    def note(self, state: State) -> None:
        """Keep for `describe` what only this process knows."""
        self._journal.note(
            seen=time.time(),
            waiting=state.waiting,
            drift=state.drift,
            trouble=state.trouble,
            dropped=state.dropped,
        )

    def _drifts(self) -> bool:
        return self._compared[1] not in (NONE_YET, STEADY)

    def _drift(self, total: int) -> str:
        before, said = self._compared
        if self._good_scores is None or (total - before < _FEWEST and before):
            return said
        scores = self._journal.scores(self._stored.digest, _LAST)
        if len(scores) < _FEWEST:
            return said
        import numpy as np

        tolerance = CROSS_FITTED if self._good_scores.cross_fitted else 0
        try:
            found = compare(np.array(scores), self._good_scores.scores, tolerance)
        except MissingExtraError:
            return said
        said = STEADY
        if found.p_change < _SIGNIFICANCE:
            said = f"the last {len(scores)} scores are {found.direction} than in the calibration"
        self._compared = (total, said)
        return said

    def serve(self, port: int) -> Callable[[], object]:
        """Show the counters at ``http://127.0.0.1:PORT/metrics``; what it gives ends that."""
        try:
            server, thread = prometheus.start_http_server(
                port, addr="127.0.0.1", registry=self._registry
            )
        except (OSError, OverflowError) as error:
            raise OptionError(
                f"Counters cannot be shown on port {port}: {error}. Choose another --metrics."
            ) from error

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return end


def describe(journal: Reader) -> dict[str, Any]:
    """What `anomaly-ad watch --status` tells, as plain values."""
    counts, about = journal.counts(), journal.about()
    is_running = journal.is_written
    last = journal.last_error()
    found: dict[str, Any] = {
        "source": about.get("source"),
        "running": is_running,
        "good": counts["good"],
        "anomalous": counts["anomalous"],
        "errors": counts["error"],
        "last_minute": journal.since(time.time() - 60),
        "waiting": int(about.get("waiting", 0)) if is_running else None,
        "dropped": int(about.get("dropped", 0)),
        "drift": about.get("drift", NONE_YET),
        "undelivered": journal.undelivered(),
        "given_up": journal.given_up(),
        "trouble": about.get("trouble", "") if is_running else "",
        "last_error": None if last is None else {"path": last[0], "error": last[1]},
    }
    return found
