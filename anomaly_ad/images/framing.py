"""What a model takes of a photograph, and how its answers become those of the photograph.

What a model sees is made by `Framing.views` and by nothing else, in training, in calibration and in
prediction alike; what it says of the views of an image is put together by `Framing.merge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, PoseError
from .formats import Image, Pixels
from .light import Light
from .part import around_part, shrunk
from .pose import OwnAxes, Pose, Registration
from .roi import box_of, check_size, is_rectangle, mask_of
from .taken import Affine, Place, Taken, inverted, resize, turned
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
_AROUND = 0.05  # of the photograph's longer side: what is inspected around a part


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
        Gray level, 0 to 255, of what does not count: the padding, what is outside the region or
        beyond the photograph. The model then has a second input `inside`, and nothing outside is
        scored. None, where there is only padding: border pixels are repeated outwards, and count
        as the photograph does.
    value_range : (float, float) or None
        Values that become 0 and 255; (0, 255) for images of 8 bits. None, as in models from before
        there were ranges: 8 bits stay, and of 16 the upper 8 are taken.
    deep : bool
        Whether the model is for images of more than 8 bits.
    reduces : bool
        Whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that is enough.
    region : str or None
        The region of interest: a mask at the photograph's scale, see `roi.resolve_region`. Where
        photographs are not turned, the model takes the smallest rectangle around it.
    only_part : bool
        Whether only the part is inspected: its convex hull and a margin, found in each photograph.
    part_share : (float, float) or None
        The least and the largest share of a photograph that this is for good parts.
    pose : Pose or None
        How photographs are turned and moved, see `pose`.
    light : Light or None
        What their brightness is brought to, see `light`.
    """

    height: int
    width: int
    channels: int
    fit: Literal["stretch", "pad"] = "stretch"
    outside: int | None = None
    value_range: ValueRange | None = None
    deep: bool = False
    reduces: bool = False
    region: str | None = None
    only_part: bool = False
    part_share: tuple[float, float] | None = None
    pose: Pose | None = None
    light: Light | None = None

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
        if not all(type(one) is bool for one in (self.reduces, self.deep, self.only_part)):
            raise OptionError(f"reduces, deep and only_part are True or False. Received: {self!r}.")
        if self.region is not None:
            box_of(self.region)
        if not isinstance(self.pose, (OwnAxes, Registration, type(None))):
            raise OptionError(f"pose is one of those in images.pose. Received: {self.pose!r}.")
        if not isinstance(self.light, (Light, type(None))):
            raise OptionError(f"light is that of images.light. Received: {self.light!r}.")
        if self._may_blank and self.fit != "pad" and self.outside is None:
            raise OptionError("What is not inspected needs a gray level: `outside`.")

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
        region: str | None = None,
        only_part: bool = False,
        pose: Pose | None = None,
    ) -> Self:
        """The framing of a model that is made now."""
        blanks = (isinstance(fit, str) and fit == "pad") or region or only_part or pose
        outside = OUTSIDE if blanks else None
        return cls(
            height,
            width,
            channels,
            fit,
            outside,
            value_range,
            deep,
            reduces=True,
            region=region,
            only_part=only_part,
            pose=pose,
        )

    @property
    def n_views(self) -> int:
        """How many views an image has."""
        return 1

    @property
    def has_inside(self) -> bool:
        """Whether the part that counts differs from image to image, so that the model is told."""
        return self.outside is not None and (self.fit == "pad" or self._may_blank)

    @property
    def has_region(self) -> bool:
        """Whether less than the whole photograph is inspected."""
        return self.region is not None or self.only_part

    @property
    def _may_blank(self) -> bool:
        """Whether something inside the input may not count, apart from padding."""
        if self.only_part or self.pose is not None:
            return True
        return self.region is not None and not is_rectangle(self.region)

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
        if self.region is not None:
            out += ", a region of it"
        if self.only_part:
            out += ", the part alone"
        if self.pose is not None:
            out += f", {'turned' if self.pose.turns else 'moved'} into one pose"
        if self.light is not None:
            out += ", light " + ("by a flat field" if self.light.field else "brought to one level")
        return out

    def least_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which a photograph of `image_size` is large enough for `views`."""
        taken = image_size if self.pose is None else self.pose.size_of(image_size)
        x1, y1, x2, y2 = self._box(taken)
        placed = self._placed((y2 - y1, x2 - x1))
        by = max(placed.height / (y2 - y1), placed.width / (x2 - x1))
        if self.pose is None and self.region is None:
            return placed.height, placed.width
        height, width = (min(max(math.ceil(side * by), 1), side) for side in image_size)
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
        """What the model sees of a photograph, shape (T, height, width, channels); see `take`."""
        return self.take(image, image_size, name, is_picture=is_picture).views

    def take(
        self,
        image: Pixels,
        image_size: tuple[int, int] | None = None,
        name: object = "The image",
        *,
        is_picture: bool = False,
    ) -> Taken:
        """What the model takes of a photograph: today one view of it, and the way back.

        Shrinking averages (``INTER_AREA``, in the photograph's own depth), enlarging and turning
        interpolate linearly. Gray is computed after resizing, with the weights of ITU-R BT.601
        (OpenCV's ``RGB2GRAY``); then values become gray levels by the `value_range`, and their
        light is changed; last, what does not count is replaced by `outside`.

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
            The values of its pixels are not of the kind that the model has learnt, or it has
            another size than those that the region was drawn for.
        PoseError
            The part cannot be found, or not be brought into the pose.
        """
        size = image_size or (image.shape[0], image.shape[1])
        if self.region is not None:
            check_size(self.region, size, name)
        out: Any = image
        if self.value_range is None:
            check_values(image, None, name, deep=self.deep)
            out = gray_levels(image, None)  # before resizing, as those models learnt it
        small = self._small(out, name, is_picture) if self.looks_for_part else None
        around = None
        if self.only_part:
            assert small is not None
            around = self.around_part(small)
        if self.pose is None:
            place = self._placed_box(size)
            window, to_photo = place.window, place.to_photo
            out = resize(_cropped(out, place.box, size), (place.height, place.width))
        else:
            assert small is not None
            place, posed = None, self.pose.size_of(size)
            inner = self._placed(posed)
            to_input = _after(inverted(inner.to_photo), self.pose.matrix(small, size))
            window = inner.window
            to_photo = inverted(to_input)
            out = turned(out, _scaled(to_input, size, out.shape), self.size, None)
        out = self._levels(out, name, is_picture)
        shown = self._shown(size, place, window, to_photo, around)
        counted = shown
        if place is None and (beyond := self._beyond(size, to_photo)) is not None:
            counted = ~beyond if shown is None else shown & ~beyond
        if counted is not None and not counted.any():
            raise PoseError("nothing of it lies in the region that is inspected")
        if place is not None:
            out = self._padded(out, place)
        if self.light is not None:
            out = self.light.applied(out, counted, size, inverted(to_photo))
        view = out.reshape(self.shape)
        if self.has_inside:
            inside = counted if counted is not None else np.ones(self.size, bool)
            # Beyond the photograph its mirror image stays: it does not count, and looks natural.
            blanked = view
            if shown is not None:
                blanked = np.where(shown[..., None], view, np.uint8(self.outside or 0))
            view = np.concatenate([blanked, inside[..., None].astype(np.uint8)], axis=2)
        elif np.may_share_memory(view, image):
            view = view.copy()
        return Taken(view[None], size, to_photo, place, counted, self.has_region)

    def around_part(self, small: Image) -> NDArray[np.bool_]:
        """The part and a margin in a thumbnail of a photograph; PoseError where there is none.

        Parameters
        ----------
        small : ndarray of uint8, shape (h, w, 3)
            From `part.shrunk`.

        Returns
        -------
        ndarray of bool, shape (h, w)
        """
        around = around_part(small, _AROUND)
        if around is None:
            raise PoseError("no part stands out from the background")
        share = float(around.mean())
        low, high = self.part_share or (0.0, 1.0)
        if not low <= share <= high:
            raise PoseError(
                f"the part covers {share:.1%} of the image, good parts {low:.1%} to {high:.1%}"
            )
        return around

    @property
    def looks_for_part(self) -> bool:
        """Whether the photograph as a whole is looked at, to find the part in it."""
        return self.only_part or self.pose is not None

    def _small(self, image: Pixels, name: object, is_picture: bool) -> Image:
        """The photograph as `part` looks at it: uint8 (h, w, 3)."""
        small: Any = shrunk(image)
        if self.value_range is not None and not is_picture:
            check_values(small, self.value_range, name, deep=self.deep)
            small = gray_levels(small, self.value_range)
        return small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2)

    def _levels(self, out: Any, name: object, is_picture: bool) -> Image:
        """Resized pixels as the model's gray levels, in its channels."""
        if self.channels == 1 and out.ndim == 3:
            out = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)
        elif self.channels == 3 and out.ndim == 2:
            out = cv2.cvtColor(out, cv2.COLOR_GRAY2RGB)
        if self.value_range is not None and not is_picture:
            check_values(out, self.value_range, name, deep=self.deep)
            out = gray_levels(out, self.value_range)
        return np.asarray(out)

    def _padded(self, out: Image, place: Place) -> Image:
        border = (
            place.top,
            self.height - place.height - place.top,
            place.left,
            self.width - place.width - place.left,
        )
        if not any(border):
            return out
        if self.has_inside:
            value = (float(self.outside or 0),) * 4
            padded = cv2.copyMakeBorder(out, *border, cv2.BORDER_CONSTANT, value=value)
        else:
            padded = cv2.copyMakeBorder(out, *border, cv2.BORDER_REPLICATE)
        return np.asarray(padded)

    def _beyond(self, size: tuple[int, int], to_photo: Affine) -> NDArray[np.bool_] | None:
        """Where the input shows nothing of a photograph that is turned; None where it does."""
        corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * (self.width, self.height)
        reached = corners @ to_photo[:, :2].T + to_photo[:, 2]
        if (reached >= 0).all() and (reached <= (size[1], size[0])).all():
            return None
        photo = np.full((8, 8), 255, np.uint8)
        found = turned(photo, _scaled(inverted(to_photo), size, photo.shape), self.size, 0)
        return np.asarray(found < 128)

    def _shown(
        self,
        size: tuple[int, int],
        place: Place | None,
        window: tuple[slice, slice],
        to_photo: Affine,
        around: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_] | None:
        """What is not padding, and in the region; shape (height, width), None for all."""
        counted = np.zeros(self.size, bool)
        counted[window] = True
        if place is not None:
            if around is not None:
                counted[window] &= _placed_mask(around, place, size)
            if self.region is not None:
                counted[window] &= _placed_region(self.region, place)
            return None if counted.all() else counted
        to_input = inverted(to_photo)
        masks = [] if around is None else [around]
        masks += [] if self.region is None else [mask_of(self.region)]
        for mask in masks:
            share = mask.astype(np.uint8) * np.uint8(255)
            counted &= turned(share, _scaled(to_input, size, mask.shape), self.size, 0) >= 128
        return None if counted.all() else counted

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

    def _box(self, taken: tuple[int, int]) -> tuple[int, int, int, int]:
        """What of a photograph is brought to the input: xyxy."""
        if self.region is not None and self.pose is None:
            return box_of(self.region)
        return 0, 0, taken[1], taken[0]

    def _placed_box(self, size: tuple[int, int]) -> Place:
        x1, y1, x2, y2 = self._box(size)
        return replace(self._placed((y2 - y1, x2 - x1)), box=(x1, y1, x2, y2))

    def _placed(self, size: tuple[int, int]) -> Place:
        """Where a picture of `size` lies in the input."""
        box = (0, 0, size[1], size[0])
        if self.fit == "stretch":
            return Place(0, 0, self.width, self.height, box)
        scale = min(self.height / size[0], self.width / size[1])
        height = min(max(round(size[0] * scale), 1), self.height)
        width = min(max(round(size[1] * scale), 1), self.width)
        left, top = (self.width - width) // 2, (self.height - height) // 2
        return Place(left, top, width, height, box)


def _placed_mask(mask: NDArray[np.bool_], place: Place, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask of a photograph of `size`, at any scale, where the photograph lies in the input."""
    share = _cropped(mask.astype(np.uint8) * np.uint8(255), place.box, size)
    return np.asarray(resize(share, (place.height, place.width)) >= 128)


@lru_cache(16)
def _placed_region(region: str, place: Place) -> NDArray[np.bool_]:
    """The same of a model's region, which is as large as its photographs; not to be changed."""
    height, width = mask_of(region).shape
    found = _placed_mask(mask_of(region), place, (height, width))
    found.setflags(write=False)
    return found


def _cropped(image: NDArray[Any], box: tuple[int, int, int, int], size: tuple[int, int]) -> Any:
    """A box of a photograph of `size`, in pixels of it that may be at another scale."""
    x1, y1, x2, y2 = box
    if box == (0, 0, size[1], size[0]):
        return image
    down, across = image.shape[0] / size[0], image.shape[1] / size[1]
    left, top = math.floor(x1 * across), math.floor(y1 * down)
    right, bottom = math.ceil(x2 * across), math.ceil(y2 * down)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def _after(second: Affine, first: Affine) -> Affine:
    """One map of points after another."""
    return np.column_stack(
        [second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]]
    )


def _scaled(to_input: Affine, size: tuple[int, int], shape: tuple[int, ...]) -> Affine:
    """For pixels of a photograph of `size` that are at another scale."""
    scale = np.array([size[1] / shape[1], size[0] / shape[0]])
    return np.column_stack([to_input[:, :2] * scale, to_input[:, 2]])


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
