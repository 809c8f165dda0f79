"""BMP: decoded by OpenCV, which takes no notice of the masks that say where the colours lie."""

from __future__ import annotations

import struct

import numpy as np

from .base import Format, Header, Image, UnreadableError, opencv, refuse_blank_tail

_RGB, _RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 1, 2, 3, 6
_READ = (_RGB, _RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS)
_OF_16_BIT = ((0x7C00, 0x03E0, 0x001F), (0xF800, 0x07E0, 0x001F))
_BYTES = {0x0000FF: 0, 0x00FF00: 1, 0xFF0000: 2}  # masks of a pixel's bytes that OpenCV keeps


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
    order = _order(data, bits) if compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) else None
    image = opencv(data)
    if compression not in (_RLE8, _RLE4):
        refuse_blank_tail(image if height < 0 else image[::-1])
    return image if order is None else np.ascontiguousarray(image[..., order])


def _order(data: bytes, bits: int) -> list[int] | None:
    """The channels of what OpenCV decodes that are red, green and blue; None if all are right."""
    masks = struct.unpack_from("<III", data, 54)
    if bits == 32 and set(masks) == set(_BYTES):
        # OpenCV takes byte 2 for red, 1 for green and 0 for blue.
        order = [2 - _BYTES[mask] for mask in masks]
        return None if order == [0, 1, 2] else order
    if bits == 16 and masks in _OF_16_BIT:
        return None
    listed = ", ".join(f"{mask:08X}" for mask in masks)
    raise UnreadableError(
        f"is a BMP of {bits} bits with the colour masks {listed}, which is not read. Save it as "
        "PNG, or as BMP of 24 bits."
    )


BMP = Format("BMP", (".bmp", ".dib"), (b"BM",), header, decode)
