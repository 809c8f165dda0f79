"""WebP: decoded by OpenCV (libwebp)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .base import (
    Format,
    Header,
    Image,
    UnreadableError,
    damaged,
    opencv,
    orientation_in_exif,
    zeros,
)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, position and length of the content of each chunk."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    position = 12
    while position + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, position + 8, length
        position += 8 + length + length % 2


def header(data: bytes) -> Header:
    """See `base.Format`."""
    size, alpha, orientation = None, False, 1
    if data[8:12] != b"WEBP":
        raise ValueError("another RIFF file")
    for kind, at, length in _chunks(data):
        if kind == b"VP8X":
            flags = data[at]
            if flags & 0b10:
                raise UnreadableError(
                    "is an animated WebP, which is not read. Save each frame as an image."
                )
            alpha = bool(flags & 0b10000)
            width, height = (int.from_bytes(data[at + n : at + n + 3], "little") for n in (4, 7))
            size = height + 1, width + 1
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", data, at + 6)
            size = height & 0x3FFF, width & 0x3FFF
        elif kind == b"VP8L" and size is None:
            (bits,) = struct.unpack_from("<I", data, at + 1)
            size, alpha = ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1), bool(bits >> 28 & 1)
        elif kind == b"EXIF":
            orientation = orientation_in_exif(data[at : at + length].removeprefix(b"Exif\0\0"))
    if size is None:
        raise ValueError("no image")
    return Header(*size, f"8 bit colour{' with alpha' if alpha else ''}", orientation)


def is_lossy(data: bytes) -> bool:
    """Whether a WebP file is of the lossy kind."""
    return any(kind == b"VP8 " for kind, _, _ in _chunks(data))


def decode(data: bytes, header: Header) -> Image:
    """See `base.Format`."""
    for kind, at, length in _chunks(data):
        if kind in (b"VP8 ", b"VP8L"):
            if at + length > len(data):
                raise damaged("its end is missing")
            # An even picture has runs of zeros, too: black of 4 megapixels 5 % of its 7 kB.
            if found := zeros(data, max(64, length // 8), at, at + length):
                raise damaged(f"{found[1]} zero bytes in its middle")
    return opencv(data)


WEBP = Format("WebP", (".webp",), (b"RIFF",), header, decode)
