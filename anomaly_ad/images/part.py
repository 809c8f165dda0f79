"""Where the part lies in a photograph with an even background."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .formats import Image

SIDE = 256  # longer side at which the part is looked for

_EVEN = 0.75  # of the limit: how far nearly all of an even border lies below it
_ABOVE, _DIM = 1.5, 8.0  # what differs more than so much of the border, and so many gray levels
_BEYOND = (0.5, 0.04)  # by which a measure may leave the range of good parts: of the range, of it
_LEAST, _MOST = 0.03, 0.9  # share of the image that a part covers


def find_part(image: Image) -> NDArray[np.bool_] | None:
    """Find the part in a photograph with an even background.

    The background is a plane through the image's border, channel by channel, so its light may
    slope. What differs from it, blurred, is told apart by Otsu's threshold; the part is the largest
    connected region, its holes left out.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    ndarray of bool, shape (H, W), or None
        None where there is no telling: the border is not even, or the part would cover less than
        3 % or more than 90 % of the image.
    """
    part = find_small_part(shrunk(image))
    if part is None:
        return None
    # Enlarged smoothly, so that its outline has no steps.
    size = (image.shape[1], image.shape[0])
    enlarged = cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged > 0.5)


def shrunk(image: Any) -> Any:
    """A photograph of `SIDE` pixels at most, averaged; any depth, (H, W) or (H, W, 3)."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def find_small_part(small: Image, *, whole: bool = False) -> NDArray[np.bool_] | None:
    """As `find_part`, in an image that is `shrunk` already.

    `whole` takes what differs more than the border does, which includes what is dim of the part,
    and its shadow; otherwise the outline is that of what clearly differs.
    """
    height, width = small.shape[:2]
    rim = max(1, min(height, width) // 40)
    inner = np.ones((height, width), bool)
    inner[rim:-rim, rim:-rim] = False
    red, green, blue = cv2.split(cv2.absdiff(small, _background(small, inner)))
    apart = np.asarray(cv2.max(cv2.max(red, green), blue))
    apart = np.asarray(cv2.GaussianBlur(apart, (0, 0), max(height, width) / 200))
    limit, found = cv2.threshold(apart, 0, 1, cv2.THRESH_OTSU)
    if (apart[inner] > limit).mean() > 0.05 or np.percentile(apart[inner], 90) > _EVEN * limit:
        return None
    if whole:
        limit = min(limit, max(_ABOVE * float(np.percentile(apart[inner], 98)), _DIM))
        found = (apart > limit).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found)
    if len(stats) < 2:
        return None
    part: NDArray[np.bool_] = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return part if _LEAST <= part.mean() <= _MOST else None


def _background(small: Image, inner: NDArray[np.bool_]) -> Image:
    """A background whose light slopes evenly, by the border: uint8 as `small`."""
    height, width = small.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    rows, columns = np.nonzero(inner)
    places = np.stack([np.ones_like(rows, np.float32), y[rows], x[columns]], axis=1)
    found = np.linalg.solve(places.T @ places, places.T @ small[inner].astype(np.float32))
    middle, down, across = found.astype(np.float32)
    channels = [
        np.add.outer(m + y * d, x * a).clip(0, 255).astype(np.uint8)
        for m, d, a in zip(middle, down, across, strict=True)
    ]
    return np.asarray(cv2.merge(channels))


def bounds(values: NDArray[np.float64]) -> tuple[float, float]:
    """What good parts may measure: the range of those at hand, and somewhat more."""
    low, high = float(values.min()), float(values.max())
    more = _BEYOND[0] * (high - low) + _BEYOND[1] * high
    return max(low - more, 0.0), high + more


def around_part(small: Image, margin: float) -> NDArray[np.bool_] | None:
    """The convex hull of the part, and a margin around it.

    Parameters
    ----------
    small : ndarray of uint8, shape (h, w, 3)
        From `shrunk`.
    margin : float
        Share of the image's longer side.

    Returns
    -------
    ndarray of bool, shape (h, w), or None
        None where there is no part.
    """
    part = find_small_part(small, whole=True)
    if part is None:
        return None
    outlines, _ = cv2.findContours(
        part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = cv2.convexHull(np.concatenate(outlines))
    out = np.zeros(part.shape, np.uint8)
    cv2.fillConvexPoly(out, hull, 1)
    reach = round(margin * max(part.shape))
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(out, shape) > 0)
