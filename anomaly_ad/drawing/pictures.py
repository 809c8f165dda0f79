"""Stage 7, drawing: results as pictures. Arrays in, new arrays out; RGB uint8 (H, W, 3)."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images import Framing, Image
from ..model import LIMIT_SCORE

BOX_COLOUR = (255, 0, 0)  # RGB
_CALM = 0.6  # calibrated map value up to which nothing is coloured
_STRIP = 128  # rows that are blended at a time
_STRONGEST = 0.5  # opacity of the heatmap where the map is at its height


def heatmap(image: Image, anomaly_map: NDArray[np.float32], framing: Framing) -> Image:
    """Colour what deviates.

    The colours are fixed to the calibrated scale, never to the image at hand: values up to 0.6 are
    left as they are, the decision limit (0.8) is yellow, beyond it the colour turns to deep red. So
    a good part looks like itself.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed.
    anomaly_map : ndarray of float32, shape (h, w)
        Calibrated, at the model's scale.
    framing : Framing
        How the image was brought to the model's scale.
    """
    # Colours are made at the model's scale and enlarged as bytes: a float map of the size of a
    # large photograph would cost more than everything else.
    overlay = framing.map_to_original(colours(anomaly_map), image.shape[:2])
    out = image.copy()
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(overlay[..., 3]))
    # In strips, which stay in the processor's cache however large the photograph is.
    for top in range(y, y + height, _STRIP):
        place = (slice(top, min(top + _STRIP, y + height)), slice(x, x + width))
        above = cv2.cvtColor(overlay[place], cv2.COLOR_RGBA2RGB)
        opacity = overlay[place][..., 3] * np.float32(1 / 255)
        out[place] = cv2.blendLinear(image[place], above, 1 - opacity, opacity)
    return out


def colours(anomaly_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The colours of a heatmap: yellow, orange, red, with growing opacity.

    Parameters
    ----------
    anomaly_map : ndarray of float32, shape (h, w)
        Calibrated.

    Returns
    -------
    ndarray of uint8, shape (h, w, 4)
        RGBA, not premultiplied; the opacity ends at a half.
    """
    steps = _colour_table()
    return steps[np.rint(anomaly_map * (len(steps) - 1)).astype(np.intp)]


@cache
def _colour_table() -> NDArray[np.uint8]:
    """Colours of evenly spaced map values from 0 to 1, RGBA."""
    values = np.linspace(0, 1, 1025)
    heat = np.clip((values - LIMIT_SCORE) / (0.97 - LIMIT_SCORE), 0, 1)
    rise = np.clip((values - _CALM) / (LIMIT_SCORE - _CALM), 0, 1)
    opacity = _STRONGEST * (0.5 * rise + 0.5 * heat)
    red = 1 - 0.25 * np.clip(2 * heat - 1, 0, 1)
    green = 0.9 * (1 - np.clip(1.3 * heat, 0, 1))
    blue = np.zeros_like(heat)
    return np.round(np.stack([red, green, blue, opacity], axis=-1) * 255).astype(np.uint8)


def draw_boxes(image: Image, boxes: NDArray[np.int32]) -> Image:
    """Draw frames around boxes.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed.
    boxes : ndarray of int32, shape (N, 4)
        xyxy in pixels of the image, x2 and y2 exclusive.
    """
    out = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 200))
    for x1, y1, x2, y2 in boxes.tolist():
        cv2.rectangle(out, (x1, y1), (x2 - 1, y2 - 1), BOX_COLOUR, thickness)
    return out


def frame(image: Image) -> Image:
    """Draw a frame around the whole image, for a verdict that has no place in it.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed.
    """
    out = image.copy()
    width = max(2, round(min(image.shape[:2]) / 50))
    for border in (out[:width], out[-width:], out[:, :width], out[:, -width:]):
        border[:] = BOX_COLOUR
    return out


def side_by_side(left: Image, right: Image) -> Image:
    """Two pictures of the same height side by side, with a narrow white gap."""
    gap = np.full((left.shape[0], max(2, left.shape[1] // 50), 3), 255, np.uint8)
    return np.hstack([left, gap, right])


def to_rgb(picture: NDArray[np.floating]) -> Image:
    """A model's picture, float32 (H, W, 1 or 3) in 0..255, as RGB uint8 (H, W, 3)."""
    rounded = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return np.repeat(rounded, 3, axis=2) if rounded.shape[2] == 1 else rounded
