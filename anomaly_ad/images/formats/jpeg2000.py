"""JPEG 2000: files (.jp2) and bare codestreams, decoded by OpenCV (OpenJPEG)."""

from __future__ import annotations

import struct

from .base import Format, Header, Pixels, UnreadableError, damaged, opencv, opencv_deep, zeros

_FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
_STREAM = b"\xff\x4f\xff\x51"
_MOST_BOXES = 1000


def _stream(data: bytes) -> int:
    """Where the codestream begins: in a file behind the head of its box "jp2c"."""
    position = 0
    if not data.startswith(_STREAM):
        for _ in range(_MOST_BOXES):
            length, kind = struct.unpack_from(">I4s", data, position)
            if kind == b"jp2c":
                position += 16 if length == 1 else 8
                break
            if length == 1:
                (length,) = struct.unpack_from(">Q", data, position + 8)
            if length < 8:
                raise ValueError("no codestream")
            position += length
    if data[position : position + 4] != _STREAM:
        raise ValueError("no codestream")
    return position


def header(data: bytes) -> Header:
    """See `base.Format`."""
    at = _stream(data)
    x1, y1, x0, y0 = struct.unpack_from(">IIII", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    bits = [data[at + 42 + 3 * n] for n in range(channels)]
    depth = max((n & 0x7F) + 1 for n in bits)
    signed = "signed " if any(n & 0x80 for n in bits) else ""
    if depth > 16 or signed:
        raise UnreadableError(
            f"is a JPEG 2000 file of {signed}{depth} bits, which is not read. Save it with 8 or 16 "
            "bits a channel, all images with the same scale."
        )
    if channels < 3 and at == 0:
        raise UnreadableError(
            "is a bare JPEG 2000 codestream of gray pixels, which is not read. Save it as .jp2."
        )
    kind = {1: "gray", 2: "gray with alpha", 3: "colour"}.get(channels, "colour with alpha")
    bytes_a_pixel = max(channels * (2 if depth > 8 else 1), 3)
    return Header(y1 - y0, x1 - x0, f"{depth} bit {kind}", bytes_a_pixel=bytes_a_pixel)


def decode(data: bytes, header: Header) -> Pixels:
    """See `base.Format`."""
    start, end = _stream(data), data.rfind(b"\xff\xd9")
    if end < start:
        raise damaged("its end is missing")
    if found := zeros(data, max(128, (end - start) // 8), start, end):
        raise damaged(f"{found[1]} zero bytes in its middle")
    return opencv_deep(data) if header.is_deep else opencv(data)


JPEG2000 = Format("JPEG 2000", (".jp2",), (_FILE, _STREAM), header, decode)
