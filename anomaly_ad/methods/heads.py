"""What all methods end with: odd cells become a map, and the map a score.

Each function is written once for both libraries that work with it: `xp` is `keras.ops` in a graph,
and `numpy` where statistics are scored that are never saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from ..layers.maps import (
    along_axes,
    coarse_grid,
    gaussian_matrix,
    share_matrix,
    upsampling_matrix,
)

_LITTLE = 1e-6  # of a cell that counts
_DRAWN = 0.25  # weight of the mean of all that counts in the mean of a part


def model_input(framing: Framing) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    """The inputs of a graph: "images" and, where the framing has one, "inside"; else None."""
    images = keras.Input(framing.shape, dtype="uint8", name="images")
    if not framing.has_inside:
        return images, None
    return images, keras.Input(framing.size, dtype="uint8", name="inside")


def joined(images: keras.KerasTensor, inside: keras.KerasTensor | None) -> Any:
    """Both as `keras.Model` takes its inputs: the one alone, or a list of two."""
    return images if inside is None else [images, inside]


def masked(xp: Any, anomaly_map: Any, inside: Any | None) -> Any:
    """A map (B, H, W) that is zero where the image does not count."""
    return anomaly_map if inside is None else xp.where(inside > 0, anomaly_map, np.float32(0))


def shares_of(xp: Any, inside: Any, size: tuple[int, int], grid: tuple[int, int]) -> Any:
    """How much of each cell of a grid counts: `inside` (B, *size) -> (B, *grid) in [0, 1]."""
    counted = inside * np.float32(1)
    if size == grid:
        return counted
    return along_axes(xp, counted, *(share_matrix(*axis) for axis in zip(size, grid, strict=True)))


class MapHead:
    """Cells of a grid -> the anomaly map: enlarged to the model's input, bilinearly, and blurred.

    Where a part of the image does not count, a pixel is the mean of the cells around it, weighted
    by how much of each counts; outside the map is zero.

    Parameters
    ----------
    size : (int, int)
        (height, width) of the map in pixels.
    grid : (int, int)
        Cells along height and width.
    blur : float
        Standard deviation of the blur in pixels; 0 for none.
    """

    def __init__(self, size: tuple[int, int], grid: tuple[int, int], blur: float) -> None:
        self.size, self.grid = size, grid
        self._enlarge = [_enlargement(*axis, blur) for axis in zip(size, grid, strict=True)]

    def shares(self, xp: Any, inside: Any | None) -> Any | None:
        """How much of each cell counts: `inside` (B, H, W) -> (B, P) in [0, 1]; None for all."""
        if inside is None:
            return None
        return xp.reshape(shares_of(xp, inside, self.size, self.grid), (-1, math.prod(self.grid)))

    def __call__(self, xp: Any, cells: Any, inside: Any | None = None) -> Any:
        """Cells (B, P) and `inside` (B, H, W) -> the map (B, H, W)."""
        cells = xp.reshape(cells, (-1, *self.grid))
        if inside is None:
            return along_axes(xp, cells, *self._enlarge)
        shares = shares_of(xp, inside, self.size, self.grid)
        total = along_axes(xp, shares, *self._enlarge)
        weighted = along_axes(xp, cells * shares, *self._enlarge)
        return masked(xp, weighted / xp.maximum(total, np.float32(_LITTLE)), inside)


def highest(xp: Any, anomaly_map: Any) -> Any:
    """The score of a method whose score is the map's largest value: (B, H, W) -> (B,)."""
    return xp.max(anomaly_map, axis=(1, 2))


def top_mean(xp: Any, cells: Any, share: float) -> Any:
    """The mean of the highest cells, a share of all but one at least: (B, P) -> (B,)."""
    count = max(1, round(share * cells.shape[1]))
    return xp.mean(xp.sort(cells, axis=1)[:, -count:], axis=1)


def counting(xp: Any, cells: Any, shares: Any | None) -> Any:
    """Cells (B, P) without those of which nothing counts: they are zero."""
    return cells if shares is None else cells * xp.sign(shares)


def mean_of(xp: Any, weights: NDArray[np.float32], vectors: Any, shares: Any | None) -> Any:
    """Weighted means of the cells' vectors (B, P, C), by how much of each cell counts.

    Where little or nothing counts it is drawn towards the mean of all that does.

    Parameters
    ----------
    weights : ndarray of float32, shape (Q, P)
        Rows that sum to one.

    Returns
    -------
    shape (B, Q, C)
    """
    if shares is None:
        return xp.matmul(weights, vectors)
    counted, shares = vectors * shares[..., None], shares[..., None]
    total = xp.maximum(xp.mean(shares, axis=1, keepdims=True), np.float32(_LITTLE))
    everywhere = xp.mean(counted, axis=1, keepdims=True) / total
    means = xp.matmul(weights, counted) + everywhere * np.float32(_DRAWN)
    return means / (xp.matmul(weights, shares) + np.float32(_DRAWN))


def image_vector(
    maps: Sequence[keras.KerasTensor],
    framing: Framing,
    inside: keras.KerasTensor | None,
    parts: tuple[int, int] = (1, 1),
) -> keras.KerasTensor:
    """An image as one vector: the means of feature maps over parts of it, one after the other.

    Parameters
    ----------
    maps : sequence of tensor of float32, shape (B, h, w, C)
    framing : Framing
        Of the images.
    inside : tensor of uint8, shape (B, height, width), or None
        What counts of the images.
    parts : (int, int)
        Along height and width; not more than a map has cells.
    """
    vectors = []
    for features in maps:
        height, width, channels = features.shape[1:]
        shares = MapHead(framing.size, (height, width), 0).shares(ops, inside)
        cells = ops.reshape(features, (-1, height * width, channels))
        weights = coarse_grid((height, width), parts)
        means = mean_of(ops, weights, cells, shares)
        vectors.append(ops.reshape(means, (-1, len(weights) * channels)))
    return vectors[0] if len(vectors) == 1 else ops.concatenate(vectors, axis=-1)


def _enlargement(size: int, cells: int, blur: float) -> NDArray[np.float32]:
    """For one axis: grid -> pixels, bilinearly and then blurred."""
    matrix = upsampling_matrix(size, cells)
    return gaussian_matrix(size, blur) @ matrix if blur else matrix
