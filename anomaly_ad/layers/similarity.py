"""Structural similarity of two pictures, as a map."""

from __future__ import annotations

import keras
from keras import ops

from .maps import along_axes, mirrored_mean_matrix

CELL = 2  # pixels; the side of the cells that pictures are compared in
_WINDOW = 3  # cells


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
    # small numbers; the textbook form loses four digits in float32 where a picture is bright. For
    # the same reason pictures are centred: variances do not change with it.
    first, second = first - 0.5, second - 0.5
    difference = first - second
    mean1, offset, squares, square = _window_means(
        first, difference, first * first + second * second, difference * difference
    )
    mean2 = mean1 - offset
    variances = squares - mean1 * mean1 - mean2 * mean2
    variance = square - offset * offset
    luminance_loss = offset * offset / ((mean1 + 0.5) ** 2 + (mean2 + 0.5) ** 2 + 0.01**2)
    structure_loss = variance / (variances + 0.03**2)
    both = luminance_loss + structure_loss - luminance_loss * structure_loss
    return ops.transpose(both / 2, (0, 2, 3, 1))


def cell_mean(pictures: keras.KerasTensor) -> keras.KerasTensor:
    """Means over cells of 2 x 2 pixels: shape (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""
    return ops.average_pool(pictures, CELL, CELL, padding="same")


def _window_means(*pictures: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Means over windows of cells, of pictures (B, H, W, C) each: (B, C, h, w)."""
    # A matrix for each axis and all pictures at once: the gradient of a depthwise convolution is
    # slow in TensorFlow on a CPU, of a pooling layer with so large a window slower still.
    cells = cell_mean(ops.concatenate(pictures, axis=-1))
    cells = ops.transpose(cells, (0, 3, 1, 2))
    means = along_axes(ops, cells, *(mirrored_mean_matrix(n, _WINDOW) for n in cells.shape[2:]))
    return ops.split(means, len(pictures), axis=1)
