"""The region of interest: which part of every photograph is inspected.

What users give (a rectangle, polygons, a mask, a file of these) becomes one mask at the
photograph's scale. The model keeps it as a PNG in base64.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError
from .decoding import check_path, decode_with_header, read_bytes
from .stored import as_text, from_text

Mask = NDArray[np.bool_]

PART = "part"  # the region is the part, wherever it lies

LEAST_SIDE = 8  # pixels of the photograph along either side of what is inspected
_MOST_CORNERS = 2000  # of a polygon
_FORMS = (
    "a rectangle (x1, y1, x2, y2) in pixels of the photograph, a list of corners [(x, y), ...], a "
    "list of such lists, a mask of the photograph's size (an array, or a file in which white is "
    "meant), or a JSON file of `anomaly-ad roi`"
)


def is_part(roi: Any) -> bool:
    """Whether what a user gave as `roi` is the part, wherever it lies."""
    return isinstance(roi, str) and roi == PART


def check_region(name: str, value: Any) -> None:
    """Raise OptionError unless `roi` or `ignore` has one of its forms; no file is read."""
    if value is None or (name == "roi" and is_part(value)):
        return
    if isinstance(value, (str, os.PathLike)):
        check_path(value, name)
    elif not isinstance(value, Mapping):
        _shape_of(name, value)


def resolve_region(roi: Any, ignore: Any, sizes: Sequence[tuple[int, int]]) -> str | None:
    """What users gave as one mask.

    Parameters
    ----------
    roi, ignore
        See `AD`. `roi` may be "part", which is left to the framing.
    sizes : sequence of (int, int)
        (height, width) of training images.

    Returns
    -------
    str or None
        A PNG in base64; None where all of each photograph is inspected.

    Raises
    ------
    OptionError, PathError, ImageError
        A form is not one of those, does not fit the images, or leaves nothing to inspect.
    """
    is_mask = roi is not None and not is_part(roi)
    if not sizes or not (is_mask or ignore is not None):
        return None
    size = max(set(sizes), key=sizes.count)
    if len(set(sizes)) > 1:
        found = ", ".join(f"{h}x{w}" for h, w in sorted(set(sizes))[:5])
        raise OptionError(
            "A region of interest holds for images of one size, and the training images have "
            f"several (height x width): {found}. Crop them alike, or train without a region; "
            'roi="part" finds the part in images of any size.'
        )
    inspected = np.ones(size, bool)
    if is_mask:
        inspected &= _mask("roi", roi, size)
    if ignore is not None:
        inspected &= ~_mask("ignore", ignore, size)
    return _stored(inspected)


def mask_of(region: str) -> Mask:
    """The mask of a model's region, True where it is inspected; not to be changed."""
    return _decoded(region)[0]


def box_of(region: str) -> tuple[int, int, int, int]:
    """The smallest rectangle around a model's region: xyxy in pixels of the photograph."""
    return _decoded(region)[1]


@lru_cache(16)
def is_rectangle(region: str) -> bool:
    """Whether all of the rectangle around a model's region is inspected."""
    mask, (x1, y1, x2, y2) = _decoded(region)
    return bool(mask[y1:y2, x1:x2].all())


@lru_cache(16)
def _decoded(region: str) -> tuple[Mask, tuple[int, int, int, int]]:
    mask = from_text(region, "region") > 0
    mask.setflags(write=False)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if min(width, height) < LEAST_SIDE:
        raise OptionError(
            f"The region leaves {height}x{width} pixels to inspect (height x width). At least "
            f"{LEAST_SIDE} pixels along both sides are needed."
        )
    return mask, (x, y, x + width, y + height)


def _stored(inspected: Mask) -> str | None:
    if inspected.all():
        return None
    if not inspected.any():
        raise OptionError("roi and ignore leave nothing of the images to inspect.")
    levels = inspected.astype(np.uint8) * np.uint8(255)
    region = as_text(levels, cv2.IMWRITE_PNG_BILEVEL, 1)
    mask_of(region)  # large enough
    return region


