"""TIFF: one page of 8 bits a channel, decoded by OpenCV (libtiff). Other kinds are named."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2

from .base import Format, Header, Image, UnreadableError, damaged, opencv, refuse_blank_tail, zeros

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I"}
_MAX_PAGES = 10_000
_MAX_VALUES = 1_000_000  # strips or tiles of an image

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_BYTES, _SUBFILE = 273, 277, 279, 254
_TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT = 324, 325, 338, 339
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_READ = {_NONE, 2, 3, 4, _LZW, 7, _DEFLATE, _OLD_DEFLATE, _PACKBITS}
_COLOURS = {0: "gray", 1: "gray", 2: "colour", 3: "palette", 5: "CMYK", 6: "colour"}
_HOLE = {_LZW: 64, _DEFLATE: 64, _OLD_DEFLATE: 64, _PACKBITS: 300}

Tags = dict[int, tuple[int, ...]]


def _pages(data: bytes) -> Iterator[Tags]:
    order = "<" if data.startswith(b"II") else ">"
    seen: set[int] = set()
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    while start and start not in seen and len(seen) < _MAX_PAGES:
        seen.add(start)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        yield {
            tag: values
            for tag, values in (_entry(data, order, start + 2 + 12 * n) for n in range(count))
            if values
        }
        (start,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)


def _entry(data: bytes, order: str, at: int) -> tuple[int, tuple[int, ...]]:
    tag, kind, count = struct.unpack_from(f"{order}HHI", data, at)
    letter = _LETTERS.get(kind)
    if letter is None or count > _MAX_VALUES:
        return tag, ()
    place = at + 8
    if count * _SIZES[kind] > 4:
        (place,) = struct.unpack_from(f"{order}I", data, place)
    return tag, struct.unpack_from(f"{order}{count}{letter}", data, place)


def _photographs(data: bytes) -> list[Tags]:
    """The pages that are images of their own, not reduced ones or masks of others."""
    return [tags for tags in _pages(data) if not tags.get(_SUBFILE, (0,))[0] & 0b101]


def header(data: bytes) -> Header:
    """See `base.Format`."""
    if data[2:4] in (b"+\0", b"\0+"):
        raise _not_read("a BigTIFF")
    pages = _photographs(data)
    if not pages:
        raise ValueError("no page")
    if len(pages) > 1:
        raise UnreadableError(
            f"is a TIFF of {len(pages)} pages, which is not read. Save each page as an image of "
            "its own."
        )
    tags = pages[0]
    if not {_WIDTH, _HEIGHT, _PHOTOMETRIC} <= tags.keys():
        raise damaged("its directory is missing")
    bits, channels = tags.get(_BITS, (1,)), tags.get(_SAMPLES, (1,))[0]
    kind = {2: "signed ", 3: "float "}.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "")
    colour = tags[_PHOTOMETRIC][0]
    if kind or max(bits) > 8:
        raise _not_read(f"a TIFF of {kind}{max(bits)} bits")
    if colour not in _COLOURS:
        raise _not_read(f"a TIFF of the photometric interpretation {colour}")
    if (compression := tags.get(_COMPRESSION, (1,))[0]) not in _READ:
        raise _not_read(f"a TIFF of compression {compression}")
    alpha = " with alpha" if tags.get(_EXTRA) else ""
    if channels - len(tags.get(_EXTRA, ())) not in (1, 3, 4):
        raise _not_read(f"a TIFF of {channels} channels")
    mode = f"{max(bits)} bit {_COLOURS[colour]}{alpha}"
    # OpenCV turns a TIFF by its note itself, whatever it is asked.
    return Header(tags[_HEIGHT][0], tags[_WIDTH][0], mode)


def _not_read(what: str) -> UnreadableError:
    return UnreadableError(
        f"is {what}, which is not read. Save it with 8 bits a channel as TIFF or PNG, all images "
        "with the same scale."
    )


def decode(data: bytes, header: Header) -> Image:
    """See `base.Format`."""
    tags = _photographs(data)[0]
    compression = tags.get(_COMPRESSION, (1,))[0]
    starts = tags.get(_STRIPS) or tags.get(_TILES, ())
    sizes = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES, ())
    if not starts or len(starts) != len(sizes):
        raise damaged("it has no strips")
    for start, size in zip(starts, sizes, strict=True):
        _check_strip(data[start : start + size], size, compression)
    image = _pixels(data, tags)
    if compression == _NONE and _STRIPS in tags and len(tags.get(_BITS, (1,))) in (1, 3):
        refuse_blank_tail(image)
    return image


def _check_strip(strip: bytes, size: int, compression: int) -> None:
    if not size or len(strip) < size:
        raise damaged("a strip lies outside the file")
    if compression in _HOLE and zeros(strip, _HOLE[compression]):
        raise damaged("a strip has zeros in its middle")
    if compression in (_DEFLATE, _OLD_DEFLATE):
        try:
            zlib.decompress(strip)
        except zlib.error as error:
            raise damaged(f"a strip: {error}") from error


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
