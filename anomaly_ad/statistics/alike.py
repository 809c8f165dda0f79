"""Pictures that are alike, and images that are unlike all others, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Two thumbnails of 16x16 show the same picture if their difference is at most this (root mean
# square, of gray values 0..255), and at most this share of the contrast (standard deviation).
# The nearest of different photographs in four real sets, by both: bottle 1.51 and 0.017,
# magnetic_tile 0.42 and 0.014 (one tile in one fixture), hazelnut 5.4 and 0.23, transistor 5.8 and
# 0.19. The largest of 254 copies: PNG 0; JPEG of quality 95 0.13 and 0.007, of 75 0.28 and 0.013,
# of 50 0.44 and 0.027. So no photograph is called a copy, and copies are found: 254 of 254 at
# quality 95, 245 at 75, 122 at 50.
_DIFFERENCE = 0.3
_OF_CONTRAST = 0.01
_UNIT = 256  # of a gray value in a thumbnail
_ROWS, _COLUMNS = 512, 4096  # of the matrix of distances that is in memory at a time
_NEIGHBOURS = 3
# Two thumbnails, each brought to a mean of 0 and a deviation of 1, may be of one part if their
# difference is less than this share of the distance to the tenth nearest: parts are rarely
# photographed more often. Of the good images of bottle 2 of 209 are that near (069 and 070), of
# hazelnut and transistor none of 50. Of magnetic_tile they are 178 of 380, and of these 83 % were
# taken within moments of their nearest (the number in the name), as one tile six times was.
NEAR = 0.3
NEAR_RANK = 10


def same_pictures(thumbnails: NDArray[np.uint16]) -> NDArray[np.intp]:
    """Which pictures are the same as an earlier one.

    Parameters
    ----------
    thumbnails : ndarray of uint16, shape (N, P)
        Gray values 0..255 in units of 1 / 256.

    Returns
    -------
    ndarray of int, shape (N,)
        For each picture a number of its group, the smallest index in it.
    """
    pixels = thumbnails.astype(np.float32) / _UNIT
    brightness = pixels.mean(axis=1)
    # Pictures that differ by little are of nearly the same brightness: only few are compared.
    order = np.argsort(brightness, kind="stable")
    pixels, brightness = pixels[order], brightness[order]
    allowed = np.minimum(_DIFFERENCE, _OF_CONTRAST * pixels.std(axis=1))
    group = np.arange(len(pixels))
    for top in range(0, len(pixels), _ROWS):
        rows = slice(top, top + _ROWS)
        end = int(np.searchsorted(brightness, brightness[rows].max() + _DIFFERENCE, "right"))
        for left in range(top, end, _COLUMNS):
            columns = slice(left, min(left + _COLUMNS, end))
            limit = np.minimum(allowed[rows, None], allowed[None, columns])
            # In float64: the products are large compared with the differences that are looked for.
            blocks = (pixels[part].astype(np.float64) for part in (rows, columns))
            near = _distances(*blocks) <= limit + 1e-6
            for row, column in np.argwhere(near):
                _join(group, top + row, left + column)
    roots = np.array([_root(group, index) for index in range(len(group))], np.intp)
    first = np.full(len(group), len(group))
    np.minimum.at(first, roots, order)
    labels = np.empty(len(group), np.intp)
    labels[order] = first[roots]
    return labels


def nearest(thumbnails: NDArray[np.uint16]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The picture that is nearest to each, whatever the brightness and the contrast.

    Parameters
    ----------
    thumbnails : ndarray of uint16, shape (N, P)
        Gray values in units of 1 / 256; N > `NEAR_RANK`.

    Returns
    -------
    ndarray of int, shape (N,)
        Its index.
    ndarray of float64, shape (N,)
        Its distance, as a share of that to number `NEAR_RANK` in order; 1 where that is 0.
    """
    pixels = thumbnails.astype(np.float32) / _UNIT
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.maximum(pixels.std(axis=1, keepdims=True), 1)
    index, distances = _neighbours(pixels, NEAR_RANK)
    share = np.ones(len(pixels))
    np.divide(distances[:, 0], distances[:, -1], out=share, where=distances[:, -1] > 1e-6)
    return index[:, 0], share


def _neighbours(vectors: NDArray[Any], count: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Indices and distances of the nearest others in order, each of shape (N, count)."""
    indices = np.empty((len(vectors), count), np.intp)
    distances = np.empty((len(vectors), count), vectors.dtype)
    for top in range(0, len(vectors), _ROWS):
        some = vectors[top : top + _ROWS]
        near = np.full((len(some), count), np.inf, vectors.dtype)
        which = np.zeros(near.shape, np.intp)
        for left in range(0, len(vectors), _COLUMNS):
            part = _distances(some, vectors[left : left + _COLUMNS])
            own = np.arange(len(near)) + top - left
            inside = (own >= 0) & (own < part.shape[1])
            part[np.flatnonzero(inside), own[inside]] = np.inf
            near = np.hstack([near, part])
            columns = np.broadcast_to(np.arange(left, left + part.shape[1]), part.shape)
            which = np.hstack([which, columns])
            kept = np.argpartition(near, count - 1, axis=1)[:, :count]
            near, which = (np.take_along_axis(both, kept, axis=1) for both in (near, which))
        order = np.argsort(near, axis=1)
        rows = slice(top, top + _ROWS)
        distances[rows] = np.take_along_axis(near, order, axis=1)
        indices[rows] = np.take_along_axis(which, order, axis=1)
    return indices, distances


def _distances(some: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Root mean square differences (A, P), (B, P) -> (A, B)."""
    # About the first, so that the products are small where the differences are.
    some, others = some - some[0], others - some[0]
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    return np.sqrt(np.maximum(squares, 0) / some.shape[1])


def _root(group: NDArray[np.intp], index: int) -> int:
    while group[index] != index:
        group[index] = group[group[index]]
        index = group[index]
    return index


def _join(group: NDArray[np.intp], one: int, other: int) -> None:
    first, second = sorted((_root(group, one), _root(group, other)))
    group[second] = first


def oddness(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much farther from the others each vector lies than is usual.

    The distance is the mean of those to the three nearest others, in features scaled to vary by one
    each, so that a few odd vectors among all hardly move what the others get.

    Parameters
    ----------
    features : ndarray of float32, shape (N, C)
        N > 3.

    Returns
    -------
    ndarray of float64, shape (N,)
        The logarithm of the distance, less its median, in robust standard deviations (1.4826 times
        the median absolute deviation). 0 where half of all distances are the same.
    """
    scale = features.std(axis=0)
    vectors = (features - features.mean(axis=0)) / np.where(scale > 1e-6, scale, 1)
    distances = _neighbours(vectors, _NEIGHBOURS)[1].mean(axis=1)
    logarithms = np.log(np.maximum(distances, 1e-6))
    above = logarithms - np.median(logarithms)
    spread = 1.4826 * np.median(np.abs(above))
    return above / spread if spread > 1e-9 else np.zeros(len(above))
