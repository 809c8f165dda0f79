"""Masks of defects: which pixels are marked, whatever program drew them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .decoding import PathLike, decode_image, open_header, read_bytes
from .formats import UnreadableError, turned
from .formats.base import opencv
from .formats.webp import is_lossy as is_lossy_webp

_MOST_LABELS = 32  # values or colours that are class numbers; more are shades
_LEAST_LOSSY = 64  # smallest largest value of a mask in a lossy format
_SOFT = 0.1  # of the largest value: what lies nearer to an end than that is taken for it
_EDGE = 9  # pixels; a soft edge is thinner
_MOST_SOFT = 0.02  # share of pixels that may lie between


def read_mask(path: PathLike) -> NDArray[np.bool_]:
    """Read the mask of a defect: True where anything but background is marked.

    Background is black (0), or transparent where some pixels are. A mark is any other value: 1,
    255, a class number, a colour, in 8 or 16 bits, with or without a palette. Of shades, as JPEG
    and smooth edges give them, what is above half of the largest is marked.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    PathError
        As `read_image`.
    ImageError
        The file cannot be read; or it is not a mask: it has no background, is a photograph, or
        marks the background instead of the defect. The message says what was found.
    """
    pixels, is_lossy = _pixels(path)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (2, 4):
        alpha = pixels[..., -1] > 0
        pixels = pixels[..., :-1]
        opaque = pixels[alpha]
        if not len(opaque) and pixels.any():
            raise _no_mask(path, "all of it is transparent, and it has colours")
        if not alpha.all() and len(opaque) and (opaque == opaque[0]).all():
            return _checked(alpha, path)  # one colour on a transparent ground, black too
        pixels = np.where(alpha[..., None], pixels, 0)
    values = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    colours = _count_colours(pixels)
    if colours <= _MOST_LABELS and not is_lossy and not _is_noisy(values):
        marked = values > 0
    else:
        largest = float(values.max())
        if is_lossy and 0 < largest < _LEAST_LOSSY:
            found = f"its largest value is {largest:.0f}, and JPEG changes small values"
            raise _no_mask(path, found)
        between = (values > _SOFT * largest) & (values < (1 - _SOFT) * largest)
        # Edges may be soft, but they are thin; what a photograph shows is not.
        thick = cv2.erode(between.astype(np.uint8), np.ones((_EDGE, _EDGE), np.uint8)).any()
        if between.mean() > _MOST_SOFT and (thick or between.mean() > 0.5):
            raise _no_mask(path, f"it has {colours} values or colours, like a photograph")
        marked = values > largest / 2
    if values.min() > 0 and marked.all():
        found = f"the values {_listed(pixels)}" if colours <= _MOST_LABELS else "no black"
        raise _no_mask(path, f"all its pixels are marked; it has {found}")
    return _checked(marked, path)


def _is_noisy(values: NDArray[Any]) -> bool:
    """Whether few values lie around both ends, as JPEG leaves them, rather than being classes."""
    largest = float(values.max())
    if largest < _LEAST_LOSSY:
        return False
    near_0 = (values > 0) & (values < _SOFT * largest)
    near_largest = (values < largest) & (values > (1 - _SOFT) * largest)
    return bool(near_0.any() and near_largest.any())


def _pixels(path: PathLike) -> tuple[NDArray[Any], bool]:
    """As stored, in any depth, turned as the camera noted, alpha last; and whether it is lossy."""
    data = read_bytes(path)
    decoded = decode_image(data, path)  # a damaged one is refused like an image
    entry, header = open_header(data, path)
    if entry.name == "TIFF" and header.is_deep:  # where OpenCV leaves white as 0
        return decoded, False
    is_lossy = entry.name == "JPEG" or (entry.name == "WebP" and is_lossy_webp(data))
    try:
        image: Any = opencv(data, cv2.IMREAD_UNCHANGED)
    except UnreadableError as error:
        raise ImageError(f"{path}: {error}") from error
    if image.dtype.kind not in "uib":
        raise _no_mask(path, f"its pixels are {image.dtype}")
    return turned(image, header.orientation), is_lossy


def _count_colours(pixels: NDArray[Any]) -> int:
    """How many there are; beyond `_MOST_LABELS` it may be any larger number."""
    flat = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
    packed = np.zeros(len(flat), np.uint64)
    for channel in flat.T:
        packed = packed << np.uint64(16) | channel.astype(np.uint64)
    return len(np.unique(packed))


def _checked(marked: NDArray[np.bool_], path: PathLike) -> NDArray[np.bool_]:
    """Refuse a mask whose marks go all along the border, around what is not marked."""
    border = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    share = float(marked.mean())
    if share > 0.5 and border.mean() > 0.5:
        raise _no_mask(
            path,
            f"it marks {share:.1%} of the image and nearly all of its border, which is usual of an "
            "inverted mask",
        )
    return marked


def _listed(pixels: NDArray[Any]) -> str:
    flat = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
    values = np.unique(flat, axis=0)[:4].tolist()
    return ", ".join(str(v[0]) if len(v) == 1 else str(tuple(v[::-1])) for v in values)


def _no_mask(path: PathLike, found: str) -> ImageError:
    return ImageError(
        f"{path} is not a mask: {found}. A mask is black (0) on the background, and has any other "
        "value on the defect; correct it, or leave it out."
    )
