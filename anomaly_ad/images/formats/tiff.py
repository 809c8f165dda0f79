"""TIFF and BigTIFF, decoded by OpenCV (libtiff). Kinds that it gets wrong are refused by name."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np

from .base import (
    Format,
    Header,
    Pixels,
    UnreadableError,
    damaged,
    opencv,
    refuse_blank_tail,
    without_alpha,
    zeros,
)

_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAX_PAGES = 10_000
_MAX_VALUES = 100_000  # strips or tiles of an image
_MAX_READ = 500_000  # entries and values of all directories: more would keep a thread busy
_PIECE = 2**20  # bytes that are inflated at a time
_LARGEST_TILE = 1024  # pixels by which tiles may reach beyond the image

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_BYTES, _SUBFILE = 273, 277, 279, 254
_TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT = 324, 325, 338, 339
_ORIENTATION, _PLANAR, _FILL_ORDER = 274, 284, 266
_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_READ = {_NONE, 2, 3, 4, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS}
_READ_DEEP = {_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS}
_COMPRESSIONS = {6: "old JPEG", _JPEG: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA"}
_COMPRESSIONS |= {50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"}
_WHITE_IS_0, _BLACK_IS_0, _RGB = 0, 1, 2
_COLOURS = {_WHITE_IS_0: "gray", _BLACK_IS_0: "gray", _RGB: "colour", 3: "palette", 5: "CMYK"}
_COLOURS |= {6: "colour"}
# Of a pixel, without those that are named as something else; some programs do not name alpha.
_CHANNELS = {_WHITE_IS_0: (1,), _BLACK_IS_0: (1,), _RGB: (3, 4), 3: (1,), 5: (4,), 6: (3,)}
_SIGNED, _FLOAT = 2, 3
_UNSIGNED = {10, 12, 14, 16} | ({32} if int(cv2.__version__.partition(".")[0]) >= 5 else set())
_KINDS = {_SIGNED: "signed ", _FLOAT: "float ", 5: "complex ", 6: "complex "}
_HOLE = {4: 64, _LZW: 64, _JPEG: 256, _PACKBITS: 300}  # zero bytes in a row that no encoder writes

_KNOWN = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES, _STRIP_BYTES}
_KNOWN |= {_SUBFILE, _TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT, _ORIENTATION, _PLANAR}
_KNOWN |= {_FILL_ORDER}

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class _Layout:
    """How numbers and directories are stored: byte order, and 64 bits where it is a BigTIFF."""

    order: str
    is_big: bool

    @classmethod
    def of(cls, data: bytes) -> Self:
        order = "<" if data.startswith(b"II") else ">"
        return cls(order, data[2:4] in (b"+\0", b"\0+"))

    @property
    def pointer(self) -> str:
        return f"{self.order}{'Q' if self.is_big else 'I'}"

    @property
    def first(self) -> int:
        """Where the pointer to the first directory lies."""
        return 8 if self.is_big else 4

    def pages(self, data: bytes) -> Iterator[tuple[int, Tags]]:
        """Place and tags of each directory."""
        left = _MAX_READ
        number, entry = ("Q", "HHQ") if self.is_big else ("H", "HHI")
        head, size = struct.calcsize(f"<{number}"), 20 if self.is_big else 12
        seen: set[int] = set()
        (start,) = struct.unpack_from(self.pointer, data, self.first)
        while start and start not in seen:
            seen.add(start)
            (count,) = struct.unpack_from(f"{self.order}{number}", data, start)
            left -= count
            if left < 0 or len(seen) > _MAX_PAGES:
                raise damaged("its directories have no end")
            end = start + head + size * count
            tags: Tags = {}
            for tag, values in self._entries(data, range(start + head, end, size), entry, left):
                tags[tag] = values
                left -= len(values)
            yield start, tags
            (start,) = struct.unpack_from(self.pointer, data, end)

    def _entries(
        self, data: bytes, places: range, entry: str, left: int
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The tags that are needed here, with their values, of which at most `left` are read."""
        inline = struct.calcsize(self.pointer)
        for at in places:
            tag, kind, number = struct.unpack_from(f"{self.order}{entry}", data, at)
            letter = _LETTERS.get(kind)
            if tag not in _KNOWN or letter is None or not 0 < number <= _MAX_VALUES:
                continue
            left -= number
            if left < 0:
                raise damaged("its directories have no end")
            place = at + struct.calcsize(f"<{entry}")
            if number * struct.calcsize(letter) > inline:
                (place,) = struct.unpack_from(self.pointer, data, place)
            yield tag, struct.unpack_from(f"{self.order}{number}{letter}", data, place)


