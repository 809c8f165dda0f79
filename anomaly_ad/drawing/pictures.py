"""Stage 7, drawing: results as pictures. Arrays in, new arrays out; RGB uint8 (H, W, 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images import Image, Taken
from ..model import LIMIT_SCORE, standing

BOX_COLOUR = (255, 0, 0)  # RGB
EDGE_COLOUR = (0, 200, 255)  # of the region that is inspected
_STRIP = 128  # rows that are blended at a time
# Of a heatmap: where colours end, in multiples of the threshold's distance from the median; the
# least such distance that they begin at; how far along the way which colour stands; opacities.
HEAT: dict[str, Any] = {
    "last": 4.0,
    "least": 0.05,
    "stops": (0.0, 0.15, 0.45, 1.0),
    "scale": ((255, 225, 0), (255, 140, 0), (230, 0, 0), (110, 0, 90)),
    "opacity": (0.4, 0.65),
}
_BAND, _LETTERS = 36, 0.9  # height of the words' band and scale of its letters, 1,000 pixels wide


def heatmap(
    image: Image,
    anomaly_map: NDArray[np.float32],
    marks: NDArray[np.bool_],
    taken: Taken,
    threshold: float = LIMIT_SCORE,
) -> Image:
    """Colour what deviates; all else looks as it is.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed.
    anomaly_map, marks, threshold
        See `colours`.
    taken : Taken
        The way back into the image.
    """
    # Colours are made at the model's scale and enlarged as bytes: a float map of the size of a
    # large photograph would cost more than everything else.
    overlay = overlaid(anomaly_map, marks, taken, threshold)
    out = image.copy()
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(overlay[..., 3]))
    # In strips, which stay in the processor's cache however large the photograph is.
    for top in range(y, y + height, _STRIP):
        place = (slice(top, min(top + _STRIP, y + height)), slice(x, x + width))
        above = cv2.cvtColor(overlay[place], cv2.COLOR_RGBA2RGB)
        opacity = overlay[place][..., 3] * np.float32(1 / 255)
        out[place] = cv2.blendLinear(image[place], above, 1 - opacity, opacity)
    return out


def overlaid(
    anomaly_map: NDArray[np.float32],
    marks: NDArray[np.bool_],
    taken: Taken,
    threshold: float = LIMIT_SCORE,
    size: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """The `colours` of a heatmap at the photograph's scale, or at another `size` (H, W)."""
    clear = (*_colour_table(float(threshold))[0, :3].tolist(), 0)
    found = colours(anomaly_map, marks, threshold)
    return taken.map_to_original(found, size, outside=clear)


def draw_edge(image: Image, contours: Sequence[NDArray[np.int32]]) -> Image:
    """Draw the outline of what is inspected.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed; itself where there are no outlines.
    contours : sequence of ndarray of int32, shape (K, 2)
        Corners, x and y in pixels of the image, from 0 to its width and height.
    """
    return _outlined(image, contours, EDGE_COLOUR) if contours else image


def colours(
    anomaly_map: NDArray[np.float32], marks: NDArray[np.bool_], threshold: float = LIMIT_SCORE
) -> NDArray[np.uint8]:
    """The colours of a heatmap: yellow, orange, red, purple, with growing opacity.

    They are fixed to the calibrated scale, never to the image at hand: yellow is the threshold,
    and the last colour is four times as far from the median of good images.

    Parameters
    ----------
    anomaly_map : ndarray of float32, shape (h, w)
        Calibrated, at the model's scale.
    marks : ndarray of bool, shape (h, w)
        Which pixels are coloured.
    threshold : float
        Score in [0, 1].

    Returns
    -------
    ndarray of uint8, shape (h, w, 4)
        RGBA, not premultiplied.
    """
    table = _colour_table(float(threshold))
    out = table[np.rint(anomaly_map * (len(table) - 1)).astype(np.intp)]
    # What is clear has the first colour, so that edges which are enlarged do not turn dark.
    out[~marks] = (*table[0, :3], 0)
    return out


@lru_cache(64)
def _colour_table(threshold: float = LIMIT_SCORE) -> NDArray[np.uint8]:
    """Colours of 1,025 evenly spaced map values from 0 to 1 for a threshold, RGBA."""
    t = standing(np.linspace(0, 1 - 1e-6, 1025))
    begin = max(float(standing(threshold)), HEAT["least"])
    rise = np.clip((t / begin - 1) / (HEAT["last"] - 1), 0, 1)
    red, green, blue = (
        np.interp(rise, HEAT["stops"], column) for column in np.array(HEAT["scale"]).T
    )
    opacity = 255 * np.interp(rise, (0, 1), HEAT["opacity"])
    table = np.round(np.stack([red, green, blue, opacity], axis=-1)).astype(np.uint8)
    table.setflags(write=False)
    return table


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
    thickness = _thickness(image)
    for x1, y1, x2, y2 in boxes.tolist():
        cv2.rectangle(out, (x1, y1), (x2 - 1, y2 - 1), BOX_COLOUR, thickness)
    return out


def draw_outlines(image: Image, contours: Iterable[NDArray[np.int32]]) -> Image:
    """Draw closed outlines.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed.
    contours : iterable of ndarray of int32, shape (K, 2)
        Corners, x and y in pixels of the image, from 0 to its width and height.
    """
    return _outlined(image, contours, BOX_COLOUR)


def _outlined(
    image: Image, contours: Iterable[NDArray[np.int32]], colour: tuple[int, int, int]
) -> Image:
    out = image.copy()
    last = np.array([image.shape[1] - 1, image.shape[0] - 1])
    lines = [np.minimum(contour, last).astype(np.int32) for contour in contours]
    cv2.polylines(out, lines, True, colour, _thickness(image), cv2.LINE_AA)
    return out


def annotated(image: Image, words: str, *, is_anomalous: bool) -> Image:
    """Put a band with words above a picture: red where it is anomalous, dark gray otherwise.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed.
    words : str
        ASCII.
    is_anomalous : bool
        The verdict.
    """
    # Of a narrow picture as much as fits; never so small that it cannot be read.
    width = image.shape[1]
    scale = max(width / 1000, 0.4)
    (length, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, _LETTERS, 2)
    scale = min(scale, max(0.95 * width / length, 0.3))
    height = max(round(_BAND * scale), 14)
    band = np.empty((height, width, 3), np.uint8)
    band[:] = (170, 0, 0) if is_anomalous else (50, 50, 50)
    place = (round(0.01 * width) + 1, round(0.72 * height))
    letters, pen = _LETTERS * scale, max(round(2 * scale), 1)
    white = (255, 255, 255)
    cv2.putText(band, words, place, cv2.FONT_HERSHEY_SIMPLEX, letters, white, pen, cv2.LINE_AA)
    return np.vstack([band, image])


def _thickness(image: Image) -> int:
    return max(1, round(min(image.shape[:2]) / 200))


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
