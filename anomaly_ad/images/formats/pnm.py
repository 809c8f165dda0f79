"""PGM and PPM (netpbm) of 8 or up to 16 bits, decoded by OpenCV."""

from __future__ import annotations

import re

from .base import (
    Format,
    Header,
    Pixels,
    UnreadableError,
    damaged,
    opencv,
    opencv_deep,
    refuse_blank_tail,
)

_KINDS = {b"P2": "gray", b"P5": "gray", b"P3": "colour", b"P6": "colour"}
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(
    rb"(P[2356])" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,5})\s"
)


def header(data: bytes) -> Header:
    """See `base.Format`."""
    found = _HEADER.match(data)
    if found is None:
        raise ValueError("no header")
    kind, width, height, largest = found.groups()
    bits = int(largest).bit_length()
    if bits < 8 or bits > 16 or (bits == 8 and int(largest) != 255):
        raise UnreadableError(
            f"is a {'PGM' if kind in (b'P2', b'P5') else 'PPM'} file with values up to "
            f"{int(largest)}, which is not read. Save it with values up to 255 or 65535, all "
            "images with the same scale."
        )
    is_deep_colour = bits > 8 and kind in (b"P3", b"P6")
    mode = f"{bits} bit {_KINDS[kind]}"
    return Header(int(height), int(width), mode, bytes_a_pixel=6 if is_deep_colour else 3)


def decode(data: bytes, header: Header) -> Pixels:
    """See `base.Format`."""
    found = _HEADER.match(data)
    assert found is not None
    read = opencv_deep if header.is_deep else opencv
    if found[1] in (b"P5", b"P6"):
        bytes_a_pixel = (1 if found[1] == b"P5" else 3) * (2 if header.is_deep else 1)
        if len(data) - found.end() < header.height * header.width * bytes_a_pixel:
            raise damaged("its end is missing")
        image = read(data)
        refuse_blank_tail(image)
        return image
    return read(data + b"\n")  # of plain text the last number needs an end


PNM = Format("PGM", (".pgm", ".ppm", ".pnm"), (b"P2", b"P3", b"P5", b"P6"), header, decode)