def _first_page(data: bytes) -> tuple[Tags, Iterator[tuple[int, Tags]]]:
    """The tags of the first page, which is decoded; and the pages that follow, read as drawn."""
    pages = _Layout.of(data).pages(data)
    _, first = next(pages, (0, Tags()))
    if not {_WIDTH, _HEIGHT, _PHOTOMETRIC} <= first.keys():
        raise damaged("its directory is missing")
    if _is_reduced(first):
        raise UnreadableError(
            "is a TIFF that begins with a reduced image or a mask, which is not read. Name its "
            "first page, with [0] behind the name of the file in a list of files."
        )
    return first, pages


def _is_reduced(tags: Tags) -> bool:
    return bool(tags.get(_SUBFILE, (0,))[0] & 0b101)


def page(data: bytes, number: int) -> bytes:
    """See `base.Format`."""
    layout = _Layout.of(data)
    places = [place for place, tags in layout.pages(data) if not _is_reduced(tags)]
    if number >= len(places):
        raise UnreadableError(
            f"there is no page {number}: it has {len(places)} "
            f"{'page' if len(places) == 1 else 'pages'}, counted from 0."
        )
    pointer = struct.pack(layout.pointer, places[number])
    return b"".join([data[: layout.first], pointer, data[layout.first + len(pointer) :]])


def _is_deep(tags: Tags) -> bool:
    """Whether pixels have more than 8 bits."""
    return max(tags.get(_BITS, (1,))) > 8 or tags.get(_SAMPLE_FORMAT, (1,))[0] in _KINDS


def header(data: bytes) -> Header:
    """See `base.Format`."""
    tags, others = _first_page(data)
    n_pages = 1 + sum(not _is_reduced(other) for _, other in others)
    bits, channels = tags.get(_BITS, (1,)), tags.get(_SAMPLES, (1,))[0]
    colour = tags[_PHOTOMETRIC][0]
    compression = tags.get(_COMPRESSION, (1,))[0]
    is_apart = tags.get(_PLANAR, (1,))[0] != 1 and channels > 1
    if colour not in _COLOURS:
        raise _not_read(f"a TIFF of the photometric interpretation {colour}")
    if compression not in _READ:
        named = _COMPRESSIONS.get(compression, f"compression {compression}")
        raise _not_read(f"a TIFF with {named} inside")
    if compression == _NONE and (_STRIPS not in tags or is_apart):  # damage could not be seen
        raise _not_read("a TIFF without compression in tiles, or with each channel apart")
    alpha = " with alpha" if tags.get(_EXTRA) else ""
    if channels - len(tags.get(_EXTRA, ())) not in _CHANNELS[colour]:
        raise _not_read(f"a {_COLOURS[colour]} TIFF of {channels} channels")
    if _is_deep(tags):
        _check_deep(tags, is_apart=is_apart)
    kind = _KINDS.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "")
    mode = f"{kind}{max(bits)} bit {_COLOURS[colour]}{alpha}"
    height, width = tags[_HEIGHT][0], tags[_WIDTH][0]
    orientation = tags.get(_ORIENTATION, (1,))[0]
    # OpenCV turns a TIFF by its note itself, whatever it is asked.
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    return Header(*size, mode, n_pages=n_pages, bytes_a_pixel=_bytes_a_pixel(tags))


