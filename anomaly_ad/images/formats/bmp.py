"""BMP: decoded by OpenCV, but for 32 bits with masks that say where the colours lie."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from .base import (
    Format,
    Header,
    Image,
    UnreadableError,
    damaged,
    opencv,
    refuse_blank_tail,
)

_RGB, _RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 1, 2, 3, 6
_READ = (_RGB, _RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS)
_OF_16_BIT = ((0x7C00, 0x03E0, 0x001F), (0xF800, 0x07E0, 0x001F))


def _fields(data: bytes) -> tuple[int, int, int, int]:
    """Width, height (negative: rows from the top), bits of a pixel, compression."""
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return width, height, bits, _RGB
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    return width, height, bits, compression


def header(data: bytes) -> Header:
    """See `base.Format`."""
    width, height, bits, compression = _fields(data)
    if compression not in _READ:
        raise UnreadableError(
            f"is a BMP of compression {compression}, which is not read. Save it as PNG."
        )
    kind = "palette" if bits <= 8 else "colour with alpha" if bits == 32 else "colour"
    return Header(abs(height), abs(width), f"8 bit {kind}")


def decode(data: bytes, header: Header) -> Image:
    """See `base.Format`."""
    _, height, bits, compression = _fields(data)
    if compression in (_RLE8, _RLE4):
        return opencv(data)
    if bits not in (8, 16, 24, 32):
        return opencv(data)
    stored = _stored(data, header, bits)
    refuse_blank_tail(stored)
    if compression not in (_BIT_FIELDS, _ALPHA_BIT_FIELDS):
        return opencv(data)
    order = _order(data, bits)
    if order is None:
        return opencv(data)
    return np.ascontiguousarray((stored if height < 0 else stored[::-1])[..., order])


def _stored(data: bytes, header: Header, bits: int) -> NDArray[np.uint8]:
    """The bytes of each pixel, rows as they are stored."""
    start, width = struct.unpack_from("<I", data, 10)[0], header.width * bits // 8
    stride = -(-width // 4) * 4
    size = stride * (header.height - 1) + width  # some programs leave the last padding out
    if len(data) < start + size:
        raise damaged("its end is missing")
    rows = np.zeros(stride * header.height, np.uint8)
    rows[:size] = np.frombuffer(data, np.uint8, size, start)
    pixels: NDArray[np.uint8] = rows.reshape(header.height, stride)[:, :width]
    return pixels.reshape(header.height, header.width, bits // 8)


def _order(data: bytes, bits: int) -> list[int] | None:
    """The bytes of a pixel that are red, green and blue; None for 16 bits as OpenCV reads them."""
    masks = struct.unpack_from("<III", data, 54)
    places = [mask.bit_length() // 8 - 1 for mask in masks]
    if bits == 32 and all(m == 0xFF << 8 * n for m, n in zip(masks, places, strict=True)):
        return places
    if bits == 16 and masks in _OF_16_BIT:
        return None
    listed = ", ".join(f"{mask:08X}" for mask in masks)
    raise UnreadableError(
        f"is a BMP of {bits} bits with the colour masks {listed}, which is not read. Save it as "
        "PNG, or as BMP of 24 bits."
    )


BMP = Format("BMP", (".bmp", ".dib"), (b"BM",), header, decode)
