"""A few feature vectors that no other is far from, and the nearest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .pool import VectorPool

_PROJECTED = 64  # dimensions of the random projection, at most
_CANDIDATES = 8192  # vectors that are looked at one by one between two passes over all
_CHUNK = 8192  # vectors whose distances are in memory at a time
# Added to the square of a distance, per channel. Which of several vectors that are nearly alike is
# the nearest is a matter of rounding; below this, where a channel varies by one, none is nearer.
NOISE = 1e-3


@dataclass(frozen=True)
class Coreset:
    """Feature vectors that stand for all.

    Parameters
    ----------
    vectors : ndarray of float32, shape (K, C)
        As they came from the network.
    mean, scale : ndarray of float32, shape (C,)
        Vectors are compared as (vector - mean) * scale: the mean changes no distance, but which of
        them is least is found from products, that are the more exact the smaller they are.
    """

    vectors: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (..., C) as they are compared."""
        return (vectors - self.mean) * self.scale


class FeatureBank(VectorPool):
    """Candidates drawn from all feature vectors that come in, and a coreset of them.

    Parameters
    ----------
    groups : tuple of int
        Numbers of channels that belong together; their sum is C, the length of a feature vector.
        Distances are taken in features that are scaled so that every group varies as much as the
        others.
    pool : int
        How many candidates are kept at most.
    neighbours : int
        Size of the coreset at most.
    seed : int
        Chooses the sample and the projection.

    References
    ----------
    Roth et al. 2022, Towards Total Recall in Industrial Anomaly Detection, arXiv 2106.08265,
    section 3.2, algorithm 1. Deviations: the candidates are a bounded sample instead of all
    features, the coreset has a fixed size instead of a share of them, and the projection never has
    more dimensions than the features.
    """

    def __init__(self, groups: tuple[int, ...], pool: int, neighbours: int, seed: int) -> None:
        super().__init__(sum(groups), pool, seed)
        self.groups, self.neighbours = groups, neighbours

    def _clear(self) -> None:
        super()._clear()
        self._coreset: Coreset | None = None  # once it is asked for

    def _add(self, count: int, times: NDArray[np.int64], vectors: NDArray[np.float32]) -> Self:
        if self.count and not len(self.keys):
            raise ValueError("A bank that was restored has no candidates that others could join.")
        self._coreset = None
        return super()._add(count, times, vectors)

    def coreset(self) -> Coreset:
        """Vectors that no candidate is far from, at most `neighbours`, and how they are compared.

        The scale gives every group of channels the same total variance over the candidates, and
        all channels together a mean variance of one.
        """
        if self._coreset is None:
            mean, variances = _mean_and_variance(self.vectors)
            totals = np.add.reduceat(variances, np.cumsum([0, *self.groups[:-1]]))
            floor = 1e-6 * totals.max() or 1e-12  # of a group that is everywhere the same
            share = len(variances) / len(self.groups)
            factors = np.sqrt(share / np.maximum(totals, floor))
            scale = np.repeat(factors, self.groups).astype(np.float32)
            points = projected(self.vectors, scale, self.seed)
            chosen = greedy_k_centre(points, self.neighbours)
            self._coreset = Coreset(self.vectors[chosen], mean.astype(np.float32), scale)
        return self._coreset

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored: the coreset and its scale; candidates cannot be added to it again."""
        coreset = self.coreset()
        return {
            "count": np.array(self.count, np.int64),
            "coreset": coreset.vectors,
            "mean": coreset.mean,
            "scale": coreset.scale,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take over a stored coreset: it scores as the one that was stored.

        Raises
        ------
        ModelError
            The arrays are not those of such a bank.
        """
        vectors, mean, scale = (arrays[name] for name in ("coreset", "mean", "scale"))
        channels = self.channels
        if (
            vectors.shape[1:] != (channels,)
            or not 2 <= len(vectors) <= self.neighbours
            or not mean.shape == scale.shape == (channels,)
        ):
            raise ModelError(
                f"The coreset does not belong to this model: vectors {vectors.shape}, mean "
                f"{mean.shape}, scale {scale.shape}; at most {self.neighbours} vectors of "
                f"{channels} numbers were expected. Restore the model directory from a copy."
            )
        self.count = int(arrays["count"])
        self._coreset = Coreset(vectors, mean, scale)
        return self


