"""A bounded, uniform sample of all vectors that come in, however they come."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError


class VectorPool:
    """Vectors drawn from all that come in, with bounded memory.

    Every vector gets a random-looking number made from its own bytes, and those with the smallest
    numbers are kept. So the sample is uniform, memory is bounded however many images come, and
    neither their order nor the parts they come in matter: pools can be merged, and a part be taken
    out again. While there is room, all are kept.

    Parameters
    ----------
    channels : int
        C, length of a vector.
    pool : int
        How many different vectors are kept at most.
    seed : int
        Chooses the sample.
    """

    def __init__(self, channels: int, pool: int, seed: int) -> None:
        self.channels, self.pool, self.seed = channels, pool, seed
        self._clear()

    def _clear(self) -> None:
        self.count = 0  # views of images
        self.keys = np.empty(0, np.uint64)
        self.times = np.empty(0, np.int64)  # how often a vector came: a black background is one
        self.vectors = np.empty((0, self.channels), np.float32)

    def update(
        self, features: NDArray[np.floating], shares: NDArray[np.float32] | None = None
    ) -> Self:
        """Add a batch.

        Parameters
        ----------
        features : ndarray of float, shape (B, P, C)
            Not changed.
        shares : ndarray of float32, shape (B, P), optional
            How much of each position counts; those of which nothing does are left out.
        """
        counted = features if shares is None else features[shares > 0]
        vectors = np.ascontiguousarray(counted, np.float32).reshape(-1, self.channels)
        return self._add(len(features), np.ones(len(vectors), np.int64), vectors)

    def merge(self, other: Self) -> Self:
        """Add what another has seen; `other` is not changed."""
        return self._add(other.count, other.times, other.vectors)

    def _add(self, count: int, times: NDArray[np.int64], vectors: NDArray[np.float32]) -> Self:
        keys, first, place = np.unique(
            np.concatenate([self.keys, _keys(vectors, self.seed)]),
            return_index=True,
            return_inverse=True,
        )
        together = np.bincount(place, np.concatenate([self.times, times])).astype(np.int64)
        # A key that is cut off here never comes back: only smaller ones are kept from now on.
        self.vectors = np.concatenate([self.vectors, vectors])[first[: self.pool]]
        self.keys, self.times = keys[: self.pool], together[: self.pool]
        self.count += count
        return self

    def without(self, other: Self) -> Self:
        """What is left when that which another has seen, a part of it, is taken out.

        Neither is changed.
        """
        times = self.times.copy()
        _, mine, others = np.intersect1d(
            self.keys, other.keys, assume_unique=True, return_indices=True
        )
        times[mine] -= other.times[others]
        kept = times > 0
        out = copy.copy(self)
        out._clear()
        out.count = self.count - other.count
        out.keys, out.times, out.vectors = self.keys[kept], times[kept], self.vectors[kept]
        return out

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored."""
        count = np.array(self.count, np.int64)
        return {"count": count, "vectors": self.vectors, "times": self.times}

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of what is stored; None stands for the number of vectors."""
        return {"count": (), "vectors": (None, self.channels), "times": (None,)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take over what `arrays` gave.

        Raises
        ------
        ModelError
            The arrays are not those of such a pool.
        """
        vectors, times = arrays["vectors"], arrays["times"]
        if (
            vectors.shape[1:] != (self.channels,)
            or vectors.dtype != np.float32
            or times.shape != (len(vectors),)
            or not 2 <= len(vectors) <= self.pool
            or times.min() < 1
        ):
            raise ModelError(
                f"The vectors do not belong to this model: {vectors.shape} of {vectors.dtype}, "
                f"counts {times.shape}; at most {self.pool} of {self.channels} numbers "
                "were expected. Restore the model directory from a copy."
            )
        return self._add(int(arrays["count"]), times, vectors)


def _keys(vectors: NDArray[np.float32], seed: int) -> NDArray[np.uint64]:
    """A random-looking number for each vector, made from its bytes."""
    factors = np.random.default_rng(seed).integers(0, 2**64, vectors.shape[1], np.uint64)
    keys = np.zeros(len(vectors), np.uint64)
    for bits, factor in zip(vectors.view(np.uint32).T, factors | np.uint64(1), strict=True):
        keys += bits.astype(np.uint64) * factor  # wraps around
    # The last steps of MurmurHash3 spread every bit of the sum over the whole number.
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        keys = (keys ^ (keys >> np.uint64(33))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(33))
