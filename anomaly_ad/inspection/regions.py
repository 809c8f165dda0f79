"""Regions: an anomaly map -> boxes around what deviates.

The map is divided into a grid of square patches; a patch whose largest value exceeds the limit is
a cell that deviates, and its square is a box. The grid begins at the upper left corner, and patches
at the right and lower border are cut off by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def deviating_cells(
    anomaly_map: NDArray[np.floating], patch_size: int, limit: float
) -> NDArray[np.int32]:
    """Boxes of the patches in which the map exceeds the limit.

    Parameters
    ----------
    anomaly_map : ndarray of float, shape (H, W)
        Higher = more anomalous.
    patch_size : int
        Side of a patch in pixels of the map.
    limit : float
        In the map's unit; compared by ``>``.

    Returns
    -------
    ndarray of int32, shape (N, 4)
        xyxy in pixels of the map, x2 and y2 exclusive, row by row; (0, 4) when there are none.
    """
    rows, columns = np.nonzero(_cell_maxima(anomaly_map, patch_size) > limit)
    return _cell_boxes(rows, columns, patch_size, anomaly_map.shape)


def peak_cell(anomaly_map: NDArray[np.floating], patch_size: int) -> NDArray[np.int32]:
    """The box of the patch with the map's largest value: int32 (1, 4), as `deviating_cells`."""
    cells = _cell_maxima(anomaly_map, patch_size)
    row, column = np.unravel_index(np.argmax(cells), cells.shape)
    return _cell_boxes(np.array([row]), np.array([column]), patch_size, anomaly_map.shape)


def _cell_maxima(anomaly_map: NDArray[np.floating], patch_size: int) -> NDArray[np.floating]:
    height, width = anomaly_map.shape
    starts = (np.arange(0, height, patch_size), np.arange(0, width, patch_size))
    by_rows = np.maximum.reduceat(anomaly_map, starts[0], axis=0)
    return np.maximum.reduceat(by_rows, starts[1], axis=1)


def _cell_boxes(
    rows: NDArray[np.intp], columns: NDArray[np.intp], patch_size: int, shape: tuple[int, ...]
) -> NDArray[np.int32]:
    x1, y1 = columns * patch_size, rows * patch_size
    x2 = np.minimum(x1 + patch_size, shape[1])
    y2 = np.minimum(y1 + patch_size, shape[0])
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.int32)
