"""PGM and PPM (netpbm) of 8 bits, decoded by OpenCV."""

from __future__ import annotations

import re

from .base import (
    Format,
    Header,
    Image,
    UnreadableError,
    damaged,
    opencv,
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
    if int(largest) != 255:
        raise UnreadableError(
            f"is a {'PGM' if kind in (b'P2', b'P5') else 'PPM'} file with values up to "
            f"{int(largest)}, which is not read. Save it with values up to 255, all images with "
            "the same scale."
        )
    return Header(int(height), int(width), f"8 bit {_KINDS[kind]}")


def decode(data: bytes, header: Header) -> Image:
    """See `base.Format`."""
    found = _HEADER.match(data)
    assert found is not None
    if found[1] in (b"P5", b"P6"):
        channels = 1 if found[1] == b"P5" else 3
        if len(data) - found.end() < header.height * header.width * channels:
            raise damaged("its end is missing")
        image = opencv(data)
        refuse_blank_tail(image)
        return image
    return opencv(data + b"\n")  # of plain text the last number needs an end


PNM = Format("PGM", (".pgm", ".ppm", ".pnm"), (b"P2", b"P3", b"P5", b"P6"), header, decode)
