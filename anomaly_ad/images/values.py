"""What values become the 256 gray levels of a model: learnt once, from the set, never per image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError
from .formats import Image, Pixels

ValueRange = tuple[float, float]

EIGHT_BITS: ValueRange = (0, 255)  # of models for images of 8 bits, whose values stay

_ENDS = (0.1, 99.9)  # percentiles of an image's values
_OF_IMAGES = (5, 95)  # percentiles over the images: one that is over-exposed widens nothing
_MARGIN = 0.1  # of the range, on each side: good parts to come, and defects that shine
_SAMPLES = 2**16  # values of an image that are looked at

# An image is far outside if nearly all its pixels are at one end: black is the lowest sixteenth,
# which is what 12 bits are of 16, and 8 of 12.
_BLACK, _MOST_BLACK = 1 / 16, 0.995
_MOST_WHITE = 0.9


def check_value_range(value: Any) -> ValueRange:
    """A value range that was given, as two numbers; OptionError if it is none."""
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    numbers = [_number(one) for one in value] if is_pair else []
    if len(numbers) != 2 or None in numbers or not numbers[0] < numbers[1]:
        raise OptionError(
            "value_range is (low, high): the values of pixels that become black and white, two "
            f"numbers such as (0, 4095). Received: {value!r}."
        )
    low, high = numbers
    return low, high


def _number(value: Any) -> Any:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def learn_value_range(images: Iterable[Pixels]) -> ValueRange:
    """The range of values of images of more than 8 bits.

    The 0.1 and 99.9 % percentiles of each image; of these the 5 % and 95 % percentiles over the
    images, and a tenth of the range more on each side.

    Parameters
    ----------
    images : iterable of ndarray, shape (H, W, 3) or (H, W)
        As stored, all of one kind.

    Returns
    -------
    (float, float)
        Whole numbers within the kind, for uint16.
    """
    ends, kind = [], np.dtype(np.uint8)
    for image in images:
        step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _SAMPLES))
        ends.append(np.percentile(image[::step, ::step], _ENDS))
        kind = np.promote_types(kind, image.dtype)
    lows, highs = np.array(ends, np.float64).T
    low = float(np.percentile(lows, _OF_IMAGES[0]))
    high = float(np.percentile(highs, _OF_IMAGES[1]))
    margin = _MARGIN * (high - low) or max(abs(high), 1.0) * _MARGIN
    low, high = low - margin, high + margin
    if kind.kind != "u":
        return low, high
    return max(math.floor(low), 0), min(math.ceil(high), int(np.iinfo(kind).max))


def gray_levels(pixels: Pixels, value_range: ValueRange | None) -> Image:
    """Values as gray levels: 255 (value - low) / (high - low), rounded, within 0 to 255.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or float32
    value_range : (float, float) or None
        Of a model. None, as in models before there were ranges: the upper 8 bits of 16.

    Returns
    -------
    ndarray of uint8
        Of the same shape; `pixels` itself where it has 8 bits and they stay.
    """
    if value_range is None and pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if value_range in (None, EIGHT_BITS) and pixels.dtype == np.uint8:
        return pixels
    low, high = value_range or EIGHT_BITS
    scale = 255 / (high - low)
    # Its result is an absolute value, so what lies below is raised first.
    lowest = _like(low, pixels)
    if lowest < low:
        return np.zeros(pixels.shape, np.uint8)
    raised: Any = np.maximum(pixels, lowest)
    levels: Any = cv2.convertScaleAbs(raised, alpha=scale, beta=-low * scale)
    return levels.reshape(pixels.shape)


def _like(low: float, pixels: Pixels) -> Any:
    """The smallest value from `low` on that such pixels can have, or their largest."""
    if pixels.dtype.kind == "f":
        return np.nextafter(np.float32(low), np.float32(np.inf))
    return pixels.dtype.type(min(max(math.ceil(low), 0), np.iinfo(pixels.dtype).max))


def check_values(pixels: Pixels, value_range: ValueRange | None, name: object) -> None:
    """Raise ImageError for an image whose values are not of the kind that a model has learnt.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or float32
        What the model takes of it, before values become gray levels.
    value_range : (float, float) or None
        Of the model.
    name : object
        Of the image, for the message.
    """
    if pixels.dtype == np.uint8 and value_range in (None, EIGHT_BITS):
        return
    lowest, highest = float(pixels.min()), float(pixels.max())
    found = f"{name}: its values lie between {lowest:g} and {highest:g}"
    if value_range == EIGHT_BITS:
        if lowest < 0 or highest > 255.5:
            raise ImageError(
                f"{found}, and the model was trained on images of 8 bits. Save it with 8 bits, "
                "scaled as those were; or train with images like this one."
            )
        return
    if value_range is None and pixels.dtype != np.uint16:
        raise ImageError(
            f"{found} ({pixels.dtype}), and the model was trained by a version of anomaly_ad that "
            "read images of 8 bits and PNG of 16 bits. Train it again."
        )
    low, high = value_range or (0, 65535)
    if (pixels <= low + _BLACK * (high - low)).mean() >= _MOST_BLACK:
        end = "black"
    elif (pixels > high).mean() >= _MOST_WHITE:
        end = "white"
    else:
        return
    raise ImageError(
        f"{found}, and with the value range {low:g} to {high:g} of the model it is {end}. Was it "
        "taken or saved with other settings than the training images (light, exposure, bit "
        "depth)? To train with such images, choose another value_range, or leave it out to have "
        "it learnt from them."
    )


def as_values(image: Image, value_range: ValueRange | None) -> NDArray[Any]:
    """Gray levels as values that a model makes them of again, for what was drawn into a picture.

    The inverse of `gray_levels`: `image` itself for a model of 8-bit images, float32 otherwise.
    """
    if value_range in (None, EIGHT_BITS):
        return image
    low, high = value_range
    return image.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
