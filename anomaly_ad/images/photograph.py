"""A photograph as it was read: in full, or no larger than its model needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import ImageError, PathError
from ..support import ordered_map
from .arrays import check_array
from .decoding import (
    MAX_PIXELS,
    PathLike,
    decode_with_header,
    page_of,
    read_bytes,
    stored_as,
)
from .formats import Header, Image, Pixels
from .framing import Framing
from .taken import Taken
from .values import ValueRange, learn_value_range

_FIRST_PAGE = "The first is taken; stack.tif[1] in a list of files names the second."

_SAMPLE = 32  # files of a set whose headers are looked at
_VALUES_OF = 256  # images that a value range is learnt from


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image, read for a model.

    Parameters
    ----------
    name : str
        What messages call it.
    pixels : ndarray of uint8, uint16 or float32, shape (h, w, 3), or (h, w) where deep and gray
        RGB; smaller than the photograph where it was decoded at a reduced scale.
    size : (int, int)
        (height, width) of the photograph in pixels.
    framing : Framing
        Of the model.
    n_pages : int
        Images in its file, of which this is the first; 1 where its page was named.
    data : bytes or None
        Its file, where `pixels` are reduced.
    is_picture : bool
        Whether `pixels` are the model's gray levels already.
    """

    name: str
    pixels: Pixels
    size: tuple[int, int]
    framing: Framing
    n_pages: int = 1
    data: bytes | None = None
    is_picture: bool = False

    @classmethod
    def read(cls, path: PathLike, framing: Framing) -> Self:
        """Read a file; errors as `read_image`."""
        photo = cls.decode(read_bytes(path), path, framing)
        return photo if page_of(path)[1] is None else replace(photo, n_pages=1)

    @classmethod
    def decode(
        cls, data: bytes, name: object, framing: Framing, max_pixels: int = MAX_PIXELS
    ) -> Self:
        """Decode the bytes of a file; errors as `decode_with_header`."""
        enough = framing.least_size if framing.reduces else None
        pixels, header = decode_with_header(data, name, max_pixels, enough)
        is_reduced = pixels.shape[:2] != header.size
        kept = data if is_reduced else None
        return cls(str(name), pixels, header.size, framing, header.n_pages, kept)

    @classmethod
    def of_array(cls, image: Any, framing: Framing, name: str = "The array") -> Self:
        """An image in memory; errors as `check_array`."""
        pixels = check_array(image, deep=framing.deep)
        height, width = pixels.shape[:2]
        return cls(name, pixels, (height, width), framing)

    @classmethod
    def of_picture(cls, image: Image, framing: Framing, name: str) -> Self:
        """What was drawn into a `picture`, uint8 (H, W, 3)."""
        height, width = image.shape[:2]
        return cls(name, image, (height, width), framing, is_picture=True)

    def take(self) -> Taken:
        """What the model takes of it, see `Framing.take`; errors as there."""
        return self.framing.take(self.pixels, self.size, self.name, is_picture=self.is_picture)

    def views(self) -> Image:
        """What the model sees of it, shape (t, height, width, channels)."""
        return np.stack([*self.take().views])

    def picture(self, enough: tuple[int, int] | None = None) -> Image:
        """The photograph in the model's gray levels, for people to look at.

        Parameters
        ----------
        enough : (int, int), optional
            (height, width) that will do; the picture may be as small as that where it was decoded
            at a reduced scale. None: the whole.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
            RGB.
        """
        pixels = self.pixels
        least = self.size if enough is None else enough
        if self.data is not None and any(n < m for n, m in zip(pixels.shape, least, strict=False)):
            pixels, _ = decode_with_header(self.data, self.name, enough=lambda size: least)
        return pixels if self.is_picture else self.framing.picture(pixels)


@dataclass(frozen=True)
class Survey:
    """What a set of images is like, by some of them.

    Parameters
    ----------
    sizes : tuple of (int, int)
        (height, width) of those that can be read.
    value_range : (float, float) or None
        Of images of more than 8 bits; None where all have 8.
    depth : str
        How most of them store values, where that is more than 8 bits: "16 bit gray"; else empty.
    """

    sizes: tuple[tuple[int, int], ...]
    value_range: ValueRange | None = None
    depth: str = ""


def survey(paths: Sequence[Path], *, values: bool = True) -> Survey:
    """Look at some of the images, spread evenly over the set; those that are broken are left out.

    Parameters
    ----------
    paths : sequence of Path
        Image files.
    values : bool
        Whether a value range is learnt, where some have more than 8 bits: from up to 256 images.
    """
    sampled = spread(paths, _SAMPLE)
    found = [*zip(sampled, ordered_map(_header, sampled), strict=True)]
    headers = [header for _, header in found if header is not None]
    sizes = tuple(header.size for header in headers)
    deep = [header.mode for header in headers if header.is_deep]
    if 2 * len(deep) <= len(headers):  # the few others are errors when they are read
        return Survey(sizes)
    if not values:
        return Survey(sizes, None, deep[0])
    pixels = ordered_map(_pixels, dict.fromkeys([*sampled, *spread(paths, _VALUES_OF)]))
    learnt = learn_value_range(image for image in pixels if image is not None)
    return Survey(sizes, learnt, deep[0])


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most so many of the files, evenly over the set."""
    return list(paths[:: -(-len(paths) // count) or 1])


def _header(path: Path) -> Header | None:
    try:
        return stored_as(read_bytes(path))
    except (ImageError, PathError):
        return None


def _pixels(path: Path) -> Pixels | None:
    """Those of an image of more than 8 bits."""
    try:
        pixels, header = decode_with_header(read_bytes(path), path)
    except (ImageError, PathError):
        return None
    return pixels if header.is_deep else None


def of_pages(count: int) -> str:
    """What is said where files have several pages, of which only the first is looked at."""
    return f"{count} {'file has' if count == 1 else 'files have'} several pages. {_FIRST_PAGE}"
