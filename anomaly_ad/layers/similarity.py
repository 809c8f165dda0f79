"""Structural similarity of two pictures, as a map."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

CELL = 2  # pixels; the side of the cells that pictures are compared in
_WINDOW = 5  # cells


def structural_dissimilarity(
    first: keras.KerasTensor, second: keras.KerasTensor
) -> keras.KerasTensor:
    """How far two pictures differ in local brightness, contrast and structure: (1 - SSIM) / 2.

    SSIM is equation 13 of the paper, with its constants K1 = 0.01 and K2 = 0.03. Deviations: the
    window is uniform (10 x 10 pixels) instead of Gaussian, pictures are mirrored at the border,
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
    mean1, mean2 = _window_mean(first), _window_mean(second)
    difference, offset = first - second, mean1 - mean2
    variances = _window_mean(first * first + second * second) - mean1 * mean1 - mean2 * mean2
    variance = _window_mean(difference * difference) - offset * offset
    luminance_loss = offset * offset / ((mean1 + 0.5) ** 2 + (mean2 + 0.5) ** 2 + 0.01**2)
    structure_loss = variance / (variances + 0.03**2)
    return (luminance_loss + structure_loss - luminance_loss * structure_loss) / 2


def cell_mean(pictures: keras.KerasTensor) -> keras.KerasTensor:
    """Means over cells of 2 x 2 pixels: shape (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""
    return ops.average_pool(pictures, CELL, CELL, padding="same")


def _window_mean(pictures: keras.KerasTensor) -> keras.KerasTensor:
    # Two one-dimensional depthwise convolutions: on a CPU 15 times as fast, gradient included,
    # as a pooling layer with so large a window.
    channels = pictures.shape[-1]
    half = _WINDOW // 2
    kernel = np.full((_WINDOW, 1, channels, 1), 1 / _WINDOW, np.float32)
    out = ops.pad(cell_mean(pictures), ((0, 0), (half, half), (half, half), (0, 0)), mode="reflect")
    out = ops.depthwise_conv(out, kernel, padding="valid")
    return ops.depthwise_conv(out, kernel.transpose(1, 0, 2, 3), padding="valid")
