"""A photograph as it was read: in full, or no larger than its model needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

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
from .values import ValueRange, as_values, learn_value_range

FIRST_PAGE = "The first is taken; stack.tif[1] in a list of files names the second."

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
    """

    name: str
    pixels: Pixels
    size: tuple[int, int]
    framing: Framing
    n_pages: int = 1
    data: bytes | None = None

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
        pixels = check_array(image, deep=framing.is_deep)
        height, width = pixels.shape[:2]
        return cls(name, pixels, (height, width), framing)

    @classmethod
    def of_picture(cls, image: Image, framing: Framing, name: str) -> Self:
        """A picture that was made of `picture`, uint8 (H, W, 3)."""
        height, width = image.shape[:2]
        return cls(name, as_values(image, framing.value_range), (height, width), framing)

    def views(self) -> Image:
        """What the model sees of it, see `Framing.views`; ImageError if that is nothing."""
        return self.framing.views(self.pixels, self.size, self.name)

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
        return self.framing.picture(pixels)


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
        How they store values: "16 bit gray"; empty where all have 8 bits.
    has_pages : bool
        Whether some files have several pages.
    """

    sizes: tuple[tuple[int, int], ...]
    value_range: ValueRange | None = None
    depth: str = ""
    has_pages: bool = False


def survey(paths: Sequence[Path], *, values: bool = True) -> Survey:
    """Look at some of the images, spread evenly over the set; those that are broken are left out.

    Parameters
    ----------
    paths : sequence of Path
        Image files.
    values : bool
        Whether a value range is learnt, where some have more than 8 bits: from up to 256 images.
    """
    headers = [one for one in ordered_map(_header, _spread(paths, _SAMPLE)) if one is not None]
    has_pages = any(header.n_pages > 1 for header in headers)
    sizes = tuple(header.size for header in headers)
    deep = next((header.mode for header in headers if header.is_deep), "")
    if not deep or not values:
        return Survey(sizes, None, deep, has_pages)
    found = ordered_map(_pixels, _spread(paths, _VALUES_OF))
    images = (pixels for pixels in found if pixels is not None)
    return Survey(sizes, learn_value_range(images), deep, has_pages)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    return list(paths[:: -(-len(paths) // count) or 1])


def _header(path: Path) -> Header | None:
    try:
        header = stored_as(read_bytes(path))
    except (ImageError, PathError):
        return None
    if header is not None and page_of(path)[1] is not None:
        return replace(header, n_pages=1)
    return header


def _pixels(path: Path) -> Pixels | None:
    """Those of an image of more than 8 bits."""
    try:
        pixels, header = decode_with_header(read_bytes(path), path)
    except (ImageError, PathError):
        return None
    return pixels if header.is_deep else None
