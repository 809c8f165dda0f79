"""What a model takes of one photograph, and the way back into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .formats import Image

if TYPE_CHECKING:
    from .tiles import TileViews

Affine = NDArray[np.float64]  # (2, 3): x' = A x + b, from upper left corners


@dataclass(frozen=True)
class Place:
    """An upright part of a photograph, and where it lies in a view or a map.

    Parameters
    ----------
    left, top, width, height : int
        In pixels of the view.
    box : (int, int, int, int)
        xyxy in pixels of the photograph.
    """

    left: int
    top: int
    width: int
    height: int
    box: tuple[int, int, int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """Of an array at the view's scale."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def to_photo(self) -> Affine:
        """From the view to the photograph."""
        x1, y1, x2, y2 = self.box
        a, b = (x2 - x1) / self.width, (y2 - y1) / self.height
        return np.array([[a, 0, x1 - a * self.left], [0, b, y1 - b * self.top]])


@dataclass(frozen=True, eq=False)
class Taken:
    """What a model takes of one photograph.

    Parameters
    ----------
    views : ndarray of uint8 or TileViews, shape (t, height, width, channels)
        What it sees. Where the framing has an `inside`, a last channel more: 1 where the photograph
        counts, 0 elsewhere; `framing.model_inputs` takes it apart. Of tiles, those of which
        anything counts; each is made when it is asked for.
    size : (int, int)
        (height, width) of the photograph in pixels.
    to_photo : ndarray of float64, shape (2, 3)
        From points of the anomaly map to those of the photograph; both from the upper left corner,
        in pixels. The map is as large as the model's input; of tiles, see `Framing.map_size`.
    map_size : (int, int)
        (height, width) of the map.
    place : Place or None
        Where the photograph lies in the map, upright; None where it is turned.
    counted : ndarray of bool, shape `map_size`, or None
        What counts of the map; None for all of it.
    has_region : bool
        Whether less is inspected than the photograph shows, so that the edge is drawn.
    tiles : sequence of int
        Which tiles the views show; (0,) where there is one view.
    """

    views: Image | TileViews
    size: tuple[int, int]
    to_photo: Affine
    map_size: tuple[int, int]
    place: Place | None = None
    counted: NDArray[np.bool_] | None = None
    has_region: bool = False
    tiles: Sequence[int] = (0,)

    def boxes_to_original(self, boxes: NDArray[np.integer]) -> NDArray[np.int32]:
        """Boxes at the map's scale -> boxes in the photograph.

        Parameters
        ----------
        boxes : ndarray of int, shape (N, 4)
            xyxy in pixels of the map; x2 and y2 are exclusive.

        Returns
        -------
        ndarray of int32, shape (M, 4)
            xyxy in pixels of the photograph, rounded outwards, within it: of a box that is turned,
            what encloses it. Boxes that lie wholly outside are left out, so M <= N.
        """
        corners = np.asarray(boxes, np.float64).reshape(-1, 4)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        moved = self._to_original(corners.reshape(-1, 2)).reshape(-1, 4, 2)
        # The small constant keeps a box whose edge falls on a pixel's border from growing by
        # one pixel through rounding.
        low, high = np.floor(moved.min(axis=1) + 1e-6), np.ceil(moved.max(axis=1) - 1e-6)
        limits = np.tile((self.size[1], self.size[0]), 2)
        out = np.clip(np.hstack([low, high]), 0, limits).astype(np.int32)
        return out[(out[:, 2] > out[:, 0]) & (out[:, 3] > out[:, 1])]

    def points_to_original(self, points: NDArray[np.floating]) -> NDArray[np.int32]:
        """Points at the map's scale -> points in the photograph.

        Parameters
        ----------
        points : ndarray of float, shape (N, 2)
            x and y in pixels of the map, from its upper left corner.

        Returns
        -------
        ndarray of int32, shape (N, 2)
            x and y in pixels of the photograph, from 0 to its width and height.
        """
        limits = (self.size[1], self.size[0])
        return np.clip(np.rint(self._to_original(points)), 0, limits).astype(np.int32)

    @property
    def pixel_area(self) -> float:
        """How many pixels of the photograph one of the map stands for."""
        return float(abs(np.linalg.det(self.to_photo[:, :2])))

    def map_to_original(
        self, array: NDArray[Any], size: tuple[int, int] | None = None, *, outside: Any = 0
    ) -> NDArray[Any]:
        """A picture at the map's scale at that of the photograph.

        Parameters
        ----------
        array : ndarray, shape `map_size` or with C behind
            An anomaly map or a picture of it; float32 or uint8.
        size : (int, int), optional
            (height, width) of the result, with the photograph's shape; None for the photograph's.
        outside : number or tuple
            Its value where the model has seen nothing of the photograph.

        Returns
        -------
        ndarray, shape `size` or with C behind
        """
        height, width = size or self.size
        scale = np.array([width / self.size[1], height / self.size[0]])
        if self.place is None:
            # Pixel centres of the result -> pixel centres of the array.
            ahead = inverted(self.to_photo)
            back = np.column_stack([ahead[:, :2] / scale, ahead[:, 2]])
            return _warped(array, back, (height, width), outside, inverse=True)
        window = array[self.place.window]
        if self.place.box == (0, 0, self.size[1], self.size[0]):
            return resize(window, (height, width))
        x1, y1, x2, y2 = np.rint(np.array(self.place.box) * np.tile(scale, 2)).astype(int).tolist()
        out = np.empty((height, width, *array.shape[2:]), array.dtype)
        out[:] = outside
        if x2 > x1 and y2 > y1:
            out[y1:y2, x1:x2] = resize(window, (y2 - y1, x2 - x1))
        return out

    def inspected(self) -> NDArray[np.bool_] | None:
        """Which pixels of the photograph are inspected, shape (H, W); None for all."""
        if not self.has_region and self.place is not None:
            return None
        counted = np.ones(self.map_size, np.float32)
        if self.counted is not None:
            counted = self.counted.astype(np.float32)
        return np.asarray(self.map_to_original(counted) > 0.5)

    def edge(self) -> list[NDArray[np.int32]]:
        """The outlines of what is inspected, shape (K, 2): x and y in pixels of the photograph."""
        if not self.has_region:
            return []
        height, width = self.map_size
        if self.counted is None:
            corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
            return [self.points_to_original(corners)]
        double = self.counted.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        found, _ = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        return [
            self.points_to_original(((outline + 1) // 2).reshape(-1, 2).astype(np.float64))
            for outline in found
        ]

    def where_counted(self, array: NDArray[Any]) -> NDArray[Any]:
        """A map with -inf where nothing counts.

        Parameters
        ----------
        array : ndarray of float, shape `map_size`
            An anomaly map.

        Returns
        -------
        ndarray of float, shape `map_size`
            `array` itself where all of it counts.
        """
        if self.counted is None:
            return array
        return np.where(self.counted, array, array.dtype.type(-np.inf))

    def _to_original(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        moved: NDArray[np.float64] = (
            np.asarray(points, np.float64) @ self.to_photo[:, :2].T + self.to_photo[:, 2]
        )
        return moved


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """To (height, width): shrinking averages, enlarging interpolates linearly."""
    # INTER_AREA averages only where both axes shrink, so axes that shrink go first.
    shrunk = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def with_peaks(anomaly_map: NDArray[Any], factor: float) -> NDArray[Any]:
    """A map that is going to be shrunk by much: a small peak is widened, so that it stays as high.

    Where it shrinks to no less than a third it is left as it is.
    """
    if factor >= 1 / 3:
        return anomaly_map
    side = round(1 / factor)
    return np.asarray(
        cv2.dilate(np.ascontiguousarray(anomaly_map), np.ones((side, side), np.uint8))
    )


def turned(
    image: NDArray[Any], to_input: Affine, size: tuple[int, int], outside: Any
) -> NDArray[Any]:
    """What lies where `to_input` says, at (height, width) `size`; averaged where that is smaller.

    Parameters
    ----------
    image : ndarray, shape (H, W) or (H, W, 3)
        The photograph.
    to_input : ndarray of float64, shape (2, 3)
        From its points to those of the result, from upper left corners.
    size : (int, int)
        (height, width) of the result.
    outside : number or None
        Value beyond the photograph; None for its mirror image.
    """
    largest = float(np.linalg.svd(to_input[:, :2], compute_uv=False).max())
    height, width = image.shape[:2]
    image = shrunk_by(image, largest)
    scale = np.array([width / image.shape[1], height / image.shape[0]])
    matrix = np.column_stack([to_input[:, :2] * scale, to_input[:, 2]])
    return _warped(image, matrix, size, outside, inverse=False)


def shrunk_by(image: NDArray[Any], factor: float) -> NDArray[Any]:
    """An image at a smaller scale, averaged, as it is before it is turned; not enlarged."""
    if factor >= 1:
        return image
    height, width = image.shape[:2]
    return resize(image, (max(1, round(height * factor)), max(1, round(width * factor))))


def inverted(matrix: Affine) -> Affine:
    """The way back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def _warped(
    image: NDArray[Any], matrix: Affine, size: tuple[int, int], outside: Any, *, inverse: bool
) -> NDArray[Any]:
    # From corners to pixel centres, as OpenCV counts.
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    flags = cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if inverse else 0)
    mode = cv2.BORDER_REFLECT if outside is None else cv2.BORDER_CONSTANT
    value = outside if isinstance(outside, tuple) else (outside or 0,) * 4
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        centred,
        size[::-1],
        flags=flags,
        borderMode=mode,
        borderValue=tuple(float(one) for one in value),
    )
