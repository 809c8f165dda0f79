"""Structural similarity of two pictures, as a map."""

from __future__ import annotations

import keras
from keras import ops

CELL = 2  # pixels; the side of the cells that pictures are compared in


def structural_dissimilarity(
    first: keras.KerasTensor, second: keras.KerasTensor
) -> keras.KerasTensor:
    """How far two pictures differ in local brightness, contrast and structure: (1 - SSIM) / 2.

    SSIM is equation 13 of the paper, with its constants K1 = 0.01 and K2 = 0.03. Deviations: the
    window is uniform (6 x 6 pixels) instead of Gaussian, pictures are mirrored at the border,
    and there is one value for each cell of 2 x 2 pixels: windows of neighbouring pixels share most
    of their content, and a mean over cells costs a quarter of one over pixels.

    Parameters
    ----------
    first, second : tensor of float32, shape (B, H, W, C), range [0, 1]
        At least 3 pixels a side.

    Returns
    -------
    tensor of float32, shape (B, ceil(H / 2), ceil(W / 2), C), range [0, 1]
        0 where they are alike.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli 2004, Image Quality Assessment: From Error Visibility to
    Structural Similarity, IEEE TIP 13(4).
    """
    # With d = first - second, SSIM = (1 - mean(d)^2 / ...) (1 - var(d) / ...), since
    # var(d) = var(first) + var(second) - 2 cov. Written this way what is small is computed from
    # small numbers; the textbook form loses four digits in float32 where a picture is bright.
    pictures = ops.concatenate([first, second, first - second], axis=-1)
    means, variances = _window_moments(pictures)
    mean1, mean2, offset = ops.split(means, 3, axis=-1)
    variance1, variance2, variance = ops.split(variances, 3, axis=-1)
    luminance_loss = offset * offset / (mean1 * mean1 + mean2 * mean2 + 0.01**2)
    structure_loss = variance / (variance1 + variance2 + 0.03**2)
    return (luminance_loss + structure_loss - luminance_loss * structure_loss) / 2


def cell_mean(pictures: keras.KerasTensor) -> keras.KerasTensor:
    """Means over cells of 2 x 2 pixels: shape (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""
    return ops.average_pool(pictures, CELL, CELL, padding="same")


def _window_moments(x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Mean and variance over windows of 3 x 3 cells: (B, H, W, C) -> (B, h, w, C) each.

    A variance is the mean of those of the parts plus that of their means: of the pixels of a cell,
    of the cells along one axis, of these along the other. It is made of differences of neighbours
    alone, while a mean of squares less a squared mean has no digits left where a picture is flat.
    """
    height, width = x.shape[1:3]
    mean = cell_mean(x)
    around = ops.repeat(ops.repeat(mean, CELL, axis=1), CELL, axis=2)[:, :height, :width]
    variance = cell_mean(ops.square(x - around))
    for axis in (1, 2):
        a, b, c = _neighbours(mean, axis)
        among = (ops.square(a - b) + ops.square(b - c) + ops.square(c - a)) / 9
        variance = sum(_neighbours(variance, axis)) / 3 + among
        mean = (a + b + c) / 3
    return mean, variance


def _neighbours(x: keras.KerasTensor, axis: int) -> tuple[keras.KerasTensor, ...]:
    """The one before, itself, the one behind; mirrored at the ends."""
    widths = [(0, 0)] * 4
    widths[axis] = (1, 1)
    padded, count = ops.pad(x, widths, mode="reflect"), x.shape[axis]
    before, _ = ops.split(padded, [count], axis=axis)
    _, behind = ops.split(padded, [2], axis=axis)
    return before, x, behind