def _mask(name: str, value: Any, size: tuple[int, int]) -> Mask:
    """One region as a mask of an image's size."""
    if isinstance(value, (str, os.PathLike)):
        path = Path(value)
        if path.suffix.lower() == ".json":
            return _drawn(name, read_drawn(name, path), size)
        pixels, _ = decode_with_header(read_bytes(path), path)
        return _of_pixels(name, pixels, size, f"The mask {path}")
    if isinstance(value, Mapping):
        return _drawn(name, value, size)
    shape = _shape_of(name, value)
    if isinstance(shape, np.ndarray):
        return _of_pixels(name, shape, size, "The mask")
    return _filled(name, shape, size)


def read_drawn(name: str, path: Path) -> Mapping[str, Any]:
    """What a JSON file of `anomaly-ad roi` holds; OptionError if it is none."""
    try:
        values = json.loads(read_bytes(path).decode("utf-8"))
    except ValueError as error:
        raise OptionError(f"{name}: {path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise OptionError(f"{name}: {path} is not a file of `anomaly-ad roi`.")
    return values


def _drawn(name: str, values: Mapping[str, Any], size: tuple[int, int]) -> Mask:
    """What was drawn on an image: {"image_size", "inspect", "ignore"}."""
    unknown = values.keys() - {"image_size", "inspect", "ignore"}
    try:
        drawn_on = tuple(int(side) for side in values["image_size"])
        inspect, ignore = values.get("inspect") or [], values.get("ignore") or []
    except (KeyError, TypeError, ValueError):
        drawn_on, unknown, inspect, ignore = (), {"?"}, [], []
    if unknown or len(drawn_on) != 2 or not (inspect or ignore):
        raise OptionError(
            f'{name}: a file of `anomaly-ad roi` has "image_size", [height, width], and polygons '
            'under "inspect" or "ignore". Draw it again.'
        )
    if drawn_on != size:
        raise _other_size(name, "was drawn on an image of", drawn_on, size)
    if name == "ignore" and inspect:
        raise OptionError(
            'ignore: this file has polygons under "inspect". Pass it as `roi`, which takes both.'
        )
    if not all(isinstance(one, list) for one in (inspect, ignore)):
        raise OptionError(f"{name}: polygons are lists of corners [x, y]. Draw it again.")
    out = _filled(name, _polygons(name, inspect), size) if inspect else np.ones(size, bool)
    if ignore:
        out &= ~_filled(name, _polygons(name, ignore), size)
    return out if name == "roi" else ~out


def _of_pixels(name: str, pixels: NDArray[Any], size: tuple[int, int], title: str) -> Mask:
    if pixels.shape[:2] != size:
        raise _other_size(name, "is a mask of", pixels.shape[:2], size)
    gray = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    if pixels.ndim == 3 and (pixels != gray[..., None]).any():
        raise OptionError(f"{name}: {title} has colours. White is meant, black is not.")
    if gray.dtype == np.bool_:
        return gray
    low, high = gray.min(), gray.max()
    if ((gray != low) & (gray != high)).any() or low != 0:
        between = np.unique(gray)
        few = ", ".join(f"{level:g}" for level in between[:4])
        raise OptionError(
            f"{name}: {title} has gray values ({len(between)} levels: {few}, ...). White is "
            "meant, black is not, and there is nothing between: save it as PNG, without "
            "smoothing."
        )
    return np.asarray(gray > 0)


def _shape_of(name: str, value: Any) -> list[NDArray[np.float64]] | NDArray[Any]:
    """Polygons, or an array that is a mask."""
    is_array = isinstance(value, np.ndarray) and value.ndim in (2, 3)
    if is_array and min(value.shape[:2]) > 4 and value.dtype in (np.bool_, np.uint8):
        return np.asarray(value)
    if _is_row(value, 4):
        x1, y1, x2, y2 = (float(number) for number in value)
        if not (x1 < x2 and y1 < y2):
            raise OptionError(
                f"{name}: a rectangle is (x1, y1, x2, y2) with x1 < x2 and y1 < y2. Received: "
                f"{tuple(value)}."
            )
        return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])]
    if isinstance(value, (list, tuple, np.ndarray)) and len(value):
        return _polygons(name, [value] if _is_row(value[0], 2) else value)
    raise OptionError(f"{name} is {_FORMS}. Received: {value!r}.")


