"""What a file format is to this package: its headers, its damage, its pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # RGB
Pixels = NDArray[Any]  # as stored: uint8, uint16 or float32; see `Format`


class UnreadableError(Exception):
    """Why a file is not read, as the end of a sentence that begins with its name."""


DAMAGED = "the image is damaged or cut off"


def damaged(how: str = "") -> UnreadableError:
    """The error for a file whose pixels cannot be trusted; `how` says what was seen."""
    seen = f" ({how})" if how else ""
    return UnreadableError(
        f"{DAMAGED}{seen} and cannot be decoded. Copy it again from where it came from, or leave "
        "it out."
    )


@dataclass(frozen=True)
class Header:
    """What a file says of its image before anything is decoded.

    Parameters
    ----------
    height, width : int
        In pixels, as stored: before the orientation is applied.
    mode : str
        How pixels are stored: "8 bit gray", "16 bit colour with alpha", ...
    orientation : int
        The camera's note, 1 to 8 as in EXIF; 1 is upright.
    n_pages : int
        Images in the file; the first is read.
    bytes_a_pixel : int
        In memory, where that is more than 3: 8 for colours of 16 bits with alpha.
    """

    height: int
    width: int
    mode: str
    orientation: int = 1
    n_pages: int = 1
    bytes_a_pixel: int = 3

    @property
    def is_deep(self) -> bool:
        """Whether pixels have more than 8 bits."""
        return int(self.mode.partition(" bit")[0].rpartition(" ")[2]) > 8

    @property
    def is_turned(self) -> bool:
        """Whether height and width change places when the orientation is applied."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture, as the camera saw it."""
        return (self.width, self.height) if self.is_turned else (self.height, self.width)


@dataclass(frozen=True)
class Format:
    """A file format.

    Parameters
    ----------
    name : str
        For messages.
    suffixes : tuple of str
        Of its files, in lower case. Only folders are searched by them; the format of a file is
        taken from its content.
    magic : tuple of bytes
        What its files begin with, one of them.
    header : callable
        bytes -> Header. Raises struct.error, IndexError or ValueError where there is none, and
        UnreadableError for a kind that is not read.
    decode : callable
        (bytes, Header) -> pixels (height, width, 3) as stored, not turned yet: RGB of uint8, or
        of more than 8 bits as uint16 or float32, and then gray ones have the shape
        (height, width). Where there are `divisors`, one of them is a third argument. Raises
        UnreadableError for damage.
    divisors : tuple of int
        By which the sides of a picture can be divided (rounded up) while it is decoded, falling.
    page : callable or None
        (bytes, n) -> the bytes of a file whose first image is the n-th, counted from 0. Raises
        UnreadableError if there is none. None for formats of one image.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    header: Callable[[bytes], Header]
    decode: Callable[..., Pixels]
    divisors: tuple[int, ...] = ()
    page: Callable[[bytes, int], bytes] | None = None


def opencv(data: bytes, flags: int = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) -> Image:
    """What OpenCV decodes; UnreadableError if it is nothing."""
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        raise damaged()
    return image


def opencv_deep(data: bytes) -> Pixels:
    """Pixels of more than 8 bits: uint16 or float32, RGB (H, W, 3) or gray (H, W)."""
    return without_alpha(opencv(data, cv2.IMREAD_UNCHANGED))


def without_alpha(image: Any) -> Pixels:
    """What OpenCV gives of more than 8 bits, as uint16 or float32, RGB; errors as `Format`."""
    if image.dtype != np.uint16:
        image = image.astype(np.float32)
        if not np.isfinite(cv2.sumElems(image)).all():
            count = int((~np.isfinite(image)).sum())
            raise UnreadableError(
                f"{count} of its values are not numbers (NaN or infinite). Replace these values, "
                "or leave the image out."
            )
    if image.ndim == 3:
        swap = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB
        image = cv2.cvtColor(image, swap)
    return image


def zeros(
    data: bytes, least: int, start: int = 0, end: int | None = None
) -> tuple[int, int] | None:
    """Position and length of the first run of at least `least` zero bytes in a part of a file."""
    end = len(data) if end is None else min(end, len(data))
    position = data.find(bytes(least), start, end)
    if position < 0:
        return None
    return position, end - position - len(data[position:end].lstrip(b"\0"))


def refuse_blank_tail(image: Pixels) -> None:
    """Refuse pixels stored without compression that end in the middle of a row, all blank then.

    A file that was given its full size and never filled has such a tail. A photograph that is
    black (or white) there has it only where the row above is blank too, or from a row's beginning.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C) or (H, W)
        In the order in which the rows are stored.
    """
    image = image.reshape(*image.shape[:2], -1)
    full = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 0
    for blank in {0, full}:
        if (image[-1] != blank).any():
            continue
        filled = np.nonzero((image != blank).any(axis=(1, 2)))[0]
        if not len(filled):
            return
        last = int(filled[-1])
        above, row = (image[max(last - 1, 0) : last + 1] != blank).any(axis=2)[[0, -1]]
        cut = int(np.nonzero(row)[0][-1]) + 1
        # Where the row above is filled, the row is up to its end; and so would it be beyond.
        before, beyond = row[:cut][above[:cut]], above[cut:]
        if last and before.size and beyond.size and before.mean() > 0.9 and beyond.mean() > 0.9:
            raise damaged(f"row {last} ends in its middle, and nothing follows")


def orientation_in_exif(tiff: bytes) -> int:
    """The orientation (tag 0x0112) in the first directory of a TIFF structure; 1 without it."""
    try:
        order = "<" if tiff.startswith(b"II") else ">"
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def turned(image: Pixels, orientation: int) -> Pixels:
    """An image as it was seen by the camera, by the note in its file (EXIF, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        image = np.swapaxes(image, 0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
