"""Figures with their 95 % intervals: what a test set of this size can tell, and what it cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z = 1.959963984540054  # of the standard Gaussian, 97.5 %
_RESAMPLES = 2000
_BLOCK = 2_000_000  # numbers that a block of resamples takes at a time


@dataclass(frozen=True)
class Estimate:
    """A figure and the 95 % interval that the truth lies in.

    Parameters
    ----------
    value : float
        From the images at hand.
    low, high : float
        Ends of the interval.
    """

    value: float
    low: float
    high: float

    def text(self, scale: float = 1, digits: int = 4) -> str:
        """The figure and its interval in words; `scale` 100 for per cent."""
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


def wilson(share: float, count: int) -> Estimate:
    """A share of `count` independent cases, such as the rate of false alarms.

    Parameters
    ----------
    share : float
        In [0, 1].
    count : int
        >= 1.

    References
    ----------
    Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22(158);
    Brown, Cai, DasGupta 2001, Interval Estimation for a Binomial Proportion, Statistical Science
    16(2), equation 4.
    """
    squared = _Z * _Z
    centre = (share + squared / (2 * count)) / (1 + squared / count)
    spread = math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    half = _Z * spread / (1 + squared / count)
    # Rounding may pass the share itself.
    return Estimate(share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def cases_needed(rate: float) -> int:
    """How many cases, none of them counted, show that a share is below `rate`.

    The least n for which Wilson's interval of 0 of n ends at `rate`: z² (1 - rate) / rate.

    >>> cases_needed(0.01)
    381
    """
    return math.ceil(_Z * _Z * (1 - rate) / rate)


def auroc(good: ArrayLike, defective: ArrayLike) -> Estimate:
    """Area under the ROC curve of scores; ties count half.

    The interval is DeLong's. Where it has no width (all defective scores above all good ones, or
    only one image of a kind) nothing of the variance was seen; then it is Wilson's for as many
    cases as there are images of the rarer kind.

    Parameters
    ----------
    good, defective : array_like of float
        Scores of both kinds, at least one each; higher = more anomalous.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson 1988, Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves, Biometrics 44(3), equations 5 to 7; Sun, Xu 2014, IEEE Signal
    Processing Letters 21(11), for the order of computation.
    """
    first, second = np.sort(np.asarray(good, float)), np.sort(np.asarray(defective, float))
    # Of each image the share of images of the other kind that it is rightly told from.
    of_defective = _share_below(first, second)
    of_good = 1 - _share_below(second, first)
    value = float(of_defective.mean())
    fewest = min(len(first), len(second))
    variance = 0.0
    if fewest > 1:
        variance = of_defective.var(ddof=1) / len(second) + of_good.var(ddof=1) / len(first)
    if variance < 1e-15:
        return wilson(value, fewest)
    half = _Z * math.sqrt(variance)
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0))


def _share_below(ascending: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray:
    """For each value the share of others below it, with half of those that equal it."""
    left = np.searchsorted(ascending, values, "left")
    return (left + np.searchsorted(ascending, values, "right")) / (2 * len(ascending))


class Ranking:
    """Images in the order of their scores: what follows from that order, and how sure it is.

    Parameters
    ----------
    good, defective : array_like of float
        Scores of both kinds, at least one each; higher = more anomalous.
    """

    def __init__(self, good: ArrayLike, defective: ArrayLike) -> None:
        first, second = np.asarray(good, float), np.asarray(defective, float)
        scores = np.concatenate([first, second])
        order = np.argsort(-scores, kind="stable")
        self.n_good, self.n_defective = len(first), len(second)
        self.scores = scores[order]
        self._places = np.argsort(order, kind="stable")  # of good ones, then of defective ones
        # A limit passes between different scores only.
        self._ends = np.append(np.flatnonzero(np.diff(self.scores)), len(scores) - 1)

    def estimates(self, limit: float, seed: int) -> tuple[Estimate, Estimate, Estimate]:
        """F1 at a limit, the best F1 over all limits, and the average precision.

        F1 = 2 P R / (P + R), the average precision is the sum of (R_n - R_n-1) P_n over the limits,
        with precision P and recall R; scores above a limit are anomalous. The intervals are
        percentiles of the same over resampled images: good and defective ones are drawn apart, with
        replacement, each as many as there are (2,000 times, seeded). Where no resample changes a
        figure, as where all are told apart, nothing of its variance was seen, and the interval is
        Wilson's for as many cases as there are images of the rarer kind.
        """
        above = int((self.scores > limit).sum())

        def figures(times: NDArray[np.int64]) -> NDArray[np.float64]:
            found, alarms = self._counts(times)
            at_limit = np.zeros(len(times))
            if above:
                at_limit = self._f1(found[:, above - 1], alarms[:, above - 1])
            found, alarms = found[:, self._ends], alarms[:, self._ends]
            precision = found / np.maximum(found + alarms, 1)
            gained = np.diff(found, axis=1, prepend=0)
            average = (gained * precision).sum(axis=1) / self.n_defective
            return np.stack([at_limit, self._f1(found, alarms).max(axis=1), average])

        values = figures(self._once())[:, 0]
        block = max(1, _BLOCK // len(self.scores))
        random = np.random.default_rng(seed)
        resampled = np.concatenate(
            [
                figures(self._resampled(random, min(block, _RESAMPLES - start)))
                for start in range(0, _RESAMPLES, block)
            ],
            axis=1,
        )
        low, high = np.percentile(resampled, [2.5, 97.5], axis=1)
        fewest = min(self.n_good, self.n_defective)
        first, second, third = (
            Estimate(float(value), float(min(a, value)), float(max(b, value)))
            if b - a > 1e-12
            else wilson(float(value), fewest)
            for value, a, b in zip(values, low, high, strict=True)
        )
        return first, second, third

    def _resampled(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """How often each image is drawn, shape (count, N)."""
        times = np.empty((count, len(self.scores)), np.int64)
        for places in (self._places[: self.n_good], self._places[self.n_good :]):
            equal = np.full(len(places), 1 / len(places))
            times[:, places] = random.multinomial(len(places), equal, count)
        return times

    def limit_of_best_f1(self, lowest: float = -math.inf) -> float:
        """The limit with the largest F1 of those from `lowest` on; infinite if none finds any."""
        found, alarms = (counts[0, self._ends] for counts in self._counts(self._once()))
        return self._best(np.append(0, self._f1(found, alarms)), lowest)

    def limit_of_least_cost(self, cost_ratio: float, lowest: float = -math.inf) -> float:
        """The limit with the least cost_ratio * false alarms + misses of those from `lowest` on.

        Infinite if it is cheapest to flag nothing.
        """
        found, alarms = (counts[0, self._ends] for counts in self._counts(self._once()))
        cost = cost_ratio * alarms + self.n_defective - found
        return self._best(-np.append(self.n_defective, cost), lowest)

    def _best(self, values: NDArray, lowest: float) -> float:
        """The highest limit with the largest value: what flags nothing comes first, then `_ends`.

        It is the middle between the last score that is above it and what is next: another score,
        or `lowest`.
        """
        lasts = self.scores[self._ends]
        best = int(values[: 1 + np.count_nonzero(lasts > lowest)].argmax())
        if not best:
            return math.inf
        last = lasts[best - 1]
        if best < len(lasts):
            middle = (last + max(lasts[best], lowest)) / 2
            if middle < last:
                return float(middle)
        return float(np.nextafter(last, -np.inf))

    def _f1(self, found: NDArray, alarms: NDArray) -> NDArray:
        return 2 * found / (found + alarms + self.n_defective)

    def _once(self) -> NDArray[np.int64]:
        return np.ones((1, len(self.scores)), np.int64)

    def _counts(self, times: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
        """Defective and good images up to each place, if image i is there times[:, i] times."""
        is_defective = np.zeros(len(self.scores), bool)
        is_defective[self._places[self.n_good :]] = True
        return (
            np.cumsum(np.where(is_defective, times, 0), axis=1),
            np.cumsum(np.where(is_defective, 0, times), axis=1),
        )
