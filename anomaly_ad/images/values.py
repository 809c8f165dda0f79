"""What values become the 256 gray levels of a model: learnt once, from the set, never per image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from ..errors import ImageError, OptionError
from .formats import Image, Pixels

ValueRange = tuple[float, float]

EIGHT_BITS: ValueRange = (0, 255)  # of models for images of 8 bits, whose values stay

_ENDS = (0.1, 99.9)  # percentiles of an image's values
_OF_IMAGES = (5, 95)  # percentiles over the images: one that is over-exposed widens nothing
_MARGIN = 0.1  # of the range, on each side: good parts to come, and defects that shine
_LARGEST = 1e30  # of a value; float32 has more, and room for differences is needed
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
    if not is_number or not -_LARGEST <= value <= _LARGEST:
        return None
    return int(value) if float(value).is_integer() else float(value)


def learn_value_range(images: Iterable[Pixels]) -> ValueRange | None:
    """The range of values of images of more than 8 bits.

    The 0.1 and 99.9 % percentiles of each image; of these the 5 % and 95 % percentiles over the
    images, and a tenth of the range more on each side.

    Parameters
    ----------
    images : iterable of ndarray, shape (H, W, 3) or (H, W)
        As stored, all of one kind.

    Returns
    -------
    (float, float) or None
        Whole numbers within the kind, for uint16; None without an image.
    """
    ends, kind = [], np.dtype(np.uint8)
    for image in images:
        step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _SAMPLES))
        ends.append(np.percentile(image[::step, ::step], _ENDS))
        kind = np.promote_types(kind, image.dtype)
    if not ends:
        return None
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
    if pixels.dtype == np.float32:  # subtracted first: large values have few digits left
        raised -= np.float32(low)
        low = 0
    levels: Any = cv2.convertScaleAbs(raised, alpha=scale, beta=-low * scale)
    return levels.reshape(pixels.shape)


def _like(low: float, pixels: Pixels) -> Any:
    """The smallest value from `low` on that such pixels can have, or their largest."""
    if pixels.dtype.kind == "f":
        near = np.float32(low)
        return near if near >= low else np.nextafter(near, np.float32(np.inf))
    return pixels.dtype.type(min(max(math.ceil(low), 0), np.iinfo(pixels.dtype).max))


def picture_of(pixels: Pixels, value_range: ValueRange | None) -> Image:
    """An image in gray levels as people look at it: uint8 (H, W, 3), RGB; see `gray_levels`."""
    levels = gray_levels(pixels, value_range)
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels


def check_values(
    pixels: Pixels, value_range: ValueRange | None, name: object, *, deep: bool
) -> None:
    """Raise ImageError for an image whose values are not of the kind that a model has learnt.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or float32
        What the model takes of it, before values become gray levels.
    value_range : (float, float) or None
        Of the model.
    name : object
        Of the image, for the message.
    deep : bool
        Whether the model was trained on images of more than 8 bits.
    """
    is_deep = pixels.dtype != np.uint8
    if value_range is None:  # as models of before there were ranges
        if pixels.dtype == np.float32:
            raise ImageError(
                f"{name} has values of floating point, and the model was trained by a version of "
                "anomaly_ad that read images of 8 bits and PNG of 16 bits. Train it again."
            )
        return
    if deep != is_deep:
        own, others = ("more than 8", "8") if is_deep else ("8", "more than 8")
        raise ImageError(
            f"{name} has {own} bits, and the model's training images have {others}: its values "
            "mean something else. Save it as those are; or train with images like this one alone."
        )
    if not is_deep and value_range == EIGHT_BITS:
        return
    found = f"{name}: its values lie between {pixels.min():g} and {pixels.max():g}"
    low, high = value_range
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