def _is_row(value: Any, count: int) -> bool:
    """Whether something is so many finite numbers."""
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != count:
        return False
    return all(
        isinstance(one, (int, float, np.number))
        and not isinstance(one, bool)
        and abs(float(one)) < 1e9
        for one in value
    )


def _polygons(name: str, values: Any) -> list[NDArray[np.float64]]:
    out = []
    for one in values:
        is_list = isinstance(one, (list, tuple, np.ndarray)) and len(one) >= 3
        if not is_list or not all(_is_row(corner, 2) for corner in one):
            raise OptionError(
                f"{name} is {_FORMS}. A polygon has three corners (x, y) at least. "
                f"Received: {one!r}."
            )
        if len(one) > _MOST_CORNERS:
            raise OptionError(
                f"{name}: a polygon has at most {_MOST_CORNERS} corners; this one has "
                f"{len(one)}. Give a mask instead."
            )
        corners = np.array(one, np.float64)
        if _crosses_itself(corners):
            raise OptionError(
                f"{name}: the sides of a polygon cross each other, so what lies inside is not "
                f"clear. Its corners are {corners.tolist()}."
            )
        out.append(corners)
    return out


def _crosses_itself(corners: NDArray[np.float64]) -> bool:
    """Whether two sides that are not neighbours meet."""
    a, b = corners, np.roll(corners, -1, axis=0)
    count = len(a)
    first, second = np.triu_indices(count, 2)
    kept = ~((first == 0) & (second == count - 1))
    first, second = first[kept], second[kept]

    def side(p: Any, q: Any, r: Any) -> Any:
        (u, v), (s, t) = (q - p).T, (r - p).T
        return np.sign(u * t - v * s)

    p, q, r, s = a[first], b[first], a[second], b[second]
    apart = (side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)
    return bool(apart.any())


def _filled(name: str, polygons: list[NDArray[np.float64]], size: tuple[int, int]) -> Mask:
    height, width = size
    out = np.zeros(size, np.uint8)
    for corners in polygons:
        low, high = corners.min(axis=0), corners.max(axis=0)
        if (low < 0).any() or (high > (width, height)).any():
            raise OptionError(
                f"{name} reaches from {low.tolist()} to {high.tolist()} (x, y), and the images "
                f"are {width} pixels wide and {height} high. It must lie within them."
            )
        # Corners are points, not pixels: a pixel is in if its centre is.
        fixed = np.round((corners - 0.5) * 16).astype(np.int32)
        one = np.zeros(size, np.uint8)
        cv2.fillPoly(one, [fixed], 1, cv2.LINE_8, 4)
        out |= _sharp(one, corners)
    return out > 0


def _sharp(filled: NDArray[np.uint8], corners: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Without the pixels on right and lower sides of an upright rectangle, as boxes are meant."""
    if len(corners) == 4 and len(set(corners[:, 0])) == 2 and len(set(corners[:, 1])) == 2:
        (x1, y1), (x2, y2) = np.rint(corners.min(axis=0)), np.rint(corners.max(axis=0))
        filled[:] = 0
        filled[int(y1) : int(y2), int(x1) : int(x2)] = 1
    return filled


def _other_size(name: str, what: str, given: Any, size: tuple[int, int]) -> OptionError:
    return OptionError(
        f"{name} {what} {given[0]}x{given[1]} pixels (height x width), and the training images "
        f"have {size[0]}x{size[1]}. Draw it on one of them."
    )


def check_size(region: str, size: tuple[int, int], name: object) -> None:
    """Raise ImageError unless a photograph has the size that the region was drawn for."""
    drawn_for = mask_of(region).shape
    if size != drawn_for:
        raise ImageError(
            f"{name} has {size[0]}x{size[1]} pixels (height x width), and the model's region of "
            f"interest was drawn for {drawn_for[0]}x{drawn_for[1]}. Take it as the training "
            "images were taken."
        )
