"""What a model takes of a photograph, and how its answers become those of the photograph.

What a model sees is made by `Framing.take` and by nothing else, in training, in calibration and in
prediction alike; what it says of the views of an image is put together by `Framing.merge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from .taken import Affine, Place, Taken, inverted
from .tiles import Box, Merger, Size, Tiles, TileViews, map_size
from .values import (
    EIGHT_BITS,
    ValueRange,
    check_value_range,
    check_values,
    gray_levels,
    picture_of,
)
from .view import View, cropped

# Gray level of what does not count, in models that are made now.
OUTSIDE = 128
_NOTHING = "nothing of it lies in the region that is inspected"
_AROUND = 0.05  # of the photograph's longer side: what is inspected around a part
_OVERVIEW = 256  # pixels of the side at which the light of a photograph in tiles is measured


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
    tiles : Tiles or None
        How what is taken of a photograph is divided into views; None for one view.
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
    tiles: Tiles | None = None

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
        if not isinstance(self.tiles, (Tiles, type(None))):
            raise OptionError(f"tiles are those of images.tiles. Received: {self.tiles!r}.")
        if self.tiles is not None:
            check_tiles(self.tiles, self.size)
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
        tiles: Tiles | None = None,
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
            tiles=tiles,
        )

    @property
    def n_views(self) -> int:
        """How many views an image has, at most: tiles of which nothing counts are left out."""
        return 1 if self.tiles is None else self.tiles.count

    @cached_property
    def map_size(self) -> Size:
        """(height, width) of the anomaly map of an image."""
        if self.tiles is None:
            return self.size
        x1, y1, x2, y2 = self._box(self._plane(self.tiles.photograph))
        placed = self._placed((0, 0, self.tiles.width, self.tiles.height))
        scale = placed.height / self.tiles.height, placed.width / self.tiles.width
        return map_size((y2 - y1, x2 - x1), scale)

    @property
    def map_scale(self) -> float:
        """Pixels of the map per pixel of the model's input; below 1 for many tiles."""
        if self.tiles is None:
            return 1.0
        x1, y1, x2, y2 = self._box(self._plane(self.tiles.photograph))
        placed = self._placed((0, 0, self.tiles.width, self.tiles.height))
        mapped = math.prod(self.map_size) / ((y2 - y1) * (x2 - x1))
        viewed = placed.height * placed.width / math.prod(self.tiles.size)
        return math.sqrt(mapped / viewed)

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
        if self.tiles is not None:
            out += f", {self.tiles}"
        if self.light is not None:
            out += ", light " + ("by a flat field" if self.light.field else "brought to one level")
        return out

    def least_size(self, image_size: Size) -> Size:
        """(height, width) at which a photograph of `image_size` is large enough for `take`."""
        x1, y1, x2, y2 = self._boxes(self._box(self._plane(image_size)))[0]
        placed = self._placed((x1, y1, x2, y2))
        by = max(placed.height / (y2 - y1), placed.width / (x2 - x1))
        if self.pose is None and self.region is None and self.tiles is None:
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
        """What the model sees of a photograph, shape (t, height, width, channels); see `take`."""
        return np.stack([*self.take(image, image_size, name, is_picture=is_picture).views])

    def take(
        self,
        image: Pixels,
        image_size: tuple[int, int] | None = None,
        name: object = "The image",
        *,
        is_picture: bool = False,
    ) -> Taken:
        """What the model takes of a photograph: one view of it or several, and the way back.

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
            another size than those that the region was drawn for, or the tiles laid.
        PoseError
            The part cannot be found, or not be brought into the pose.
        """
        size = image_size or (image.shape[0], image.shape[1])
        if self.region is not None:
            check_size(self.region, size, name)
        if self.tiles is not None:
            self.tiles.check(size, name)
        out: Any = image
        if self.value_range is None:
            check_values(image, None, name, deep=self.deep)
            out = gray_levels(image, None)  # before resizing, as those models learnt it
        small = self._small(out, name, is_picture) if self.looks_for_part else None
        around = None
        if self.only_part:
            assert small is not None
            around = self.around_part(small)
        to_plane = None
        if self.pose is not None:
            assert small is not None
            to_plane = self.pose.matrix(small, size)
        views = [
            View.of(self.size, self._placed(box), to_plane)
            for box in self._boxes(self._box(self._plane(size)))
        ]
        if self.tiles is not None:
            if (
                self.value_range is not None and not is_picture
            ):  # as a whole, since a tile may well be black
                some = out if self.pose else cropped(out, self._box(size), size)
                some = some if self.value_range == EIGHT_BITS else shrunk(some)
                check_values(some, self.value_range, name, deep=self.deep)
            measured = None
            if self.light is not None and self.light.field is None:
                overview = self.overview.take(image, size, name, is_picture=is_picture)
                measured = self.light.measured(*self.apart(overview))
            out = views[0].shrunk(out, size)
            return self._in_tiles(out, size, views, to_plane, around, measured, is_picture)
        (view,) = views
        shown, counted = self._counted(view, size, around)
        if counted is not None and not counted.any():
            raise PoseError(_NOTHING)
        out = view.pixels(out, size)
        if self.value_range is not None and not is_picture:
            check_values(out, self.value_range, name, deep=self.deep)
        out = view.padded(self._levels(out, is_picture), self._border)
        if self.light is not None:
            measured = self.light.measured(out, counted)
            out = self.light.applied(out, measured, size, inverted(view.to_photo))
        found = self._blanked(out.reshape(self.shape), shown, counted)
        if np.may_share_memory(found, image):
            found = found.copy()
        return Taken(
            found[None], size, view.to_photo, self.size, view.place, counted, self.has_region
        )

    def _in_tiles(
        self,
        image: Pixels,
        size: Size,
        views: Sequence[View],
        to_plane: Affine | None,
        around: NDArray[np.bool_] | None,
        measured: tuple[float, float] | None,
        is_picture: bool,
    ) -> Taken:
        """A photograph of `size` in tiles; views are made when they are asked for."""

        def made(tile: int) -> Image:
            view = views[tile]
            shown, counted = self._counted(view, size, around)
            out = self._levels(view.pixels(image, size), is_picture)
            out = view.padded(out, self._border)
            if self.light is not None:
                out = self.light.applied(out, measured, size, inverted(view.to_photo))
            return self._blanked(out.reshape(self.shape), shown, counted)

        tiles: Sequence[int] = range(len(views))
        if self._may_blank:
            masks = (self._counted(view, size, around)[1] for view in views)
            tiles = [n for n, mask in enumerate(masks) if mask is None or mask.any()]
        if not tiles:
            raise PoseError(_NOTHING)
        height, width = self.map_size
        place = Place(0, 0, width, height, self._box(self._plane(size)))
        whole = View.of(self.map_size, place, to_plane)
        return Taken(
            TileViews(tiles, made, self.view_shape),
            size,
            whole.to_photo,
            self.map_size,
            whole.place,
            self._counted(whole, size, around)[1],
            self.has_region,
            tiles,
        )

    def _counted(
        self, view: View, size: Size, around: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
        """What a view shows that is not replaced by `outside`, and what of it counts.

        Beyond the photograph its mirror image stays: it does not count, and looks natural.
        """
        shown = view.shown(size, around, self.region)
        beyond = view.beyond(size)
        if beyond is None:
            return shown, shown
        return shown, ~beyond if shown is None else shown & ~beyond

    def _blanked(
        self, view: Image, shown: NDArray[np.bool_] | None, counted: NDArray[np.bool_] | None
    ) -> Image:
        """A view whose last channel says what counts, where the framing has an `inside`."""
        if not self.has_inside:
            return view
        inside = counted if counted is not None else np.ones(self.size, bool)
        if shown is not None:
            view = np.where(shown[..., None], view, np.uint8(self.outside or 0))
        return np.concatenate([view, inside[..., None].astype(np.uint8)], axis=2)

    def apart(self, taken: Taken) -> tuple[Image, NDArray[np.bool_] | None]:
        """What is taken in one view as an image, (h, w) or (h, w, 3), and what of it counts."""
        view = taken.views[0][..., : self.channels]
        return view if self.channels == 3 else view[..., 0], taken.counted

    @property
    def overview(self) -> Framing:
        """The same without tiles, and with the light as it is."""
        size = self.size if self.tiles is None else (_OVERVIEW, _OVERVIEW)
        return replace(self, height=size[0], width=size[1], tiles=None, light=None)

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
    def photograph_size(self) -> tuple[int, int] | None:
        """(height, width) that photographs must have, for tiles or a region; None for any."""
        if self.tiles is not None:
            return self.tiles.photograph
        if self.region is None:
            return None
        height, width = mask_of(self.region).shape
        return height, width

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

    def _levels(self, out: Any, is_picture: bool) -> Image:
        """Resized pixels as the model's gray levels, in its channels."""
        if self.channels == 1 and out.ndim == 3:
            out = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)
        elif self.channels == 3 and out.ndim == 2:
            out = cv2.cvtColor(out, cv2.COLOR_GRAY2RGB)
        if self.value_range is not None and not is_picture:
            out = gray_levels(out, self.value_range)
        return np.asarray(out)

    @property
    def _border(self) -> int | None:
        """What padding is filled with; None repeats border pixels."""
        return (self.outside or 0) if self.has_inside else None

    def merger(self) -> Merger:
        """What puts together what a model says of the views of an image."""
        if self.tiles is None:
            return Merger(None, (slice(None), slice(None)), self.size)
        return Merger(*self._merging, by_map=self.tiles.by_map)

    @cached_property
    def _merging(self) -> tuple[list[tuple[slice, slice]], tuple[slice, slice], Size]:
        assert self.tiles is not None
        x1, y1, x2, y2 = whole = self._box(self._plane(self.tiles.photograph))
        down, across = self.map_size[0] / (y2 - y1), self.map_size[1] / (x2 - x1)
        places = [
            (
                slice(round((top - y1) * down), round((bottom - y1) * down)),
                slice(round((left - x1) * across), round((right - x1) * across)),
            )
            for left, top, right, bottom in self.tiles.boxes(whole)
        ]
        window = self._placed((0, 0, self.tiles.width, self.tiles.height)).window
        return places, window, self.map_size

    def merge(
        self, outputs: Mapping[str, NDArray[Any]], tiles: Sequence[int] = (0,)
    ) -> dict[str, NDArray[Any]]:
        """What a model said of the views of one image -> what it says of the image.

        Parameters
        ----------
        outputs : mapping of str to ndarray, shape (t, ...)
            Of its views, in their order.
        tiles : sequence of int
            Which tiles these are, see `Taken.tiles`.

        Returns
        -------
        dict of str to ndarray
            "score" of shape (); "anomaly_map", shape `map_size`, and "reconstruction", with
            channels behind, where the method has them. See `tiles.Merger`.
        """
        merger = self.merger()
        for number, tile in enumerate(tiles):
            part = slice(number, number + 1)
            merger.add(tile, {name: values[part] for name, values in outputs.items()})
        return merger.result()

    def _plane(self, size: Size) -> Size:
        """(height, width) of what is left of a photograph of `size` in its pose."""
        return size if self.pose is None else self.pose.size_of(size)

    def _box(self, plane: Size) -> Box:
        """What of it is inspected: xyxy."""
        if self.region is not None and self.pose is None:
            return box_of(self.region)
        return 0, 0, plane[1], plane[0]

    def _boxes(self, whole: Box) -> list[Box]:
        """What each view shows of it."""
        return [whole] if self.tiles is None else self.tiles.boxes(whole)

    def _placed(self, box: Box) -> Place:
        """Where a box lies in the model's input."""
        size = box[3] - box[1], box[2] - box[0]
        if self.fit == "stretch":
            return Place(0, 0, self.width, self.height, box)
        scale = min(self.height / size[0], self.width / size[1])
        height = min(max(round(size[0] * scale), 1), self.height)
        width = min(max(round(size[1] * scale), 1), self.width)
        left, top = (self.width - width) // 2, (self.height - height) // 2
        return Place(left, top, width, height, box)


def check_tiles(tiles: Tiles, size: Size) -> None:
    """Raise OptionError where tiles have fewer pixels than the model's input, (height, width)."""
    if tiles.height < size[0] or tiles.width < size[1]:
        fitting = tuple(max(32 * (side // 32), 16) for side in tiles.size)
        raise OptionError(
            f"Tiles of {tiles.height}x{tiles.width} pixels (height x width) are smaller than the "
            f"model's input, {size[0]}x{size[1]}. Choose larger or fewer tiles, or a smaller input "
            f"such as img_size={fitting}."
        )


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
