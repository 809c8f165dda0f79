"""JPEG 2000: files (.jp2) and bare codestreams, decoded by OpenCV (OpenJPEG)."""

from __future__ import annotations

import struct

from .base import Format, Header, Image, UnreadableError, damaged, opencv, zeros

_FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
_STREAM = b"\xff\x4f\xff\x51"
_HOLE = 128  # zero bytes in a row; the empty packets of an even picture gave 10


def _stream(data: bytes) -> int:
    """Where the codestream begins."""
    position = 0 if data.startswith(_STREAM) else data.find(_STREAM)
    if position < 0:
        raise ValueError("no codestream")
    return position


def header(data: bytes) -> Header:
    """See `base.Format`."""
    at = _stream(data)
    x1, y1, x0, y0 = struct.unpack_from(">IIII", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    bits = [data[at + 42 + 3 * n] for n in range(channels)]
    depth = max((n & 0x7F) + 1 for n in bits)
    if depth > 8 or any(n & 0x80 for n in bits):
        raise UnreadableError(
            f"is a JPEG 2000 file of {depth} bits, which is not read. Save it with 8 bits a "
            "channel, all images with the same scale."
        )
    kind = {1: "gray", 2: "gray with alpha", 3: "colour"}.get(channels, "colour with alpha")
    return Header(y1 - y0, x1 - x0, f"{depth} bit {kind}")


def decode(data: bytes, header: Header) -> Image:
    """See `base.Format`."""
    end = data.rfind(b"\xff\xd9")
    if found := zeros(data, _HOLE, _stream(data), max(end, 0)):
        raise damaged(f"{found[1]} zero bytes in its middle")
    if end < 0:
        raise damaged("its end is missing")
    return opencv(data)


JPEG2000 = Format("JPEG 2000", (".jp2",), (_FILE, _STREAM), header, decode)
