"""JPEG: decoded by libjpeg-turbo, which says where the data do not add up.

OpenCV fills what is missing with gray and carries on. What simplejpeg decodes is the same to the
bit (tests/images/test_formats.py compares).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import simplejpeg

from .base import Format, Header, Image, damaged, opencv, orientation_in_exif, zeros

_MAX_SCANS = 100  # of a progressive JPEG; usual are 10, and each is a pass over all pixels
_MAX_SEGMENTS = 10_000  # before the one that holds the size; usual are 10
_SCAN, _END = 0xFFDA, 0xFFD9

# Webcams pad the data of a picture that is right before its end, and some each part of it.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # other than of a restart, a fill byte, or none
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_MOST_PADDING = 32  # bytes of any kind before the end; of one kind as many as there are
_MOST_PADDING_OF_PARTS = 8
_READ_AHEAD = 12  # bytes that the decoder may have taken already
_MOST_BETWEEN_HEADERS = 1024
_HOLE = 32  # zero bytes in a row that no encoder writes, see `_refuse_hole`


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and position of each segment up to the first scan; bytes between them are skipped."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0:
            return
        marker, length = struct.unpack_from(">HH", data, position)
        if marker in (0xFFFF, 0xFF00):  # a fill byte, or none
            position += 1
            continue
        if marker == 0xFF01 or 0xFFD0 <= marker <= 0xFFD9:  # they have no length
            position += 2
            continue
        yield marker, position
        if marker == _SCAN:
            return
        position += 2 + length


def _is_frame(marker: int) -> bool:
    """SOF0 ... SOF15 hold the size; C4, C8 and CC in that range are something else."""
    return 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)


def header(data: bytes) -> Header:
    """See `base.Format`."""
    orientation = None
    for marker, position in _segments(data):
        if (
            orientation is None
            and marker == 0xFFE1
            and data[position + 4 : position + 10] == b"Exif\0\0"
        ):
            orientation = orientation_in_exif(data[position + 10 :])
        if _is_frame(marker):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            kind = {1: "gray", 4: "CMYK"}.get(channels, "colour")
            return Header(height, width, f"{bits} bit {kind}", orientation or 1)
    raise ValueError("no frame")


def decode(data: bytes, header: Header, divisor: int = 1) -> Image:
    """See `base.Format`."""
    start, end, scans = _scan_data(data)
    if end < 0:
        raise damaged("its end is missing")
    if scans > _MAX_SCANS:
        raise damaged(f"{scans} scans")
    _refuse_hole(data, start, end)
    # The smallest scale of libjpeg that gives this size is 1 / divisor.
    height, width = -(-header.height // divisor), -(-header.width // divisor)
    size = {} if divisor == 1 else {"min_height": height, "min_width": width}
    try:
        return simplejpeg.decode_jpeg(data, "RGB", **size)
    except ValueError as error:
        image = _decode_in_spite_of(str(error), data, start, end, size)
    if size and image.shape[:2] != (height, width):
        reduced: Any = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        image = reduced
    return image


def _decode_in_spite_of(
    warning: str, data: bytes, start: int, end: int, size: dict[str, int]
) -> Image:
    """The picture, if what the decoder objects to does not concern its pixels."""
    if "subsampling" in warning:  # of a kind that simplejpeg does not know
        return opencv(data)
    found = _EXTRANEOUS.search(warning)
    if found is None:
        raise damaged(warning.removeprefix("Corrupt JPEG data: "))
    count, marker = int(found[1]), int(found[2], 16)
    if marker == _END & 0xFF:
        harmless = _is_padding(data[start:end], count)
    elif 0xD0 <= marker <= 0xD7:
        harmless = count <= _MOST_PADDING_OF_PARTS
    else:
        return _decode_without_gaps(data, found[0], size)
    if not harmless:
        raise damaged(found[0])
    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=False, **size)
    except ValueError as error:
        raise damaged(str(error)) from error


def _decode_without_gaps(data: bytes, warning: str, size: dict[str, int]) -> Image:
    """The picture without what lies between its headers; in its data nothing may be amiss."""
    pieces = [data[:2]]
    for marker, position in _segments(data):
        stop = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        pieces.append(data[position:] if marker == _SCAN else data[position:stop])
    if sum(map(len, pieces)) < len(data) - _MOST_BETWEEN_HEADERS:
        raise damaged(warning)
    try:
        return simplejpeg.decode_jpeg(b"".join(pieces), "RGB", **size)
    except ValueError as error:
        raise damaged(str(error)) from error


def _is_padding(scan: bytes, count: int) -> bool:
    """Whether the last `count` bytes of the picture's data are padding.

    Of a damaged picture some bytes are left over as well. They are data, or go on with what
    replaced the data.
    """
    if len(set(scan[-count:])) == 1:
        return len(scan) - len(scan.rstrip(scan[-1:])) <= count + _READ_AHEAD
    return count <= _MOST_PADDING


def _scan_data(data: bytes) -> tuple[int, int, int]:
    """Where the picture's data begin and end (-1: nowhere), and in how many scans they come.

    What follows the end, such as padding or a video, is not part of the picture.
    """
    start, scans = -1, 0
    try:
        for marker, position in _segments(data):
            if marker == _SCAN:
                start = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
                scans = 1
        position = start
        while start >= 0 and (found := _MARKER.search(data, position)):
            position, code = found.start(), data[found.start() + 1]
            if code == _END & 0xFF:
                return start, position, scans
            scans += code == _SCAN & 0xFF
            position += 2
            if code >= 0xC0:  # a segment with a length
                position += struct.unpack_from(">H", data, position)[0]
    except struct.error:
        pass
    return start, -1, scans


def _refuse_hole(data: bytes, start: int, end: int) -> None:
    """Refuse zeros in the middle of the data, as a lost sector leaves them.

    The decoder takes them for pixels. In a sequential picture whose first table gives the code of
    zeros to anything but "end of block" such a run would be dozens of equal coefficients.
    """
    hole = zeros(data, _HOLE, start, end)
    if hole is None or sum(hole) == end:  # at the end they are padding, or the decoder says more
        return
    first_symbols: dict[int, int] = {}
    for marker, position in _segments(data):
        if _is_frame(marker) and marker not in (0xFFC0, 0xFFC1):
            return
        if marker == 0xFFC4:
            _first_symbols(data, position, first_symbols)
        if marker == _SCAN and first_symbols.get(data[position + 6] & 0x0F, 0):
            raise damaged(f"{hole[1]} zero bytes in its middle")


def _first_symbols(data: bytes, position: int, found: dict[int, int]) -> None:
    """The symbol of the shortest code (all zeros) of each AC table of a DHT segment."""
    length = struct.unpack_from(">H", data, position + 2)[0]
    at, stop = position + 4, position + 2 + length
    while at + 17 <= stop:
        kind, number = divmod(data[at], 16)
        count = int(np.frombuffer(data, np.uint8, 16, at + 1).sum())
        if kind == 1 and count:
            found[number] = data[at + 17]
        at += 17 + count


JPEG = Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), (b"\xff\xd8",), header, decode, (8, 4, 2))
