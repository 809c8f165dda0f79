"""The course of a training by gradient: best weights, learning rate, end, and time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ..errors import TrainingError
from ..support import duration

_LITTLE = 0.005  # of all that was gained since the first epoch
_LEAST_GAIN = 1e-4  # that counts as an improvement, for the learning rate
# For people, of figures whose names say too little.
MISSED = "missed"
# Who misses less tells defects: 1 - partial AUROC up to 5 % is 0.975 by chance, and with the few
# images that are monitored 0.9 at times.
TELLS = 0.8
_WORDS = {MISSED: "rendered defects missed"}
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


def counted(monitored: str, losses: Sequence[float]) -> Sequence[float]:
    """The figures from the first epoch on that tells defects clearly more often than chance does.

    A network that begins from nothing needs some epochs before it can tell any. That these gain
    nothing says nothing of the end, and does not ask for a lower learning rate.
    """
    if monitored != MISSED:
        return losses
    begun = (n for n, loss in enumerate(losses) if loss < TELLS)
    return losses[next(begun, len(losses)) :]


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
        # In shares of what was gained, which may be tiny.
        slope = float(best[half - 1] - best[-1]) / gained / (1 / half - 1 / count)
        total = 1 + slope / count
        end = math.ceil((width + math.sqrt(width**2 + 4 * slope * width / (_LITTLE * total))) / 2)
    return min(epochs, max(len(losses), len(losses) - count + end))


def halvings(losses: Sequence[float], patience: int) -> int:
    """How often the learning rate is halved: each time `patience` epochs bring no improvement."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best - _LEAST_GAIN:
            best, waited = loss, 0
            continue
        waited += 1
        if waited == patience:
            count, waited = count + 1, 0
    return count


@dataclass(frozen=True)
class Reached:
    """How far a training by gradient has come, after a whole epoch.

    Parameters
    ----------
    history : dict of str to list of float
        "loss" and what is monitored, of each epoch.
    best : list of ndarray
        The weights of the epoch with the best monitored value.
    last : list of ndarray
        All variables after the last epoch, also those of the optimiser.
    """

    history: dict[str, list[float]]
    best: list[NDArray[Any]]
    last: list[NDArray[Any]]


class Course(keras.callbacks.Callback):
    """Keeps what a training has reached, sets the learning rate, and ends when nothing is gained.

    Parameters
    ----------
    monitored : str
        Name of the figure; smaller is better.
    epochs : int
        How many are run at most, with those that were run before.
    progress : callable
        Takes a line after each epoch: the loss, the figure, how long training takes at most from
        here on and, from the second epoch on, how long at the present rate of improvement.
    weights : callable
        Gives a copy of the weights of which the best are kept.
    variables : sequence of keras.Variable
        All that training changes.
    rate : float
        The learning rate at first.
    patience : int
        See `halvings`.
    reached : Reached, optional
        Where an earlier training ended that this one goes on with.
    measure : callable, optional
        Gives the figure, where it is not among those that Keras computes.

    Raises
    ------
    TrainingError
        After an epoch whose loss is not finite.
    """

    def __init__(
        self,
        monitored: str,
        epochs: int,
        progress: Callable[[str], None],
        *,
        weights: Callable[[], list[NDArray[Any]]] = list,
        variables: Sequence[keras.Variable] = (),
        rate: float = 0.0,
        patience: int = 4,
        reached: Reached | None = None,
        measure: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self.monitored = monitored
        self.epochs = epochs
        self.progress = progress
        self.reached = reached
        self.measure = measure
        self._weights = weights
        self._variables = variables
        self._rate, self._patience = rate, patience
        self._first_epoch = len(self.losses)
        self._batches: list[float] = []  # when each of the first epoch ended
        self._first = 0.0  # when the first epoch ended

    @property
    def losses(self) -> list[float]:
        """The monitored figure after each epoch."""
        return [] if self.reached is None else self.reached.history[self.monitored]

    def on_train_begin(self, logs: Any = None) -> None:
        """As Keras calls it."""
        self._begun = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """As Keras calls it."""
        share = 0.5 ** halvings(counted(self.monitored, self.losses), self._patience)
        self.model.optimizer.learning_rate = self._rate * share

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """As Keras calls it."""
        if not self._first:
            self._batches.append(time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """As Keras calls it."""
        known = logs or {}
        loss = float(known["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"Training has diverged: the loss of epoch {epoch + 1} is {loss}. Nothing was "
                "saved. Train again with another seed; if that diverges too, report it as a bug."
            )
        figure = float(known[self.monitored] if self.measure is None else self.measure())
        self._keep({"loss": loss, self.monitored: figure})
        losses = counted(self.monitored, self.losses)
        each, done = self._seconds_of_an_epoch(), len(self.losses)
        words = [f"loss {loss:.4f}, {_WORDS.get(self.monitored, self.monitored)} {figure:.4f}"]
        if is_over(losses, self.epochs):
            self.model.stop_training = True
        elif done < self.epochs:
            words.append(f"at most about {duration(each * (self.epochs - done))} left")
            if done > 1:
                end = min(expected_end(losses, self.epochs) + done - len(losses), self.epochs)
                left = each * (end - done)
                words.append(f"{duration(left)} at the present rate of improvement")
        self.progress(", ".join(words))

    def _keep(self, figures: dict[str, float]) -> None:
        """One assignment, so that an interruption leaves a whole epoch."""
        before = {} if self.reached is None else self.reached.history
        history = {name: [*before.get(name, []), value] for name, value in figures.items()}
        *earlier, now = history[self.monitored]
        known = [value for value in earlier if math.isfinite(value)]
        if self.reached is None or (math.isfinite(now) and now < min(known, default=math.inf)):
            best = self._weights()
        else:
            best = self.reached.best
        last = [np.array(each) for each in self._variables]
        self.reached = Reached(history, best, last)

    def _seconds_of_an_epoch(self) -> float:
        """Without what is done once: the first batch compiles what trains."""
        now = time.perf_counter()
        done = len(self.losses) - self._first_epoch
        if done > 1:
            return (now - self._first) / (done - 1)
        self._first = now
        count = len(self._batches)
        if count < 2:
            return now - self._begun
        return _BESIDES * (self._batches[-1] - self._batches[0]) / (count - 1) * count
