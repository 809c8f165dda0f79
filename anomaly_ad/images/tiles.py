"""Tiles: a large photograph as overlapping views of the model's size, and their answers as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError
from .formats import Image
from .taken import resize

Size = tuple[int, int]  # (height, width) in pixels
Box = tuple[int, int, int, int]  # xyxy in pixels

MOST_TILES = 1024
MOST_MAP = 2**20  # pixels of a merged map
OVERLAP = 0.1


@dataclass(frozen=True)
class Tiles:
    """How what is taken of a photograph is divided into tiles, all of one size.

    Parameters
    ----------
    photograph : (int, int)
        (height, width) of the photographs in pixels.
    height, width : int
        Of a tile, in pixels of the photograph.
    rows, columns : int
        How many there are.
    by_map : bool
        Whether an image is scored by the largest value of its merged map; otherwise by the largest
        score of its tiles.
    """

    photograph: Size
    height: int
    width: int
    rows: int
    columns: int
    by_map: bool = False

    def __post_init__(self) -> None:
        numbers = (*self.photograph, self.height, self.width, self.rows, self.columns)
        whole = all(type(n) is int and n > 0 for n in numbers)
        if len(self.photograph) != 2 or not whole or type(self.by_map) is not bool:
            raise OptionError(f"Tiles are described by whole numbers. Received: {self!r}.")
        object.__setattr__(self, "photograph", tuple(self.photograph))
        if not 2 <= self.count <= MOST_TILES:
            raise OptionError(
                f"A photograph has 2 to {MOST_TILES} tiles. Received: {self.rows} x "
                f"{self.columns} = {self.count}. Choose larger tiles."
            )

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns} tiles of {self.height}x{self.width} pixels"

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return self.rows * self.columns

    @property
    def size(self) -> Size:
        """(height, width) of a tile, in pixels of the photograph."""
        return self.height, self.width

    def check(self, size: Size, name: object) -> None:
        """Raise ImageError unless a photograph has the size that the tiles were laid for."""
        if size != self.photograph:
            wanted = self.photograph
            raise ImageError(
                f"{name} has {size[0]}x{size[1]} pixels (height x width), and the model's tiles "
                f"were laid for {wanted[0]}x{wanted[1]}. Take it as the training images were taken."
            )

    def boxes(self, whole: Box) -> list[Box]:
        """The tiles of a box, xyxy, row by row; spread evenly, with whole pixels as corners.

        Tile i of n along an axis begins ``floor(i (S - s) / (n - 1))`` pixels from the box's
        edge, with S the side of the box and s that of a tile.
        """
        x1, y1, x2, y2 = whole
        return [
            (x1 + x, y1 + y, x1 + x + self.width, y1 + y + self.height)
            for y in _starts(y2 - y1, self.height, self.rows)
            for x in _starts(x2 - x1, self.width, self.columns)
        ]


def _starts(whole: int, side: int, count: int) -> list[int]:
    return [i * (whole - side) // max(count - 1, 1) for i in range(count)]


# ------------------------------------------------------------------------- what users ask for


def check_tiling(given: Mapping[str, Any]) -> None:
    """Raise OptionError unless these options can be used, whatever the photographs.

    Parameters
    ----------
    given : mapping
        "tiles", "tile_size", "overlap" and "smallest_defect" as in `AD`, those that are not None.
    """
    tiles, tile_size = given.get("tiles"), given.get("tile_size")
    overlap, smallest = given.get("overlap"), given.get("smallest_defect")
    if tiles is not None and tile_size is not None:
        raise OptionError("tiles and tile_size both say how large tiles are. Give one of them.")
    if tiles is not None and tiles != "auto" and not _are_whole(tiles, 1):
        raise OptionError(f'tiles is (rows, columns) or "auto". Received: {tiles!r}.')
    if tile_size is not None and not _are_whole(tile_size, 16):
        raise OptionError(
            "tile_size is (height, width) in pixels of the photograph, at least 16. "
            f"Received: {tile_size!r}."
        )
    if overlap is not None:
        if tiles is None and tile_size is None:
            raise OptionError("overlap is that of tiles. Give tiles or tile_size with it.")
        if not _is_number(overlap) or not 0 <= overlap < 1:
            raise OptionError(
                "overlap is the share of a tile that the next one covers as well, from 0 to less "
                f"than 1; a tenth is usual. Received: {overlap!r}."
            )
    if smallest is not None:
        if not isinstance(tiles, str):
            raise OptionError(
                'smallest_defect decides how large tiles are. Give tiles="auto" with it.'
            )
        if not _is_number(smallest) or not 1 <= smallest < math.inf:
            raise OptionError(
                "smallest_defect is the side of the smallest defect that is to be found, in "
                f"pixels of the photograph, at least 1. Received: {smallest!r}."
            )


def lay_tiles(
    given: Mapping[str, Any],
    sizes: Sequence[Size],
    taken: Callable[[Size], Size],
    largest_input: Size,
    cell: int,
    *,
    by_map: bool = False,
) -> Tiles | None:
    """The tiles that a user asked for.

    Parameters
    ----------
    given : mapping
        See `check_tiling`.
    sizes : sequence of (int, int)
        (height, width) of training images.
    taken : callable
        Size of a photograph -> size of what is taken of it.
    largest_input : (int, int)
        (height, width) of the model's input where tiles are large.
    cell : int
        Pixels of the model's input that a defect should cover.
    by_map : bool
        See `Tiles`.

    Returns
    -------
    Tiles or None
        None where one view does.

    Raises
    ------
    OptionError
        The photographs have several sizes, or the tiles are larger than they are.
    """
    if not sizes or (given.get("tiles") is None and given.get("tile_size") is None):
        return None
    if len(set(sizes)) > 1:
        found = ", ".join(f"{h}x{w}" for h, w in sorted(set(sizes))[:5])
        raise OptionError(
            "Tiles are laid for photographs of one size, and the training images have several "
            f"(height x width): {found}. Crop them alike, or train without tiles."
        )
    (photograph,) = set(sizes)
    whole = taken(photograph)
    overlap = float(given.get("overlap", OVERLAP))
    if _are_whole(given.get("tiles"), 1):
        rows, columns = (int(n) for n in given["tiles"])
        height, width = (
            math.ceil(side / (n - (n - 1) * overlap))
            for side, n in zip(whole, (rows, columns), strict=True)
        )
    else:
        if given.get("tile_size") is not None:
            height, width = (int(n) for n in given["tile_size"])
            if height > whole[0] or width > whole[1]:
                raise OptionError(
                    f"Tiles of {height}x{width} pixels (height x width) are larger than what is "
                    f"inspected of a photograph: {whole[0]}x{whole[1]}. Choose smaller ones, or "
                    "leave tile_size out."
                )
        else:
            # Never enlarged: there is no more to see in a photograph than it shows.
            shrinks = max(float(given.get("smallest_defect", cell)) / cell, 1.0)
            height, width = (
                min(math.floor(side * shrinks), most)
                for side, most in zip(largest_input, whole, strict=True)
            )
        rows, columns = (
            math.ceil(max(all_ - overlap * side, 1) / (side * (1 - overlap)) - 1e-9)
            for all_, side in zip(whole, (height, width), strict=True)
        )
    if rows * columns == 1:
        return None
    return Tiles(photograph, height, width, rows, columns, by_map)


def _are_whole(pair: Any, least: int) -> bool:
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(
            isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= least for n in pair
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# ------------------------------------------------------------------- views, and their answers


class Seen(Protocol):
    """What a model sees of an image: some views, and which of its tiles they show."""

    @property
    def views(self) -> NDArray[np.uint8] | TileViews:
        """The views, (t, height, width, channels)."""

    @property
    def tiles(self) -> Sequence[int]:
        """Their tiles, ascending; (0,) of a photograph that is taken in one."""


class TileViews(Sequence[Image]):
    """The views of tiles, each made when it is asked for, so that memory holds one of them.

    Parameters
    ----------
    tiles : sequence of int
        Which ones.
    make : callable
        Tile -> its view, uint8 (height, width, channels).
    view_shape : (int, int, int)
        Of a view.
    """

    def __init__(
        self, tiles: Sequence[int], make: Callable[[int], Image], view_shape: tuple[int, int, int]
    ) -> None:
        self._tiles = tiles
        self._make = make
        self.shape = (len(tiles), *view_shape)

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            raise TypeError("Views of tiles are made one at a time; there are no slices of them.")
        return self._make(self._tiles[index])

    def __iter__(self) -> Iterator[Image]:
        return (self._make(tile) for tile in self._tiles)


class Merger:
    """What a model says of the views of an image, as they come -> what it says of the image.

    Maps are averaged where tiles overlap, weighted by the distance from the nearest edge of the
    tile: what a model says there is less sure, since it does not see what lies beyond. The merged
    map has at most 2^20 pixels, and those of the tiles are averaged to its scale first. The score
    is the largest of the tiles, or the largest value of the merged map.

    Parameters
    ----------
    places : sequence of (slice, slice), or None
        Where the map of each tile lies in the merged map; None for an image of one view, whose
        answers are those of the image.
    window : (slice, slice)
        What of the map of a tile shows the photograph; the rest is padding.
    size : (int, int)
        (height, width) of the merged map.
    by_map : bool
        See `Tiles`.
    """

    def __init__(
        self,
        places: Sequence[tuple[slice, slice]] | None,
        window: tuple[slice, slice],
        size: Size,
        *,
        by_map: bool = False,
    ) -> None:
        self._places, self._window, self._size = places, window, size
        self._by_map = by_map
        self._score: NDArray[Any] | None = None
        self._sums: dict[str, NDArray[Any]] = {}
        self._weights: NDArray[np.float32] | None = None

    def add(self, tile: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Take the outputs for the view of a tile, arrays of shape (1, ...)."""
        if self._places is None:
            self._sums = {name: values[0] for name, values in outputs.items()}
            return
        place = self._places[tile]
        height, width = (part.stop - part.start for part in place)
        weights = _weights(height, width)
        has_maps = False
        for name, values in outputs.items():
            if name == "score":
                score = values[0]
                self._score = score if self._score is None else np.maximum(self._score, score)
                continue
            shrunk = resize(values[0][self._window], (height, width))
            shrunk = shrunk.reshape(height, width, *values.shape[3:])  # OpenCV drops one channel
            if name not in self._sums:
                self._sums[name] = np.zeros((*self._size, *shrunk.shape[2:]), np.float32)
            weighted = weights if shrunk.ndim == 2 else weights[..., None]
            self._sums[name][place] += shrunk * weighted
            has_maps = True
        if has_maps:
            if self._weights is None:
                self._weights = np.zeros(self._size, np.float32)
            self._weights[place] += weights

    def result(self) -> dict[str, NDArray[Any]]:
        """What the model says of the image: "score" (), and maps of the image; ask once."""
        if self._places is None:
            return self._sums
        out = {} if self._score is None else {"score": self._score}
        for name, total in self._sums.items():
            assert self._weights is not None
            weights = self._weights if total.ndim == 2 else self._weights[..., None]
            # In place, since maps are large; where no tile was looked at, both are 0.
            out[name] = np.divide(total, weights, out=total, where=weights > 0)
        if self._by_map and "anomaly_map" in out:
            out["score"] = out["anomaly_map"].max()
        return out


@lru_cache(64)
def _weights(height: int, width: int) -> NDArray[np.float32]:
    """Of the pixels of a tile: how far each is from its nearest edge; not to be changed."""
    down, across = (
        np.minimum(np.arange(n), np.arange(n)[::-1]).astype(np.float32) + np.float32(0.5)
        for n in (height, width)
    )
    weights = np.minimum.outer(down, across)
    weights.setflags(write=False)
    return weights


def map_size(whole: Size, scale: tuple[float, float]) -> Size:
    """(height, width) of the merged map of what is taken.

    Parameters
    ----------
    whole : (int, int)
        What is taken, in pixels of the photograph.
    scale : (float, float)
        Pixels of the model's input per pixel of the photograph, along height and width.
    """
    height, width = whole[0] * scale[0], whole[1] * scale[1]
    by = math.ceil(math.sqrt(height * width / MOST_MAP))
    return max(round(height / max(by, 1)), 1), max(round(width / max(by, 1)), 1)