def _bytes_a_pixel(tags: Tags) -> int:
    """In memory; doubles are there twice, as they are and as float32."""
    bits, channels = max(tags.get(_BITS, (1,))), tags.get(_SAMPLES, (1,))[0]
    return max(3, channels * (-(-bits // 8) if bits <= 32 else 12))


def _check_deep(tags: Tags, *, is_apart: bool) -> None:
    """Refuse pixels of more than 8 bits that OpenCV does not give as they are stored."""
    bits, kind = set(tags.get(_BITS, (1,))), tags.get(_SAMPLE_FORMAT, (1,))[0]
    colour, compression = tags[_PHOTOMETRIC][0], tags.get(_COMPRESSION, (1,))[0]
    depth = f"{_KINDS.get(kind, '')}{max(bits)} bits"
    readable = {_SIGNED: {16, 32}, _FLOAT: {32, 64}}.get(kind, _UNSIGNED)
    if len(bits) > 1 or not bits <= readable or kind in (5, 6):
        raise _not_read(f"a TIFF of {depth}")
    if colour not in (_WHITE_IS_0, _BLACK_IS_0, _RGB):
        raise _not_read(f"a {_COLOURS[colour]} TIFF of {depth}")
    if colour == _WHITE_IS_0 and (kind in _KINDS or max(bits) > 16):
        raise _not_read(f"a TIFF of {depth} whose white is 0")
    if compression not in _READ_DEEP:
        named = _COMPRESSIONS.get(compression, f"compression {compression}")
        raise _not_read(f"a TIFF of {depth} with {named} inside")
    if is_apart:
        raise _not_read(f"a TIFF of {depth} with each channel apart")
    n_extra = len(tags.get(_EXTRA, ()))
    if n_extra > 1 or (n_extra and (colour != _RGB or max(bits) != 16)):
        further = "a further channel" if n_extra == 1 else f"{n_extra} further channels"
        raise _not_read(f"a TIFF of {depth} with {further}")


def _not_read(what: str) -> UnreadableError:
    return UnreadableError(
        f"is {what}, which is not read. Save it with 8 or 16 bits a channel as PNG, or as TIFF "
        "with the channels of a pixel together; all images with the same scale."
    )


def decode(data: bytes, header: Header) -> Pixels:
    """See `base.Format`."""
    tags, _ = _first_page(data)
    compression = tags.get(_COMPRESSION, (1,))[0]
    starts = tags.get(_STRIPS) or tags.get(_TILES, ())
    sizes = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES, ())
    if not starts or len(starts) != len(sizes):
        raise damaged("it has no strips")
    if sum(sizes) > len(data):
        raise damaged("its strips overlap")
    # Bytes of the whole image, the last row and column of tiles included.
    padded = (header.height + _LARGEST_TILE) * (header.width + _LARGEST_TILE)
    left = (header.bytes_a_pixel + 1) * padded
    for start, size in zip(starts, sizes, strict=True):
        if not size or len(data) - start < size:
            raise damaged("a strip lies outside the file")
        if compression != _NONE:
            left -= _check_strip(data[start : start + size], compression, left)
    image = _deep_pixels(data, tags) if _is_deep(tags) else _pixels(data, tags)
    if compression == _NONE and _STRIPS in tags and len(tags.get(_BITS, (1,))) in (1, 3):
        refuse_blank_tail(image)
    return image


def _check_strip(strip: bytes, compression: int, left: int) -> int:
    """Refuse a strip that is damaged, or inflates to more than so many bytes; how many they are."""
    if compression in _HOLE and zeros(strip, _HOLE[compression]):
        raise damaged("a strip has zeros in its middle")
    if compression in (_DEFLATE, _OLD_DEFLATE):
        inflate, count = zlib.decompressobj(), 0
        try:
            while not inflate.eof and count <= left:
                piece = len(inflate.decompress(strip, _PIECE))
                strip = inflate.unconsumed_tail
                count += piece
                if not piece and not strip:
                    break
        except zlib.error as error:
            raise damaged(f"a strip: {error}") from error
        if not inflate.eof:
            raise damaged("a strip does not end where it should")
        return count
    return 0


def _pixels(data: bytes, tags: Tags) -> Pixels:
    if not tags.get(_EXTRA) or tags[_PHOTOMETRIC][0] != _RGB:
        return opencv(data)
    # OpenCV multiplies colours by the alpha channel, so that those of some pixels are lost.
    image: Any = opencv(data, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.shape[2] == 4:
        if (image[..., 3] < 255).any():
            raise _not_read("a TIFF with transparent pixels")
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _deep_pixels(data: bytes, tags: Tags) -> Pixels:
    """As stored; OpenCV shifts values of 10, 12 and 14 bits up, and leaves white as it is."""
    (bits,) = set(tags.get(_BITS, (1,)))
    image = _in_place(data, tags)
    if image is not None:
        return image
    stored: Any = opencv(data, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 3 and stored.shape[2] == 4 and (stored[..., 3] < 2**bits - 1).any():
        raise _not_read("a TIFF with transparent pixels")
    image = without_alpha(stored)
    if bits < 16:
        image >>= 16 - bits
    if tags[_PHOTOMETRIC][0] == _WHITE_IS_0:
        np.subtract(2**bits - 1, image, out=image)
    return image


def _in_place(data: bytes, tags: Tags) -> Pixels | None:
    """Pixels where they lie in the file, which costs nothing; None where that cannot be.

    That is how cameras' programs write them: 16 bits, without compression, strip after strip.
    """
    starts, sizes = tags.get(_STRIPS, ()), tags.get(_STRIP_BYTES, ())
    channels = tags.get(_SAMPLES, (1,))[0]
    shape = (tags[_HEIGHT][0], tags[_WIDTH][0], channels)[: 2 + (channels > 1)]
    count = math.prod(shape)
    is_plain = (
        set(tags.get(_BITS, (1,))) == {16}
        and tags.get(_SAMPLE_FORMAT, (1,))[0] not in _KINDS
        and tags.get(_COMPRESSION, (1,))[0] == _NONE
        and tags.get(_ORIENTATION, (1,))[0] == 1
        and tags.get(_FILL_ORDER, (1,))[0] == 1
        and (tags[_PHOTOMETRIC][0], channels) in ((_BLACK_IS_0, 1), (_RGB, 3))
    )
    follow = all(a + n == b for a, n, b in zip(starts, sizes, starts[1:], strict=False))
    if not is_plain or not follow or sum(sizes) != 2 * count:
        return None
    kind = np.dtype(f"{_Layout.of(data).order}u2")
    if not kind.isnative:
        return None
    return np.frombuffer(data, kind, count, starts[0]).reshape(shape)


TIFF = Format(
    "TIFF",
    (".tif", ".tiff"),
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    header,
    decode,
    page=page,
)
