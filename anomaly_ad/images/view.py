"""Where a view of a photograph, or a map of it, lies: what it shows, and what of that counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from .roi import is_rectangle, mask_of
from .taken import Affine, Place, inverted, resize, shrunk_by, turned
from .tiles import Box, Size


@dataclass(frozen=True, eq=False)
class View:
    """Where a view of a photograph, or a map of it, lies.

    Parameters
    ----------
    size : (int, int)
        (height, width) of the view in pixels.
    window : (slice, slice)
        What of it is not padding.
    to_photo : ndarray of float64, shape (2, 3)
        From its points to those of the photograph, both from the upper left corner.
    place : Place or None
        Where the photograph lies in it, upright; None where it is turned.
    """

    size: Size
    window: tuple[slice, slice]
    to_photo: Affine
    place: Place | None

    @classmethod
    def of(cls, size: Size, place: Place, to_plane: Affine | None) -> Self:
        """Upright, or turned where photographs are brought into a pose first, `to_plane`."""
        if to_plane is None:
            return cls(size, place.window, place.to_photo, place)
        to_photo = inverted(after(inverted(place.to_photo), to_plane))
        return cls(size, place.window, to_photo, None)

    def shrunk(self, image: NDArray[Any], photograph: Size) -> NDArray[Any]:
        """A photograph as it is before it is turned, where several views need it so."""
        if self.place is not None:
            return image
        to_view = scaled(inverted(self.to_photo), photograph, image.shape)
        return shrunk_by(image, float(np.linalg.svd(to_view[:, :2], compute_uv=False).max()))

    def pixels(self, image: NDArray[Any], photograph: Size) -> NDArray[Any]:
        """What it shows of a photograph: without padding or, where it is turned, all of the view.

        Parameters
        ----------
        image : ndarray, shape (h, w) or (h, w, 3)
            The photograph, at its scale or another.
        photograph : (int, int)
            (height, width) of the photograph.
        """
        if self.place is not None:
            part = cropped(image, self.place.box, photograph)
            return resize(part, (self.place.height, self.place.width))
        to_view = scaled(inverted(self.to_photo), photograph, image.shape)
        return turned(image, to_view, self.size, None)

    def shown(
        self, photograph: Size, around: NDArray[np.bool_] | None, region: str | None
    ) -> NDArray[np.bool_] | None:
        """What is not padding, and in the region; shape `size`, None for all.

        Parameters
        ----------
        photograph : (int, int)
            (height, width) of the photograph.
        around : ndarray of bool, shape (h, w), or None
            The part and its margin, in a thumbnail of the photograph.
        region : str or None
            See `roi.resolve_region`.
        """
        counted = np.zeros(self.size, bool)
        counted[self.window] = True
        if self.place is not None:
            if around is not None:
                counted[self.window] &= _placed_mask(around, self.place, photograph)
            if region is not None and not is_rectangle(region):  # of which all is taken
                counted[self.window] &= _placed_region(region, self.place)
            return None if counted.all() else counted
        to_view = inverted(self.to_photo)
        factor = float(np.linalg.svd(to_view[:, :2], compute_uv=False).max())
        shares = [] if around is None else [around.astype(np.uint8) * np.uint8(255)]
        shares += [] if region is None else [_shrunk_region(region, round(factor, 6))]
        for share in shares:
            to_view = scaled(inverted(self.to_photo), photograph, share.shape)
            counted &= turned(share, to_view, self.size, 0) >= 128
        return None if counted.all() else counted

    def beyond(self, photograph: Size) -> NDArray[np.bool_] | None:
        """Where it shows nothing of a photograph that is turned; None where it does."""
        if self.place is not None:
            return None
        corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * self.size[::-1]
        reached = corners @ self.to_photo[:, :2].T + self.to_photo[:, 2]
        if (reached >= 0).all() and (reached <= photograph[::-1]).all():
            return None
        y, x = (np.arange(side) + 0.5 for side in self.size)
        out = np.zeros(self.size, bool)
        for (across, down, shift), side in zip(self.to_photo, photograph[::-1], strict=True):
            place = np.add.outer(down * y, across * x + shift)  # of the pixels' centres
            out |= (place < 0) | (place > side)
        return out if out.any() else None

    def padded(self, out: NDArray[np.uint8], outside: int | None) -> NDArray[np.uint8]:
        """What `pixels` gave, at the view's size; None repeats border pixels outwards."""
        place = self.place
        if place is None or out.shape[:2] == self.size:
            return out
        bottom = self.size[0] - place.height - place.top
        right = self.size[1] - place.width - place.left
        border = (place.top, bottom, place.left, right)
        if outside is None:
            return np.asarray(cv2.copyMakeBorder(out, *border, cv2.BORDER_REPLICATE))
        value = (float(outside),) * 4
        return np.asarray(cv2.copyMakeBorder(out, *border, cv2.BORDER_CONSTANT, value=value))


def _placed_mask(mask: NDArray[np.bool_], place: Place, photograph: Size) -> NDArray[np.bool_]:
    """A mask of a photograph, at any scale, where the photograph lies in the view."""
    share = cropped(mask, place.box, photograph).astype(np.uint8) * np.uint8(255)
    return np.asarray(resize(share, (place.height, place.width)) >= 128)


@lru_cache(4)
def _shrunk_region(region: str, factor: float) -> NDArray[np.uint8]:
    """A model's region at the scale of its views, 255 inside; not to be changed."""
    share: NDArray[np.uint8] = shrunk_by(mask_of(region).astype(np.uint8) * np.uint8(255), factor)
    share.setflags(write=False)
    return share


@lru_cache(16)
def _placed_region(region: str, place: Place) -> NDArray[np.bool_]:
    """The same of a model's region, which is as large as its photographs; not to be changed."""
    height, width = mask_of(region).shape
    found = _placed_mask(mask_of(region), place, (height, width))
    found.setflags(write=False)
    return found


def cropped(image: NDArray[Any], box: Box, photograph: Size) -> NDArray[Any]:
    """A box of a photograph, in pixels of it that may be at another scale."""
    x1, y1, x2, y2 = box
    if box == (0, 0, photograph[1], photograph[0]):
        return image
    down, across = image.shape[0] / photograph[0], image.shape[1] / photograph[1]
    left, top = math.floor(x1 * across), math.floor(y1 * down)
    right, bottom = math.ceil(x2 * across), math.ceil(y2 * down)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def after(second: Affine, first: Affine) -> Affine:
    """One map of points after another."""
    return np.column_stack(
        [second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]]
    )


def scaled(to_input: Affine, size: Size, shape: tuple[int, ...]) -> Affine:
    """For pixels of a photograph of `size` that are at another scale."""
    scale = np.array([size[1] / shape[1], size[0] / shape[0]])
    return np.column_stack([to_input[:, :2] * scale, to_input[:, 2]])
