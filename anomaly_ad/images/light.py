"""Light: an image's brightness is brought to that of the training images, within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .formats import Image
from .stored import as_text, from_text
from .taken import Affine

NORMALIZE = ("none", "gain", "flatfield")

MOST_GAIN = 1.5  # contrast is changed by this factor at most, or its inverse
MOST_OFFSET = 64.0  # gray levels by which the level is moved at most
_ENDS = (5, 95)  # percentiles of an image's gray levels
_FIELD = 32  # longer side of the stored field
_SMOOTH = 4.0  # of the field, standard deviation in its pixels
_FIELD_BOUNDS = (0.25, 4.0)  # of the factor


@dataclass(frozen=True)
class Light:
    """What images are brought to.

    Parameters
    ----------
    level, spread : float or None
        Of the training images: the middle between the 5th and the 95th percentile of their gray
        levels, and the distance of these; with `field`, None.
    field : str or None
        The smooth mean of the training photographs, gray: a PNG in base64. Images are divided by
        it, and multiplied by its mean.
    """

    level: float | None = None
    spread: float | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        if self.field is not None:
            from_text(self.field, "light")
        elif self.level is None or self.spread is None:
            raise OptionError(f"Light is a level and a spread, or a field. Received: {self!r}.")

    def measured(
        self, image: Image, counted: NDArray[np.bool_] | None
    ) -> tuple[float, float] | None:
        """Level and spread of an image; None where a field does not ask for them.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w) or (h, w, 3)
            What a model takes of a photograph.
        counted : ndarray of bool, shape (h, w), or None
            The pixels that are measured: those that count.
        """
        return None if self.field is not None else _measured(image, counted)

    def applied(
        self,
        image: Image,
        measured: tuple[float, float] | None,
        size: tuple[int, int],
        to_input: Affine,
    ) -> Image:
        """An image in this light.

        Parameters
        ----------
        image : ndarray of uint8, shape (h, w) or (h, w, 3)
            What a model takes of a photograph, or a tile of it.
        measured : (float, float) or None
            What `measured` gave of the photograph.
        size : (int, int)
            (height, width) of the photograph.
        to_input : ndarray of float64, shape (2, 3)
            From its points to those of `image`.
        """
        if self.field is not None:
            return _divided(image, from_text(self.field, "light"), size, to_input)
        assert self.level is not None and self.spread is not None
        assert measured is not None
        level, spread = measured
        gain = float(np.clip(self.spread / max(spread, 1.0), 1 / MOST_GAIN, MOST_GAIN))
        offset = float(np.clip(self.level - level, -MOST_OFFSET, MOST_OFFSET))
        levels = (np.arange(256) - level) * gain + level + offset
        table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(image, table), np.uint8)


def learn_gain(images: Sequence[tuple[Image, NDArray[np.bool_] | None]]) -> Light:
    """The light of what a model takes of the training images, each with the pixels that count."""
    measured = np.array([_measured(image, counted) for image, counted in images])
    level, spread = np.median(measured, axis=0)
    return Light(float(level), float(spread))


def learn_field(smalls: Sequence[Image]) -> Light:
    """The light over the training photographs; of each its thumbnail, see `part.shrunk`."""
    height, width = smalls[0].shape[:2]
    scale = _FIELD / max(height, width)
    size = (max(4, round(width * scale)), max(4, round(height * scale)))
    fields = [cv2.resize(_gray(small), size, interpolation=cv2.INTER_AREA) for small in smalls]
    mean = np.mean(np.array(fields, np.float32), axis=0)
    mean = cv2.GaussianBlur(mean, (0, 0), _SMOOTH, borderType=cv2.BORDER_REFLECT)
    return Light(field=as_text(np.clip(np.rint(mean), 1, 255).astype(np.uint8)))


def light_from_dict(values: Mapping[str, Any]) -> Light:
    """The light of a manifest; OptionError if it is none."""
    try:
        return Light(**values)
    except TypeError as error:
        raise OptionError(f"The light of a model is damaged: {error}.") from error


def _gray(image: Image) -> Image:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _measured(image: Image, counted: NDArray[np.bool_] | None) -> tuple[float, float]:
    gray = _gray(image)
    values = gray if counted is None or not counted.any() else gray[counted]
    low, high = np.percentile(values, _ENDS)
    return float(low + high) / 2, float(high - low)


def _divided(
    image: Image, field: NDArray[np.uint8], size: tuple[int, int], to_input: Affine
) -> Image:
    height, width = image.shape[:2]
    # From the field's pixel centres to the input's.
    scale = np.array([size[1] / field.shape[1], size[0] / field.shape[0]])
    matrix = np.column_stack([to_input[:, :2] * scale, to_input[:, 2]])
    matrix[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    smooth = cv2.warpAffine(
        field.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    factor = np.clip(field.mean() / np.maximum(smooth, 1), *_FIELD_BOUNDS).astype(np.float32)
    if image.ndim == 3:
        factor = np.repeat(factor[..., None], image.shape[2], axis=2)
    return np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)
