"""The end of a training by gradient: when nothing is gained any more, and how long until then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ..support import duration

_LITTLE = 0.005  # of all that was gained since the first epoch
_BESIDES = 1.1  # times the batches of the first epoch: validation, and what is done between them


def window(epochs: int) -> int:
    """Over how many epochs nothing is gained before training ends; at most `epochs` are run."""
    return max(10, epochs // 5)


def is_over(losses: Sequence[float], epochs: int) -> bool:
    """Whether the last epochs gained at most 0.5 % of all that was gained since the first one.

    A loss that is not finite is passed over.
    """
    best = _best(losses)
    before = len(best) - window(epochs)
    return before > 0 and bool(best[before - 1] - best[-1] <= _LITTLE * (best[0] - best[-1]))


def _best(losses: Sequence[float]) -> NDArray[np.float64]:
    """The best loss after each epoch, from the first on that has a finite one."""
    known = np.where(np.isfinite(losses), losses, np.inf)
    best = np.minimum.accumulate(known)
    return best[np.isfinite(best)]


def expected_end(losses: Sequence[float], epochs: int) -> int:
    """After how many epochs training is over if it goes on as it does.

    The best loss is taken to approach its end as a + c / epoch, through its values now and at half
    the time. The gain of a window w that ends at epoch e is then c w / (e (e - w)), and all
    that will have been gained what was gained so far and c / epoch.

    Parameters
    ----------
    losses : sequence of float
        What is monitored, of each epoch so far; at least one.
    epochs : int
        How many are run at most.

    Returns
    -------
    int
        From ``len(losses)`` to `epochs`.
    """
    best, width = _best(losses), window(epochs)
    count = len(best)
    if count < 2:
        return epochs
    gained, end = float(best[0] - best[-1]), width + 1
    if gained > 0:
        half = count // 2
        slope = float(best[half - 1] - best[-1]) / (1 / half - 1 / count)
        total = gained + slope / count
        end = math.ceil((width + math.sqrt(width**2 + 4 * slope * width / (_LITTLE * total))) / 2)
    return min(epochs, max(len(losses), len(losses) - count + end))


class EndOfGain(keras.callbacks.Callback):
    """Ends training when nothing is gained any more; says after each epoch how long it will take.

    Parameters
    ----------
    monitored : str
        The name of the loss; smaller is better.
    epochs : int
        How many are run at most.
    progress : callable
        Takes a line after each epoch: the loss, how long training takes at most from here on and,
        from the second epoch on, how long at the present rate of improvement.
    """

    def __init__(self, monitored: str, epochs: int, progress: Callable[[str], None]) -> None:
        super().__init__()
        self.monitored = monitored
        self.epochs = epochs
        self.progress = progress
        self.losses: list[float] = []
        self._batches: list[float] = []  # when each of the first epoch ended
        self._first = 0.0  # when the first epoch ended

    def on_train_begin(self, logs: Any = None) -> None:
        """As Keras calls it."""
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """As Keras calls it."""
        if not self.losses:
            self._batches.append(time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """As Keras calls it."""
        self.losses.append(float((logs or {})[self.monitored]))
        each, done = self._seconds_of_an_epoch(), len(self.losses)
        words = [f"{self.monitored} {self.losses[-1]:.4f}"]
        if is_over(self.losses, self.epochs):
            self.model.stop_training = True
        elif done < self.epochs:
            words.append(f"at most about {duration(each * (self.epochs - done))} left")
            if done > 1:
                left = each * (expected_end(self.losses, self.epochs) - done)
                words.append(f"{duration(left)} at the present rate of improvement")
        self.progress(", ".join(words))

    def _seconds_of_an_epoch(self) -> float:
        """Without what is done once: the first batch compiles what trains."""
        now = time.perf_counter()
        if len(self.losses) > 1:
            return (now - self._first) / (len(self.losses) - 1)
        self._first = now
        count = len(self._batches)
        if count < 2:
            return now - self._begun
        return _BESIDES * (self._batches[-1] - self._batches[0]) / (count - 1) * count
