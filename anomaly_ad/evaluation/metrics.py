"""How well maps find what the masks show: area under the ROC curve of pixels, and AUPRO.

A few million pixels are compared exactly. More are counted in fine steps of their value, so memory
does not grow with the images: a monotone function brings values to whole numbers, with most steps
where good pixels lie, and two pixels in one step count as equal. That moves a figure by less than
half the share of pairs that meet in a step, and in practice by far less than 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .intervals import Estimate

# Of good pixels above each defective one, and of those above it or equal to it.
Shares = tuple[NDArray, NDArray]

STEPS = 2**16
EXACT = 2**22  # pixels that are compared exactly
_COARSE = 2**8  # steps for the intervals
_GROUPS = 4096  # of images at most, that are resampled for the intervals
_RESAMPLES = 1000
_NONE = np.empty(0, np.float32)
FALSE_POSITIVES = 0.3  # up to which AUPRO looks, as in the paper


@dataclass(frozen=True)
class Pixels:
    """What an image adds to the counts.

    Parameters
    ----------
    values : ndarray of float32, shape (N,)
        Of all pixels.
    steps : ndarray of float32, shape (65536,)
        How many of them there are in each step.
    inside : ndarray of int64, shape (M,)
        Which of them lie in the mask.
    marked : ndarray of int64, shape (M,)
        Their steps.
    weights : ndarray of float64, shape (M,)
        One over the size of each one's region.
    regions : int
        Defective regions: 8-connected components of the mask.
    coarse : ndarray of float32, shape (3, 256)
        Good, defective and weighted defective pixels in coarse steps.
    """

    values: NDArray[np.float32]
    steps: NDArray[np.float32]
    inside: NDArray[np.int64]
    marked: NDArray[np.int64]
    weights: NDArray[np.float64]
    regions: int
    coarse: NDArray[np.float32]


def _coarse(
    steps: NDArray[np.float32], marked: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    out = np.zeros((3, _COARSE), np.float32)
    out[0] = steps.reshape(_COARSE, -1).sum(axis=1)
    if len(marked):
        coarser = marked // (STEPS // _COARSE)
        out[1] = np.bincount(coarser, minlength=_COARSE)
        out[2] = np.bincount(coarser, weights, _COARSE)
        out[0] -= out[1]
    return out


def _count(
    counts: NDArray[np.float64], steps: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> None:
    """Add one, or its weight, for each step; only the range that there is, is walked through."""
    low = steps.min()
    more = np.bincount(steps - low, weights)
    counts[low : low + len(more)] += more


class PixelCurves:
    """Counts of good and defective pixels by the value of the map.

    Parameters
    ----------
    low, high : float
        Steps are finest around and between them; ``low < high``. Any values are counted.

    References
    ----------
    Bergmann et al. 2021, The MVTec Anomaly Detection Dataset, IJCV 129, section 5 (AUPRO).
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.scale = np.float32(low), np.float32(1 / (high - low))
        self._all = np.zeros(STEPS)
        self._defective: dict[str, NDArray[np.float64]] = {}
        self._weighted = np.zeros(STEPS)
        self._kept: list[tuple[str, Pixels]] | None = []  # None: there are too many pixels
        self._pixels = 0
        # Of groups of images: 3 coarse counts, and how many regions.
        self._groups: dict[bool, list[tuple[NDArray[np.float32], int]]] = {True: [], False: []}
        self._seen = {True: 0, False: 0}

    def measure(
        self,
        anomaly_map: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        counted: NDArray[np.bool_] | None = None,
    ) -> Pixels:
        """The steps of an image's pixels; may be called in threads.

        Parameters
        ----------
        anomaly_map : ndarray of float32, shape (H, W)
            Raw, at the size of the mask; higher = more anomalous.
        mask : ndarray of bool, shape (H, W), or None
            True on defects; None for a good image.
        counted : ndarray of bool, shape (H, W), optional
            The pixels that are inspected; None for all.
        """
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != anomaly_map.shape):
            raise DataError(
                f"A map and its mask have one size, and a mask is bool. Received a map of "
                f"{anomaly_map.shape} and a mask of {mask.shape}, {mask.dtype}."
            )
        if not np.isfinite(anomaly_map).all():
            raise DataError("A map is finite; this one is not.")
        places = self._places(anomaly_map)
        among = None
        if counted is not None:
            among = counted.astype(np.uint8)
            mask = None if mask is None else mask & counted
        inside, weights, regions = np.empty(0, np.int64), np.empty(0), 0
        if mask is not None and mask.any():
            x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
            part = np.ascontiguousarray(mask[y : y + height, x : x + width])
            count, labels = cv2.connectedComponents(part.view(np.uint8), connectivity=8)
            rows, columns = np.nonzero(part)
            inside = (rows + y) * mask.shape[1] + columns + x
            labels = labels[rows, columns]
            weights = 1 / np.bincount(labels)[labels]
            regions = count - 1
        counts = cv2.calcHist([places], [0], among, [STEPS], [0, 1])
        steps = np.asarray(counts, np.float32).ravel()
        # A power of two: both ways of counting come to the same step.
        marked = (places.ravel()[inside] * np.float32(STEPS)).astype(np.int64)
        values = anomaly_map.astype(np.float32, copy=False).ravel()
        if counted is not None:  # numbered among those that are inspected
            values = values[counted.ravel()]
            inside = np.cumsum(counted.ravel(), dtype=np.int64)[inside] - 1
        coarse = _coarse(steps, marked, weights)
        return Pixels(values, steps, inside, marked, weights, regions, coarse)

    def _places(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values brought to [0, 1), finest where good pixels lie."""
        t = anomaly_map.astype(np.float32, copy=False) - self.low
        t *= self.scale
        # (1 + t / (1 + |t|)) / 2, in place: new arrays of a large picture cost more than the sums
        divisor = np.abs(t)
        divisor += 1
        t /= divisor
        t += 1
        t *= 0.5
        highest = np.nextafter(np.float32(1), np.float32(0))
        return np.minimum(t, highest, out=t)

    def add(self, kind: str, pixels: Pixels) -> None:
        """Count an image.

        Parameters
        ----------
        kind : str
            The name of its defect, or any word for a good image.
        pixels : Pixels
            From `measure`.
        """
        self._pixels += len(pixels.values)
        if self._pixels > EXACT:
            self._kept = None
        if self._kept is not None:
            self._kept.append((kind, replace(pixels, steps=_NONE)))
        cv2.accumulate(pixels.steps, self._all)
        if pixels.regions:
            _count(self._defective.setdefault(kind, np.zeros(STEPS)), pixels.marked, None)
            _count(self._weighted, pixels.marked, pixels.weights)
        is_defective = pixels.regions > 0
        groups, seen = self._groups[is_defective], self._seen[is_defective]
        if seen < _GROUPS:
            groups.append((pixels.coarse, pixels.regions))
        else:
            coarse, regions = groups[seen % _GROUPS]
            groups[seen % _GROUPS] = (coarse + pixels.coarse, regions + pixels.regions)
        self._seen[is_defective] += 1

    @property
    def kinds(self) -> set[str]:
        """Kinds of defects with defective pixels."""
        return set(self._defective)

    @property
    def is_complete(self) -> bool:
        """Whether there are good and defective pixels."""
        return bool(self._defective) and bool(self._good().any())

    def _good(self) -> NDArray[np.float64]:
        """Good pixels in each step."""
        return self._all - sum(self._defective.values())

    def auroc(self, kind: str | None = None) -> float:
        """Area under the ROC curve over all pixels; ties count half.

        Parameters
        ----------
        kind : str, optional
            Only defective pixels of this kind, with all good ones.
        """
        shares, counts, _ = self._compared(kind)
        return float(_auroc(shares, counts))

    def aupro(self) -> float:
        """Area under the per-region overlap curve up to a false positive rate of 0.3, over 0.3.

        For each limit, the overlap is the share of a defective region's pixels that exceed it,
        averaged over the regions, so that a small defect counts as much as a large one; the false
        positive rate is the share of all good pixels.
        """
        shares, _, weights = self._compared(None)
        return float(_aupro(shares, weights, sum(count for _, count in self._groups[True])))

    def _compared(self, kind: str | None) -> tuple[Shares, NDArray, NDArray]:
        """Shares of good pixels next to defective ones, how many of these, and their weight."""
        if not self.is_complete:
            raise DataError(
                "Pixel metrics need defective and good pixels, and one kind is missing."
            )
        if self._kept is None:
            some = [c for name, c in self._defective.items() if kind in (None, name)]
            return _shares(self._good()), np.sum(some, axis=0), self._weighted
        good, defective, weights = [], [], []
        for name, pixels in self._kept:
            good.append(np.delete(pixels.values, pixels.inside))
            if kind in (None, name):
                defective.append(pixels.values[pixels.inside])
                weights.append(pixels.weights)
        ascending, values = np.sort(np.concatenate(good)), np.concatenate(defective)
        above = 1 - np.searchsorted(ascending, values, "right") / len(ascending)
        reached = 1 - np.searchsorted(ascending, values, "left") / len(ascending)
        return (above, reached), np.ones(len(values)), np.concatenate(weights)

    def estimates(self, seed: int) -> tuple[Estimate, Estimate]:
        """`auroc` and `aupro`, with percentiles over resampled images, in coarse steps.

        Good and defective images are drawn apart, with replacement, as many as there are.
        """
        kinds = [groups for groups in self._groups.values() if groups]
        counts = [np.stack([c for c, _ in groups]) for groups in kinds]
        regions = [np.array([r for _, r in groups]) for groups in kinds]

        def figures(times: list[NDArray]) -> NDArray[np.float64]:
            """For each row of `times`, how often each image is there: both metrics."""
            together = sum(t @ c.reshape(len(c), -1) for t, c in zip(times, counts, strict=True))
            many = sum(t @ r for t, r in zip(times, regions, strict=True))
            good, defective, weighted = np.split(np.asarray(together), 3, axis=1)
            shares = _shares(good)
            return np.stack([_auroc(shares, defective), _aupro(shares, weighted, many)])

        random = np.random.default_rng(seed)
        drawn = figures(
            [
                random.multinomial(n, np.full(n, 1 / n), _RESAMPLES).astype(np.float64)
                for n in map(len, counts)
            ]
        )
        # Coarse steps move the figures a little; the intervals are moved back by as much.
        coarse = figures([np.ones((1, len(c))) for c in counts])
        fine = np.array([self.auroc(), self.aupro()])
        low, high = np.percentile(drawn + (fine[:, None] - coarse), [2.5, 97.5], axis=1)
        first, second = (
            Estimate(float(v), float(max(min(a, v), 0)), float(min(max(b, v), 1)))
            for v, a, b in zip(fine, low, high, strict=True)
        )
        return first, second


def _shares(good: NDArray) -> Shares:
    """For each step the share of good pixels above it, and of those above or in it."""
    total = good.sum(axis=-1, keepdims=True)
    above = 1 - np.cumsum(good, axis=-1) / total
    return above, above + good / total


def _auroc(shares: Shares, defective: NDArray) -> NDArray[np.float64]:
    middle = (shares[0] + shares[1]) / 2
    share = np.einsum("...s,...s->...", defective, middle) / defective.sum(axis=-1)
    return np.clip(1 - share, 0, 1)  # rounding may lead beyond


def _aupro(shares: Shares, weighted: NDArray, regions: NDArray | int) -> NDArray[np.float64]:
    # A region's pixel is found for every rate above that at which its own value is the limit. Where
    # good pixels have its value too, the curve rises from the one rate to the other as a line.
    above, reached = shares
    width = np.maximum(reached - above, 1e-300)
    cut = np.clip(FALSE_POSITIVES - above, 0, None)
    gains = np.where(
        reached <= FALSE_POSITIVES, FALSE_POSITIVES - (above + reached) / 2, cut * (cut / width) / 2
    )
    gained = np.einsum("...s,...s->...", weighted, gains) / regions
    return np.clip(gained / FALSE_POSITIVES, 0, 1)
