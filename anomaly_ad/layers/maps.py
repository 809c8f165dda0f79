"""Linear operations on maps: a blur or an enlargement is one small matrix per axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def gaussian_matrix(size: int, sigma: float, cell: int = 1) -> NDArray[np.float32]:
    """The matrix that blurs a line of cells with a Gaussian and gives a value for each pixel.

    Row i holds the weights of pixel i. Each row sums to one, so near a border the weights are
    those of the values that exist; nothing is assumed about what lies outside.

    Parameters
    ----------
    size : int
        Length of the line in pixels.
    sigma : float
        Standard deviation in pixels, > 0; not much smaller than a cell.
    cell : int
        Length of a cell in pixels.

    Returns
    -------
    ndarray of float32, shape (size, ceil(size / cell))
    """
    centres = (np.arange(-(-size // cell)) + 0.5) * cell - 0.5
    distance = np.subtract.outer(np.arange(size), centres)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def along_axes(xp: Any, maps: Any, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Any:
    """Apply one matrix to the rows and one to the columns of maps: ``V A Uᵀ``.

    A separable filter of any width costs two small matrix products, where a convolution with a
    wide kernel over the full image would take many times as long.

    Parameters
    ----------
    xp : module
        `keras.ops` or `numpy`.
    maps : tensor or ndarray of float32, shape (..., H, W)
    rows : ndarray of float32, shape (H_out, H)
    columns : ndarray of float32, shape (W_out, W)

    Returns
    -------
    of the same kind, shape (..., H_out, W_out)
    """
    return xp.matmul(xp.matmul(rows, maps), columns.T)


def upsampling_matrix(size: int, cells: int) -> NDArray[np.float32]:
    """The matrix that enlarges a line of `cells` values to `size` pixels, bilinearly.

    Each cell's value stands at its middle, and beyond the outermost middles it stays as it is.

    Returns
    -------
    ndarray of float32, shape (size, cells)
    """
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(np.subtract.outer(place, np.arange(cells))), 0).astype(np.float32)


def share_matrix(size: int, cells: int) -> NDArray[np.float32]:
    """The matrix that averages a line of `size` pixels over `cells` equal parts, by length.

    Returns
    -------
    ndarray of float32, shape (cells, size)
        Each row sums to one.
    """
    edges = np.arange(cells + 1) * size / cells
    left, right = np.arange(size), np.arange(size) + 1
    overlap = np.minimum.outer(edges[1:], right) - np.maximum.outer(edges[:-1], left)
    return (np.maximum(overlap, 0) * cells / size).astype(np.float32)


def coarse_grid(grid: tuple[int, int], parts: tuple[int, int]) -> NDArray[np.float32]:
    """The matrix that averages the cells of a grid over the parts of a coarse one, by area.

    Parameters
    ----------
    grid : (int, int)
        Cells along height and width; the P cells are counted row by row.
    parts : (int, int)
        Parts along height and width; not more than there are cells.

    Returns
    -------
    ndarray of float32, shape (Q, P)
        Each row sums to one.
    """
    axes = zip(grid, parts, strict=True)
    return np.kron(*(share_matrix(cells, min(count, cells)) for cells, count in axes))
