"""TIFF: one page of 8 bits a channel, decoded by OpenCV (libtiff). Other kinds are named."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2

from .base import (
    Format,
    Header,
    Image,
    UnreadableError,
    damaged,
    opencv,
    refuse_blank_tail,
    zeros,
)

_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I"}
_MAX_PAGES = 100
_MAX_VALUES = 1_000_000  # strips or tiles of an image

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_BYTES, _SUBFILE = 273, 277, 279, 254
_TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT = 324, 325, 338, 339
_ORIENTATION, _PLANAR = 274, 284
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_READ = {_NONE, 2, 3, 4, _LZW, 7, _DEFLATE, _OLD_DEFLATE, _PACKBITS}
_COLOURS = {0: "gray", 1: "gray", 2: "colour", 3: "palette", 5: "CMYK", 6: "colour"}
_HOLE = {4: 64, _LZW: 64, 7: 256, _PACKBITS: 300}  # zero bytes in a row that no encoder writes

_KNOWN = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES, _STRIP_BYTES}
_KNOWN |= {_SUBFILE, _TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT, _ORIENTATION, _PLANAR}

Tags = dict[int, tuple[int, ...]]


def _pages(data: bytes) -> Iterator[Tags]:
    order = "<" if data.startswith(b"II") else ">"
    seen: set[int] = set()
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    while start and start not in seen and len(seen) < _MAX_PAGES:
        seen.add(start)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        yield dict(_entries(data, order, start + 2, count))
        (start,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)


def _entries(
    data: bytes, order: str, start: int, count: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The tags that are needed here, with their values."""
    for at in range(start, start + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, at)
        letter = _LETTERS.get(kind)
        if tag not in _KNOWN or letter is None or not 0 < number <= _MAX_VALUES:
            continue
        place = at + 8
        if number * struct.calcsize(letter) > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        yield tag, struct.unpack_from(f"{order}{number}{letter}", data, place)


def _page(data: bytes) -> Tags:
    """The tags of the first page, which is decoded; it must be the only photograph."""
    pages = _pages(data)
    first = next(pages)
    if not {_WIDTH, _HEIGHT, _PHOTOMETRIC} <= first.keys():
        raise damaged("its directory is missing")
    if _is_reduced(first):
        raise _not_read("a TIFF that begins with a reduced image or a mask")
    if not all(_is_reduced(tags) for tags in pages):
        raise UnreadableError(
            "is a TIFF of several pages, which is not read. Save each page as an image of its own."
        )
    return first


def _is_reduced(tags: Tags) -> bool:
    return bool(tags.get(_SUBFILE, (0,))[0] & 0b101)


def header(data: bytes) -> Header:
    """See `base.Format`."""
    if data[2:4] in (b"+\0", b"\0+"):
        raise _not_read("a BigTIFF")
    tags = _page(data)
    bits, channels = tags.get(_BITS, (1,)), tags.get(_SAMPLES, (1,))[0]
    kind = {2: "signed ", 3: "float "}.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "")
    colour = tags[_PHOTOMETRIC][0]
    compression = tags.get(_COMPRESSION, (1,))[0]
    is_plain = _STRIPS in tags and tags.get(_PLANAR, (1,))[0] == 1
    if kind or max(bits) > 8:
        raise _not_read(f"a TIFF of {kind}{max(bits)} bits")
    if colour not in _COLOURS:
        raise _not_read(f"a TIFF of the photometric interpretation {colour}")
    if compression not in _READ:
        raise _not_read(f"a TIFF of compression {compression}")
    if compression == _NONE and not is_plain:  # damage to it could not be seen
        raise _not_read("a TIFF without compression in tiles, or with each channel apart")
    alpha = " with alpha" if tags.get(_EXTRA) else ""
    if channels - len(tags.get(_EXTRA, ())) not in (1, 3, 4):
        raise _not_read(f"a TIFF of {channels} channels")
    mode = f"{max(bits)} bit {_COLOURS[colour]}{alpha}"
    height, width = tags[_HEIGHT][0], tags[_WIDTH][0]
    # OpenCV turns a TIFF by its note itself, whatever it is asked.
    is_turned = tags.get(_ORIENTATION, (1,))[0] in (5, 6, 7, 8)
    return Header(width, height, mode) if is_turned else Header(height, width, mode)


def _not_read(what: str) -> UnreadableError:
    return UnreadableError(
        f"is {what}, which is not read. Save it with 8 bits a channel as TIFF or PNG, all images "
        "with the same scale."
    )


def decode(data: bytes, header: Header) -> Image:
    """See `base.Format`."""
    tags = _page(data)
    compression = tags.get(_COMPRESSION, (1,))[0]
    starts = tags.get(_STRIPS) or tags.get(_TILES, ())
    sizes = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES, ())
    if not starts or len(starts) != len(sizes):
        raise damaged("it has no strips")
    largest = 4 * (header.height + 1) * (header.width + 1) + 4096  # bytes of the whole image
    for start, size in zip(starts, sizes, strict=True):
        _check_strip(data[start : start + size], size, compression, largest)
    image = _pixels(data, tags)
    if compression == _NONE and _STRIPS in tags and len(tags.get(_BITS, (1,))) in (1, 3):
        refuse_blank_tail(image)
    return image


def _check_strip(strip: bytes, size: int, compression: int, largest: int) -> None:
    if not size or len(strip) < size:
        raise damaged("a strip lies outside the file")
    if compression in _HOLE and zeros(strip, _HOLE[compression]):
        raise damaged("a strip has zeros in its middle")
    if compression in (_DEFLATE, _OLD_DEFLATE):
        inflate = zlib.decompressobj()
        try:
            inflate.decompress(strip, largest)
        except zlib.error as error:
            raise damaged(f"a strip: {error}") from error
        if not inflate.eof:
            raise damaged("a strip does not end where it should")


def _pixels(data: bytes, tags: Tags) -> Image:
    if not tags.get(_EXTRA) or tags[_PHOTOMETRIC][0] != 2:
        return opencv(data)
    # OpenCV multiplies colours by the alpha channel, so that those of some pixels are lost.
    image: Any = opencv(data, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.shape[2] == 4:
        if (image[..., 3] < 255).any():
            raise _not_read("a TIFF with transparent pixels")
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


TIFF = Format("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), header, decode)
