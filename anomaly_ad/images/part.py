"""Where the part lies in a photograph with an even background."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .formats import Image

SIDE = 256  # longer side at which the part is looked for

_LEAST, _MOST = 0.03, 0.9  # share of the image that a part covers


def find_part(image: Image) -> NDArray[np.bool_] | None:
    """Find the part in a photograph with an even background.

    The background is the median of the image's border. What differs from it, blurred, is told
    apart by Otsu's threshold; the part is the largest connected region, its holes left out.

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


def find_small_part(small: Image) -> NDArray[np.bool_] | None:
    """As `find_part`, in an image that is `shrunk` already."""
    height, width = small.shape[:2]
    rim = max(1, min(height, width) // 40)
    inner = np.ones((height, width), bool)
    inner[rim:-rim, rim:-rim] = False
    background = np.median(small[inner], axis=0)
    ground = np.broadcast_to(background.astype(np.uint8), small.shape)
    red, green, blue = cv2.split(cv2.absdiff(small, ground))
    apart = np.asarray(cv2.max(cv2.max(red, green), blue))
    apart = np.asarray(cv2.GaussianBlur(apart, (0, 0), max(height, width) / 200))
    limit, found = cv2.threshold(apart, 0, 1, cv2.THRESH_OTSU)
    if (apart[inner] > limit).mean() > 0.05 or np.percentile(apart[inner], 90) > limit / 2:
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found)
    if len(stats) < 2:
        return None
    part: NDArray[np.bool_] = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return part if _LEAST <= part.mean() <= _MOST else None


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
    part = find_small_part(small)
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