def _mean_and_variance(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each channel; a chunk at a time, for a copy in float64 would be the largest array here."""
    chunks = [vectors[start : start + _CHUNK] for start in range(0, len(vectors), _CHUNK)]
    mean = np.add.reduce([chunk.sum(axis=0, dtype=np.float64) for chunk in chunks]) / len(vectors)
    squares = np.add.reduce([np.square(chunk - mean).sum(axis=0) for chunk in chunks])
    return mean, squares / len(vectors)


def projected(
    vectors: NDArray[np.float32], scale: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """Scaled vectors in few dimensions: a random projection that keeps distances, roughly.

    Parameters
    ----------
    vectors : ndarray of float32, shape (N, C)
        Not changed.
    scale : ndarray of float32, shape (C,)
    seed : int
        Chooses the projection.

    Returns
    -------
    ndarray of float32, shape (N, min(C, 64))
    """
    channels = vectors.shape[1]
    matrix = np.eye(channels)
    if channels > _PROJECTED:
        random = np.random.default_rng(seed).normal(size=(channels, _PROJECTED))
        matrix = random / np.sqrt(_PROJECTED)
    return vectors @ (scale[:, None] * matrix).astype(np.float32)


def greedy_k_centre(points: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Choose points one after the other, each the farthest from all that were chosen before.

    Plain selection passes over all points for every choice. Here a distance that was true some
    choices ago serves as an upper bound: while the farthest of a few thousand candidates, which
    are kept up to date, is farther than any bound outside, it is the farthest of all. Only then
    are all points compared with the latest choices, in one matrix product. The choice is the
    same, up to ties.

    Parameters
    ----------
    points : ndarray of float32, shape (N, C)
        Not changed.
    count : int
        How many to choose; all if there are no more.

    Returns
    -------
    ndarray of int, shape (min(N, count),)
        In the order of choice; the first is the one farthest from the mean.
    """
    if len(points) <= count:
        return np.arange(len(points))
    points = points - points.mean(axis=0)
    squares = np.einsum("nc,nc->n", points, points)
    nearest = np.full(len(points), np.inf, np.float32)  # squared, to what was chosen
    chosen = [int(squares.argmax())]
    compared = 0
    while len(chosen) < count:
        latest = np.array(chosen[compared:])
        compared = len(chosen)
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            distance = squares[latest] - 2 * (points[part] @ points[latest].T)
            nearest[part] = np.minimum(nearest[part], distance.min(axis=1) + squares[part])
        nearest[latest] = -np.inf
        some = np.arange(len(points))
        bound = -np.inf
        if len(points) > _CANDIDATES:
            order = np.argpartition(nearest, -_CANDIDATES - 1)
            bound = nearest[order[-_CANDIDATES - 1]]
            some = np.sort(order[-_CANDIDATES:])
        few, few_squares, few_nearest = points[some], squares[some], nearest[some]
        while len(chosen) < count:
            best = int(few_nearest.argmax())
            if few_nearest[best] < bound:
                break
            last = some[best]
            chosen.append(int(last))
            distance = few_squares - 2 * (few @ points[last]) + squares[last]
            np.minimum(few_nearest, distance, out=few_nearest)
            few_nearest[best] = -np.inf
    return np.array(chosen)


def closest(bank: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The nearest of a bank to each of it, itself included.

    Parameters
    ----------
    bank : ndarray of float32, shape (K, C)
    count : int
        How many; all if there are no more.

    Returns
    -------
    ndarray of int, shape (K, min(K, count))
        In no order.
    """
    count = min(count, len(bank))
    squares = np.einsum("kc,kc->k", bank, bank) / 2
    out = np.empty((len(bank), count), np.intp)
    for start in range(0, len(bank), 512):  # not all pairs at once
        part = slice(start, start + 512)
        gaps = squares - bank[part] @ bank.T  # half the square, up to a constant in each row
        out[part] = np.argpartition(gaps, count - 1, axis=1)[:, :count]
    return out


def nearest(
    vectors: NDArray[np.float32], bank: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The distance of each vector to the nearest of a bank, and which that is.

    d² = |a - b|² + C `NOISE`, Euclidean but for a constant that changes no order.

    Parameters
    ----------
    vectors : ndarray of float32, shape (N, C)
    bank : ndarray of float32, shape (K, C)

    Returns
    -------
    (ndarray of float32, ndarray of int), shape (N,) each
    """
    squares = np.einsum("kc,kc->k", bank, bank) / 2
    distances = np.empty(len(vectors), np.float32)
    indices = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        indices[part] = (vectors[part] @ bank.T - squares).argmax(axis=1)
        # |a|² - 2ab + |b|² loses its digits where a is near b, so the winner's is computed again.
        difference = vectors[part] - bank[indices[part]]
        squared = np.einsum("nc,nc->n", difference, difference)
        distances[part] = np.sqrt(squared + NOISE * bank.shape[1])
    return distances, indices
