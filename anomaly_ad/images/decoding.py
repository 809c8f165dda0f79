"""A file, or its bytes -> RGB pixels as stored, turned as the camera noted; or an error."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ImageError, ImageTooLargeError, OptionError, PathError
from .formats import NAMES, Format, Header, Pixels, UnreadableError, damaged, format_of, turned

MAX_PIXELS = 200_000_000  # a 150-megapixel camera passes, a decompression bomb does not
# What reading values from other places than they are may raise.
_WRONG = (struct.error, IndexError, KeyError, ValueError, OverflowError)
MIN_SIDE = 16  # pixels; less is not a photograph of a part

PathLike = str | os.PathLike[str]

_PAGE = re.compile(r"(.+\.tiff?)\[(\d{1,6})\]", re.IGNORECASE | re.DOTALL)


def check_path(path: Any, name: str) -> Path:
    """A path as `Path`; OptionError names the argument if it is something else, or empty."""
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"{name} is a path. Received: {path!r}.")
    if not os.fspath(path):
        raise OptionError(f"{name} is a path, and this one is empty; '.' is the current folder.")
    return Path(path)


def read_image(path: PathLike) -> Pixels:
    """Read an image file as RGB, as it is stored.

    JPEG, PNG, BMP, TIFF, WebP, JPEG 2000, PGM and PPM are read; the format is taken from the
    content, not the name. The orientation that a camera noted (EXIF) is applied. Gray becomes three
    equal channels, a palette is resolved, an alpha channel is ignored. PNG, TIFF, JPEG 2000 and
    PGM of more than 8 bits keep their values. The number of pixels is read from the header and
    checked before anything is decoded.

    Damage is an error where the file shows it: what is cut off, checksums that are wrong, data
    that do not add up, holes of zeros. docs/data.md says what cannot be seen.

    Parameters
    ----------
    path : path
        Of a TIFF of several pages the first is read; ``stack.tif[1]`` is the second.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB. Of more than 8 bits: uint16, or float32 for signed values, 32 bits and floats, and
        gray ones have the shape (H, W).

    Raises
    ------
    PathError
        There is no such file, or it may not be read.
    ImageError
        The file is not an image of these formats, is damaged or cut off, is smaller than
        `MIN_SIDE` pixels, or has more than `MAX_PIXELS`; or values are not finite.
    """
    return decode_image(read_bytes(path), path)


def decode_image(data: bytes, name: object, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file; see `decode_with_header`."""
    return decode_with_header(data, name, max_pixels)[0]


def decode_with_header(
    data: bytes,
    name: object,
    max_pixels: int = MAX_PIXELS,
    enough: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> tuple[Pixels, Header]:
    """Decode the bytes of an image file, as `read_image` does, and what its header says.

    Parameters
    ----------
    data : bytes
        The whole file. What follows the end of the image in it is ignored.
    name : object
        What messages call it.
    max_pixels : int
        More are not decoded.
    enough : callable, optional
        (height, width) of the picture -> those that will do: a format that can reduces the picture
        while it decodes, by a half, a fourth or an eighth, to no less than that.

    Raises
    ------
    ImageError
        As `read_image`; an `ImageTooLargeError` for more than `max_pixels`.
    """
    found, header = open_header(data, name, max_pixels)
    divisor = 1 if enough is None else _divisor(found, header.size, enough(header.size))
    try:
        reduced = () if divisor == 1 else (divisor,)
        image = found.decode(data, header, *reduced)
    except (UnreadableError, *_WRONG) as error:
        raise _unreadable(name, error) from None
    size = (-(-header.height // divisor), -(-header.width // divisor))
    if image.shape[:2] != size or image.shape[2:] not in ((), (3,)):
        # It was decoded from another place.
        raise _unreadable(name, damaged("its header and its pixels disagree on the size"))
    return turned(image, header.orientation), header


def _divisor(found: Format, size: tuple[int, int], enough: tuple[int, int]) -> int:
    """By how much a picture is reduced while it is decoded."""
    for divisor in found.divisors:
        if all(side // divisor >= least for side, least in zip(size, enough, strict=True)):
            return divisor
    return 1


def open_header(data: bytes, name: object, max_pixels: int = MAX_PIXELS) -> tuple[Format, Header]:
    """The format of a file and what its header says; errors as `decode_image`."""
    found = format_of(data)
    if found is not None:
        try:
            header = found.header(data)
        except UnreadableError as error:
            raise _unreadable(name, error) from None
        except _WRONG:
            pass
        else:
            check_size((header.height, header.width), name, max_pixels)
            if header.height * header.width * header.bytes_a_pixel > 3 * max_pixels:
                raise ImageTooLargeError(
                    f"{name} says it has {header.width}x{header.height} pixels of "
                    f"{header.bytes_a_pixel} bytes; at most {3 * max_pixels:,} bytes are decoded. "
                    "Crop or shrink it first, or save it with fewer bits."
                )
            return found, header
    kind = "is empty" if not data else f"is not an image that can be read ({NAMES})"
    raise ImageError(f"{name}: the file {kind}. Replace it, or leave it out.")


def _unreadable(name: object, error: Exception) -> ImageError:
    if isinstance(error, UnreadableError):
        return ImageError(f"{name}: {error}")
    return _unreadable(name, damaged())


def stored_as(data: bytes) -> Header | None:
    """What the header of an image file says; None for what is not read."""
    try:
        return open_header(data, "")[1]
    except ImageError:
        return None


def page_of(path: PathLike) -> tuple[Path, int | None]:
    """The file that a path names, and the page in it: ``stack.tif[1]`` is the second of a TIFF.

    None for a path without a page, and for a file that is really called so.
    """
    file = check_path(path, "An image file")
    found = _PAGE.fullmatch(str(file))
    if found is None or os.path.lexists(file):
        return file, None
    return Path(found[1]), int(found[2])


def read_bytes(path: PathLike) -> bytes:
    """A file's content, from its page on if one is named.

    PathError if it cannot be had, ImageError if there is no such page.
    """
    file, page = page_of(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise PathError(f"{path}: there is no such file. Check the path.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PathError(
            f"{path}: the file cannot be read ({reason}). Check that it is a file and that you "
            "may read it."
        ) from error
    except ValueError as error:  # a path with a null byte
        raise PathError(f"{path!r} is not a path: {error}.") from error
    return data if page is None else _from_page(data, page, path)


def _from_page(data: bytes, page: int, name: PathLike) -> bytes:
    found = format_of(data)
    if found is None or found.page is None:
        raise ImageError(f"{name}: only a TIFF has pages. Name the file alone.")
    try:
        return found.page(data, page)
    except (UnreadableError, *_WRONG) as error:
        raise _unreadable(name, error) from None


def check_size(size: tuple[int, ...], name: object, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageError for an image of (height, width) that is too large or too small."""
    height, width = size
    if height * width > max_pixels:
        raise ImageTooLargeError(
            f"{name} says it has {width}x{height} pixels; at most {max_pixels:,} are decoded. "
            "Crop or shrink it first."
        )
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{name} has {width}x{height} pixels; at least {MIN_SIDE} on each side are needed."
        )
