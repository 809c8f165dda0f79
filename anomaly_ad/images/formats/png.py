"""PNG: its chunks carry checksums, and libspng decodes it in half of OpenCV's time.

What pyspng decodes is the same to the bit (tests/images/test_formats.py compares).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pyspng

from .base import (
    Format,
    Header,
    Pixels,
    UnreadableError,
    damaged,
    opencv,
    opencv_deep,
    orientation_in_exif,
)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = {0: "gray", 2: "colour", 3: "palette", 4: "gray with alpha", 6: "colour with alpha"}


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, position and length of the content of each chunk, up to the end of the image."""
    position = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, length
        position += 12 + length


def header(data: bytes) -> Header:
    """See `base.Format`."""
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    orientation = 1
    try:
        for kind, position, length in _chunks(data):
            if kind == b"eXIf":
                orientation = orientation_in_exif(data[position : position + length])
    except struct.error:
        pass  # `decode` says what is missing
    mode = f"{bits} bit {_KINDS.get(colour, 'unknown')}"
    deep = {0: 3, 2: 6}.get(colour, 8)
    return Header(height, width, mode, orientation, bytes_a_pixel=deep if bits == 16 else 3)


def decode(data: bytes, header: Header) -> Pixels:
    """See `base.Format`."""
    try:
        for kind, position, length in _chunks(data):
            checksum = struct.unpack_from(">I", data, position + length)[0]
            if zlib.crc32(memoryview(data)[position - 4 : position + length]) != checksum:
                raise damaged(f"the checksum of chunk {kind.decode('latin-1')!r} is wrong")
            if kind == b"acTL":
                raise UnreadableError(
                    "is an animated PNG, which is not read. Save each frame as an image of its own."
                )
    except struct.error as error:
        raise damaged("its end is missing") from error
    if header.is_deep:
        return opencv_deep(data)
    try:
        return pyspng.load(data, format="RGB")
    except (RuntimeError, ValueError, MemoryError):
        return opencv(data)  # it takes more chunks of text; no checksum is wrong


PNG = Format("PNG", (".png",), (_SIGNATURE,), header, decode)
