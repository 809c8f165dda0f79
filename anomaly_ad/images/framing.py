"""What a model takes of a photograph, and how its answers become those of the photograph.

What a model sees is made by `Framing.views` and by nothing else, in training, in calibration and in
prediction alike; what it says of the views of an image is put together by `Framing.merge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .formats import Image, Pixels
from .values import (
    EIGHT_BITS,
    ValueRange,
    check_value_range,
    check_values,
    gray_levels,
    picture_of,
)

# Gray level of what does not count, in models that are made now.
OUTSIDE = 128


@dataclass(frozen=True)
class Framing:
    """What a model takes of a photograph: its views, and which part of them counts.

    Parameters
    ----------
    height, width : int
        Size of the model's input in pixels.
    channels : int
        1 (gray) or 3 (RGB).
    fit : {"stretch", "pad"}
        "stretch" resizes each axis by its own factor. "pad" keeps the aspect ratio and centres the
        photograph.
    outside : int or None
        Gray level, 0 to 255, of what does not count: the padding. The model then has a second input
        `inside`, and nothing outside is scored. None: border pixels are repeated outwards, and
        count as the photograph does.
    value_range : (float, float) or None
        Values that become 0 and 255; (0, 255) for images of 8 bits. None, as in models from before
        there were ranges: 8 bits stay, and of 16 the upper 8 are taken.
    deep : bool
        Whether the model is for images of more than 8 bits.
    reduces : bool
        Whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that is enough.
    """

    height: int
    width: int
    channels: int
    fit: Literal["stretch", "pad"] = "stretch"
    outside: int | None = None
    value_range: ValueRange | None = None
    deep: bool = False
    reduces: bool = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 16 <= value <= 8192:
                raise OptionError(
                    f"img_size is (height, width) in pixels, whole numbers from 16 to 8192. "
                    f"Received {name}={value!r}."
                )
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise OptionError(f"channels is 1 (gray) or 3 (RGB). Received: {self.channels!r}.")
        if not isinstance(self.fit, str) or self.fit not in ("stretch", "pad"):
            raise OptionError(f"fit is 'stretch' or 'pad'. Received: {self.fit!r}.")
        if self.outside is not None and (
            type(self.outside) is not int or not 0 <= self.outside < 256
        ):
            raise OptionError(f"outside is a gray level from 0 to 255. Received: {self.outside!r}.")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))
        if type(self.reduces) is not bool or type(self.deep) is not bool:
            raise OptionError(f"reduces and deep are True or False. Received: {self!r}.")

    @classmethod
    def new(
        cls,
        height: int,
        width: int,
        channels: int,
        fit: Any = "stretch",
        value_range: Any = EIGHT_BITS,
        *,
        deep: bool = False,
    ) -> Self:
        """The framing of a model that is made now."""
        outside = OUTSIDE if isinstance(fit, str) and fit == "pad" else None
        return cls(height, width, channels, fit, outside, value_range, deep, reduces=True)

    @property
    def n_views(self) -> int:
        """How many views an image has."""
        return 1

    @property
    def has_inside(self) -> bool:
        """Whether the part that counts differs from image to image, so that the model is told."""
        return self.fit == "pad" and self.outside is not None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the model's images."""
        return self.height, self.width, self.channels

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a view: one channel more where there is an `inside`."""
        return self.height, self.width, self.channels + self.has_inside

    def __str__(self) -> str:
        colour = "gray" if self.channels == 1 else "colour"
        out = f"{self.height}x{self.width} {colour}, {self.fit}"
        if self.value_range not in (None, EIGHT_BITS):
            out += ", values {:g} to {:g}".format(*self.value_range)
        return out

    def least_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which a photograph of `image_size` is large enough for `views`."""
        _, _, width, height = self._placement(image_size)
        return height, width

    def picture(self, image: Pixels) -> Image:
        """A photograph in the model's gray levels, as people look at it: uint8 (H, W, 3), RGB."""
        return picture_of(image, self.value_range)

    def views(
        self,
        image: Pixels,
        image_size: tuple[int, int] | None = None,
        name: object = "The image",
        *,
        is_picture: bool = False,
    ) -> Image:
        """What the model sees of a photograph: today one view, the whole of it.

        Shrinking averages (``INTER_AREA``, in the photograph's own depth), enlarging interpolates
        linearly. Gray is computed after resizing, with the weights of ITU-R BT.601 (OpenCV's
        ``RGB2GRAY``); then values become gray levels by the `value_range`.

        Parameters
        ----------
        image : ndarray of uint8, uint16 or float32, shape (H, W, 3) or, deep and gray, (H, W)
            RGB.
        image_size : (int, int), optional
            (height, width) of the photograph where `image` was decoded at a reduced scale.
        name : object
            Of the image, for messages.
        is_picture : bool
            Whether its values are the model's gray levels already, see `picture`.

        Raises
        ------
        ImageError
            The values of its pixels are not of the kind that the model has learnt.

        Returns
        -------
        ndarray of uint8, shape (T, height, width, channels)
            A new array of T views. Where `has_inside`, a last channel more: 1 where the photograph
            lies, 0 elsewhere; `model_inputs` takes it apart.
        """
        left, top, width, height = self._placement(image_size or image.shape[:2])
        out: Any = image
        if self.value_range is None:
            check_values(image, None, name, deep=self.deep)
            out = gray_levels(image, None)  # before resizing, as those models learnt it
        out = _resize(out, (height, width))
        if self.channels == 1 and out.ndim == 3:
            out = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)
        elif self.channels == 3 and out.ndim == 2:
            out = cv2.cvtColor(out, cv2.COLOR_GRAY2RGB)
        if self.value_range is not None and not is_picture:
            check_values(out, self.value_range, name, deep=self.deep)
            out = gray_levels(out, self.value_range)
        border = (top, self.height - height - top, left, self.width - width - left)
        if self.has_inside:
            out = out.reshape(height, width, self.channels)
            view = np.full(self.view_shape, self.outside, np.uint8)
            view[..., -1] = 0
            inner = view[top : top + height, left : left + width]
            inner[..., :-1], inner[..., -1] = out, 1
            return view[None]
        if any(border):
            out = cv2.copyMakeBorder(out, *border, cv2.BORDER_REPLICATE)
        out = out.reshape(1, *self.shape)
        return out.copy() if np.may_share_memory(out, image) else out

    def merge(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What a model said of the views of one image -> what it says of the image.

        Parameters
        ----------
        outputs : mapping of str to ndarray, shape (T, ...)
            Of its T views, in their order.

        Returns
        -------
        dict of str to ndarray
            "score" of shape (); "anomaly_map" (height, width) and "reconstruction"
            (height, width, channels) where the method has them.
        """
        return {name: values[0] for name, values in outputs.items()}

    def boxes_to_original(
        self, boxes: NDArray[np.integer], image_size: tuple[int, int]
    ) -> NDArray[np.int32]:
        """Boxes at the model's scale -> boxes in the photograph.

        Parameters
        ----------
        boxes : ndarray of int, shape (N, 4)
            xyxy in pixels of the model's input; x2 and y2 are exclusive.
        image_size : (int, int)
            (height, width) of the photograph.

        Returns
        -------
        ndarray of int32, shape (M, 4)
            xyxy in pixels of the photograph, rounded outwards, within it. Boxes that lie wholly
            in the padding are left out, so M <= N.
        """
        corners = np.asarray(boxes, np.float64).reshape(-1, 2)
        scaled = self._to_original(corners, image_size).reshape(-1, 4)
        limits = np.tile((image_size[1], image_size[0]), 2)
        # The small constant keeps a box whose edge falls on a pixel's border from growing by
        # one pixel through rounding.
        scaled = np.hstack([np.floor(scaled[:, :2] + 1e-6), np.ceil(scaled[:, 2:] - 1e-6)])
        out = np.clip(scaled, 0, limits).astype(np.int32)
        return out[(out[:, 2] > out[:, 0]) & (out[:, 3] > out[:, 1])]

    def points_to_original(
        self, points: NDArray[np.floating], image_size: tuple[int, int]
    ) -> NDArray[np.int32]:
        """Points at the model's scale -> points in the photograph.

        Parameters
        ----------
        points : ndarray of float, shape (N, 2)
            x and y in pixels of the model's input, from its upper left corner.
        image_size : (int, int)
            (height, width) of the photograph.

        Returns
        -------
        ndarray of int32, shape (N, 2)
            x and y in pixels of the photograph, from 0 to its width and height.
        """
        limits = (image_size[1], image_size[0])
        return np.clip(np.rint(self._to_original(points, image_size)), 0, limits).astype(np.int32)

    def pixel_area(self, image_size: tuple[int, int]) -> float:
        """How many pixels of the photograph one of the model's input stands for."""
        _, _, width, height = self._placement(image_size)
        return image_size[0] / height * image_size[1] / width

    def map_to_original(self, array: NDArray, image_size: tuple[int, int]) -> NDArray:
        """Resize a picture at the model's scale to the photograph's, without the padding.

        Parameters
        ----------
        array : ndarray, shape (height, width) or (height, width, C)
            An anomaly map or a picture of it; float32 or uint8.
        image_size : (int, int)
            (height, width) of the photograph.

        Returns
        -------
        ndarray, shape (image_size[0], image_size[1]) or with C behind
        """
        left, top, width, height = self._placement(image_size)
        return _resize(array[top : top + height, left : left + width], image_size)

    def without_padding(self, array: NDArray, image_size: tuple[int, int]) -> NDArray:
        """A map with -inf where no photograph is.

        Parameters
        ----------
        array : ndarray of float, shape (height, width)
            An anomaly map.
        image_size : (int, int)
            (height, width) of the photograph.

        Returns
        -------
        ndarray of float, shape (height, width)
            `array` itself where there is no padding.
        """
        left, top, width, height = self._placement(image_size)
        if (height, width) == self.size:
            return array
        out = np.full_like(array, -np.inf)
        out[top : top + height, left : left + width] = array[
            top : top + height, left : left + width
        ]
        return out

    def _to_original(
        self, points: NDArray[np.floating], image_size: tuple[int, int]
    ) -> NDArray[np.float64]:
        left, top, width, height = self._placement(image_size)
        moved: NDArray[np.float64] = np.asarray(points, np.float64) - (left, top)
        return moved * (image_size[1] / width, image_size[0] / height)

    def _placement(self, image_size: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Where the photograph lies in the input: left, top, width, height in its pixels."""
        if self.fit == "stretch":
            return 0, 0, self.width, self.height
        scale = min(self.height / image_size[0], self.width / image_size[1])
        height = min(max(round(image_size[0] * scale), 1), self.height)
        width = min(max(round(image_size[1] * scale), 1), self.width)
        return (self.width - width) // 2, (self.height - height) // 2, width, height


def _resize(image: NDArray, size: tuple[int, int]) -> NDArray:
    # INTER_AREA averages only where both axes shrink, so axes that shrink go first.
    shrunk = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def model_inputs(views: NDArray[np.uint8], channels: int) -> list[NDArray[np.uint8]]:
    """Views as a model takes them: the images and, where they have one, their `inside`.

    Parameters
    ----------
    views : ndarray of uint8, shape (B, height, width, channels or channels + 1)
    channels : int
        Of the model's images.

    Returns
    -------
    list of ndarray of uint8
        Images (B, height, width, channels); and (B, height, width), 1 where the image counts.
    """
    if views.shape[-1] == channels:
        return [views]
    return [np.ascontiguousarray(views[..., :channels]), np.ascontiguousarray(views[..., channels])]
