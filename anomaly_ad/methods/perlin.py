"""Perlin noise: irregular patches of all sizes, as masks for what is made up in training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def perlin_noise(
    size: tuple[int, int], waves: tuple[int, int], random: np.random.Generator
) -> NDArray[np.float32]:
    """Gradient noise with so many cells along height and width.

    Parameters
    ----------
    size : (int, int)
        (height, width).
    waves : (int, int)
        Cells along each, from 1 on.
    random : Generator
        Where the gradients come from.

    Returns
    -------
    ndarray of float32, shape `size`
        About -1 to 1.

    References
    ----------
    Perlin 2002, Improving Noise, ACM Transactions on Graphics 21(3): the fade curve
    6 t^5 - 15 t^4 + 10 t^3. Deviation: gradients are unit vectors in any direction.
    """
    angles = random.uniform(0, 2 * np.pi, (waves[0] + 1, waves[1] + 1))
    gradients = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    axes = [(np.arange(n) + 0.5) * count / n for n, count in zip(size, waves, strict=True)]
    corners = [np.minimum(axis.astype(int), n - 1) for axis, n in zip(axes, waves, strict=True)]
    y, x = (axis - corner for axis, corner in zip(axes, corners, strict=True))
    rows, columns = np.meshgrid(*corners, indexing="ij")
    away = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)

    def product(down: int, right: int) -> NDArray[np.float64]:
        found = gradients[rows + down, columns + right] * (away - (down, right))
        return np.asarray(found.sum(axis=-1))

    fade_y, fade_x = (t**3 * (t * (6 * t - 15) + 10) for t in (y[:, None], x[None]))
    top = product(0, 0) * (1 - fade_x) + product(0, 1) * fade_x
    bottom = product(1, 0) * (1 - fade_x) + product(1, 1) * fade_x
    return (np.sqrt(2) * (top * (1 - fade_y) + bottom * fade_y)).astype(np.float32)


def perlin_mask(
    size: tuple[int, int], random: np.random.Generator, *, finest: int = 32, threshold: float = 0.5
) -> NDArray[np.bool_]:
    """Where the noise exceeds a threshold, with 2^0, 2^1, ... `finest` cells along each axis.

    Where it nowhere does, another is drawn, and at last the highest place is taken, so that no mask
    is empty.

    Returns
    -------
    ndarray of bool, shape `size`
    """
    powers = [int(np.log2(max(min(finest, n // 2), 1))) for n in size]
    noise = np.zeros(size, np.float32)
    for _ in range(3):
        waves = 2 ** int(random.integers(powers[0] + 1)), 2 ** int(random.integers(powers[1] + 1))
        noise = perlin_noise(size, waves, random)
        if (noise > threshold).any():
            return noise > threshold
    return noise >= noise.max()
