"""Rendered defects on a user's own photographs of good parts, with their masks.

Where real defects are rare, these say what size a method finds at all. A defect is drawn in a
window of its own, soft at its edges, and blended into the photograph: what it adds is added or
multiplied, so that texture and sensor noise go on below it. It lies wholly on the part where that
can be told from its background. Nothing here knows a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError
from ..images import Image
from ..images.part import SIDE, find_part

Mask = NDArray[np.bool_]
Floats = NDArray[Any]  # float32

LEAST_SIZE = 2.0  # pixels; what is smaller is noise
_TRIES = 12  # shapes and directions until one fits
_CANDIDATES = 16  # places of which a foreign patch is taken
_HALF = 0.5  # share of its full opacity from which a pixel belongs to the defect


@dataclass(frozen=True)
class _Photograph:
    """What is rendered into: the image, and where its part is, if that is known."""

    image: Image
    part: Mask | None

    @property
    def is_gray(self) -> bool:
        return bool((self.image == self.image[..., :1]).all())


@dataclass(frozen=True)
class _Shape:
    """A defect by itself: float32 arrays of shape (h, w), its window.

    Parameters
    ----------
    cover : ndarray
        Opacity in [0, 1]; where it is at least a half is the defect.
    level : ndarray
        What is added to the gray value, for a contrast of 1.
    """

    cover: Floats
    level: Floats

    @property
    def mask(self) -> Mask:
        return self.cover >= _HALF


def render_defect(
    image: Image,
    kind: str,
    size_px: float,
    contrast: float,
    rng: np.random.Generator,
    *,
    where: Mask | None = None,
) -> tuple[Image, Mask]:
    """Render a defect into a photograph of a good part.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, not changed. One whose channels are equal stays gray.
    kind : str
        One of `KINDS`: "scratch", "spot", "blotch" (a stain with a soft outline), "dent" (a hollow,
        by its shading alone), "patch" (of another place of the photograph, turned) or "missing" (a
        piece of the part that gives way to the background, at its outline; in a photograph that is
        all part a hole with a smooth ground).
    size_px : float
        The size that is drawn, as `defect_size` measures it, in pixels of the photograph; from 2.
        Rounding to pixels makes it up to about one larger or smaller, and "missing" follows the
        part's outline: measure the mask where it matters.
    contrast : float
        Largest difference from the part in gray levels, in (0, 255]: of the ridge of a scratch,
        the middle of a spot, the rim of a blotch, the bright side of a dent. It is the mean
        difference of a patch, which is made brighter or darker where it has less, and of a hole.
        A piece that gives way to a visible background has the background's colour.
    rng : numpy.random.Generator
        Place, direction and shape are drawn from it.
    where : ndarray of bool, shape (H, W), optional
        Pixels that a defect may cover; None for the part as `find_part` finds it, or all where it
        finds none.

    Returns
    -------
    image : ndarray of uint8, shape (H, W, 3)
    mask : ndarray of bool, shape (H, W)
        The pixels where the defect has at least half of its opacity. All of them in `where`.

    Raises
    ------
    OptionError
        An argument is not one of the above.
    DataError
        A defect of this size does not fit on the part.
    """
    if kind not in KINDS:
        raise OptionError(f"A kind of defect is one of {', '.join(KINDS)}. Received: {kind!r}.")
    if not LEAST_SIZE <= size_px < math.inf:
        raise OptionError(f"A defect has from {LEAST_SIZE:g} pixels on. Received: {size_px!r}.")
    check_contrast(contrast)
    part = find_part(image) if where is None else where
    if part is not None and part.shape != image.shape[:2]:
        raise OptionError(
            f"`where` is {part.shape[0]}x{part.shape[1]} pixels and the image "
            f"{image.shape[0]}x{image.shape[1]} (height x width). Give it the image's size."
        )
    if kind == "missing" and part is not None and not part.all():
        return _broken_off(image, part, size_px, rng)
    if where is None and part is not None:
        # An outline that was found is a pixel or two wrong.
        margin = 2 * math.ceil(max(part.shape) / SIDE) + 1
        part = cv2.erode(part.astype(np.uint8), np.ones((margin, margin)), borderValue=1) > 0
    photograph = _Photograph(image, part)
    for _ in range(_TRIES):
        shape = _turned(_DRAWN[kind](rng, size_px), rng, size_px)
        corner = _place(shape.mask, image.shape[:2], part, rng)
        if corner is None:
            continue
        window = _window(corner, shape.mask.shape)
        out = image.copy()
        below = image[window].astype(np.float32)
        out[window] = _rounded(_BLENDED.get(kind, _added)(photograph, below, shape, contrast, rng))
        mask = np.zeros(image.shape[:2], bool)
        mask[window] = shape.mask
        return out, mask
    raise _too_large(kind, size_px)


def check_contrast(contrast: float) -> None:
    """Raise OptionError if this is not a contrast in gray levels."""
    if isinstance(contrast, bool) or not isinstance(contrast, (int, float, np.number)):
        raise OptionError(f"contrast is a number of gray levels. Received: {contrast!r}.")
    if not 0 < contrast <= 255:
        raise OptionError(f"contrast is in gray levels, above 0 to 255. Received: {contrast!r}.")


def defect_size(mask: Mask) -> float:
    """Length of a defect in pixels: the longer side of the smallest rectangle around it.

    The rectangle, turned as it fits best, goes around the largest connected region of the mask
    (by pixels, neighbours over corners included); a single pixel has the length 1.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
        True on the defect; 0 is the size of an empty one.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return 0.0
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    region = (labels == largest).astype(np.uint8)
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return 1.0 + max(cv2.minAreaRect(outlines[0])[1])


# ----------------------------------------------------------------------------------- shapes


def _grid(side: int) -> tuple[Floats, Floats]:
    """Places x, y of pixels in a square window from -1 to 1."""
    steps = ((np.arange(side, dtype=np.float32) + 0.5) * (2 / side)) - 1
    x, y = np.meshgrid(steps, steps)
    return x, y


def _canvas(size_px: float) -> int:
    """Side of the window in which a shape is drawn before it gets its size."""
    return int(np.clip(2 * size_px, 144, 1024))


def _noise(rng: np.random.Generator, side: int, waves: float) -> Floats:
    """Smooth noise of unit variance with about `waves` bumps along a side."""
    coarse = rng.standard_normal((max(4, round(2 * waves)),) * 2, dtype=np.float32)
    field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / (field.std() + 1e-6)


def _step(values: Floats, low: float, high: float) -> Floats:
    """Cubic ramp from 0 at `low` to 1 at `high`."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _outline(rng: np.random.Generator, x: Floats, y: Floats, roughness: float) -> Floats:
    """Distance from the middle, 1 at an irregular closed outline."""
    stretch = rng.uniform(0.65, 1.0)
    around = np.arctan2(y / stretch, x)
    bound: Floats = np.ones_like(around)
    for order in range(2, 9):
        turn = rng.uniform(0, 2 * math.pi)
        bound = bound + roughness / order * np.sin(order * around + np.float32(turn))
    # All of it lies in the window.
    return np.hypot(x, y / np.float32(stretch)) / (0.8 * bound / bound.max())


def _scratch(rng: np.random.Generator, size_px: float) -> _Shape:
    """A slightly bent line with thin ends: a bright ridge with a dark flank, or the reverse."""
    x, y = _grid(_canvas(size_px))
    half = np.float32(0.7)
    # From about 1.2 pixels on; a long scratch is wider, but not in proportion.
    width = np.float32(0.7 * max(1.2, 0.35 * math.sqrt(size_px)) / size_px)
    t = x / half
    off = y - rng.uniform(-0.15, 0.15) * (1 - t * t)
    off = off - 0.012 * np.sin(rng.uniform(5, 9) * t + rng.uniform(0, 6)).astype(np.float32)
    ends = _step(1 - np.abs(t), 0, 0.25)
    waves = 0.15 * np.sin(rng.uniform(9, 17) * t + rng.uniform(0, 6)).astype(np.float32)
    pressure = np.clip(0.85 + waves, 0, 1)
    # The tip stays: what thins out is the width.
    ridge = np.exp(-((off / (width * (0.45 + 0.55 * ends))) ** 2)) * (np.abs(t) < 1)
    flank = np.exp(-(((off - 2 * width) / width) ** 2)) * ends
    return _Shape(ridge, pressure * (ridge - 0.4 * flank))


def _spot(rng: np.random.Generator, size_px: float) -> _Shape:
    """A pit or a grain: small, roundish, evenly dark or bright, with a soft edge."""
    side = _canvas(size_px)
    distance = _outline(rng, *_grid(side), 0.12)
    soft = min(0.3, 1.5 / size_px)
    cover = 1 - _step(distance, 1 - soft, 1 + soft)
    return _Shape(cover, cover * (0.9 + 0.1 * np.clip(_noise(rng, side, 5), -1, 1)))


def _blotch(rng: np.random.Generator, size_px: float) -> _Shape:
    """A dried stain: an irregular outline, a mottled film, a stronger rim."""
    side = _canvas(size_px)
    distance = _outline(rng, *_grid(side), 0.4) + 0.05 * _noise(rng, side, 4)
    cover = 1 - _step(distance, 0.8, 1.2)
    rim = np.exp(-(((distance - 0.85) / 0.15) ** 2))
    film = 0.62 + 0.08 * np.clip(_noise(rng, side, 6), -2, 2)
    return _Shape(cover, np.minimum(cover * film + 0.38 * rim * cover, 1))


def _dent(rng: np.random.Generator, size_px: float) -> _Shape:
    """A hollow lit from one side: bright where it faces the light, dark where it turns away."""
    side = _canvas(size_px)
    distance = _outline(rng, *_grid(side), 0.12)
    height = -np.exp(-((1.15 * distance) ** 4)) + 0.12 * np.exp(-(((distance - 1.15) / 0.2) ** 2))
    slope = cv2.GaussianBlur(height, (0, 0), side / 60)
    angle = rng.uniform(0, 2 * math.pi)
    dx = cv2.Sobel(slope, cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(slope, cv2.CV_32F, 0, 1, ksize=3)
    shading = dx * np.float32(math.cos(angle)) + dy * np.float32(math.sin(angle))
    return _Shape(1 - _step(distance, 0.85, 1.15), shading / np.abs(shading).max())


def _piece(rng: np.random.Generator, size_px: float) -> _Shape:
    """An irregular piece with a nearly sharp edge."""
    distance = _outline(rng, *_grid(_canvas(size_px)), 0.35)
    soft = min(0.3, 1.0 / size_px)
    cover = 1 - _step(distance, 1 - soft, 1 + soft)
    return _Shape(cover, cover)


def _turned(shape: _Shape, rng: np.random.Generator, size_px: float) -> _Shape:
    """A shape in a random direction, brought to its size."""
    side = len(shape.cover)
    longest = defect_size(shape.mask)
    scale = size_px / longest
    angle = rng.uniform(0, 360)
    # Averaged down, or antialiased: the window holds the diagonal and is smaller afterwards.
    wide = math.ceil(side * 1.42)
    turn: Floats = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), angle, 1.0)
    turn[:, 2] += (wide - side) / 2
    to = (max(3, round(wide * scale)),) * 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def moved(values: Floats) -> Floats:
        values = cv2.warpAffine(values.astype(np.float32), turn, (wide, wide))
        return cv2.resize(values, to, interpolation=interpolation)

    cover, level = moved(shape.cover), moved(shape.level)
    # Small ones are averaged down to less than what was asked for: full strength is kept.
    cover = np.clip(cover / max(float(cover.max()), 1e-6), 0, 1)
    level = level / max(float(np.abs(level).max()), 1e-6)
    x, y, width, height = cv2.boundingRect(
        ((cover > 0.01) | (np.abs(level) > 0.01)).astype(np.uint8)
    )
    inside = (slice(y, y + height), slice(x, x + width))
    return _Shape(cover[inside], level[inside])


_DRAWN: dict[str, Callable[[np.random.Generator, float], _Shape]] = {
    "scratch": _scratch,
    "spot": _spot,
    "blotch": _blotch,
    "dent": _dent,
    "patch": _piece,
    "missing": _piece,
}
KINDS = tuple(_DRAWN)


# ------------------------------------------------------------------------------------ place


def _window(corner: tuple[int, int], size: tuple[int, ...]) -> tuple[slice, slice]:
    top, left = corner
    return slice(top, top + size[0]), slice(left, left + size[1])


def _place(
    mask: Mask, size: tuple[int, int], part: Mask | None, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Corner (top, left) of a window whose mask lies wholly on the part; None if there is none."""
    room = (size[0] - mask.shape[0], size[1] - mask.shape[1])
    if min(room) < 0:
        return None
    if part is None or part.all():
        return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
    # Tried on a small grid, where all places are looked at together, and then checked.
    scale = min(1.0, SIDE / 2 / max(size))
    coarse = cv2.resize(
        part.astype(np.float32),
        (max(1, int(size[1] * scale)), max(1, int(size[0] * scale))),
        interpolation=cv2.INTER_NEAREST,
    )
    kernel = cv2.resize(
        mask.astype(np.float32),
        (max(1, math.ceil(mask.shape[1] * scale)), max(1, math.ceil(mask.shape[0] * scale))),
        interpolation=cv2.INTER_AREA,
    )
    if any(k > c for k, c in zip(kernel.shape, coarse.shape, strict=True)):
        return None
    if (kernel > 0).sum() > coarse.sum():
        return None
    # How much of the mask would lie off the part, for each place of its window.
    off = cv2.matchTemplate(1 - coarse, (kernel > 0).astype(np.float32), cv2.TM_CCORR)
    places = np.argwhere(off < 0.5)
    for top, left in places[rng.permutation(len(places))[:8]]:
        within = rng.random(2)
        corner = (int((top + within[0]) / scale), int((left + within[1]) / scale))
        corner = (min(corner[0], room[0]), min(corner[1], room[1]))
        if part[_window(corner, mask.shape)][mask].all():
            return corner
    return None


def _too_large(kind: str, size_px: float) -> DataError:
    return DataError(
        f"A {kind} of {size_px:.0f} pixels does not fit on the part. Ask for a smaller one, or "
        "give `where`."
    )


# --------------------------------------------------------------------------------- blending


def _rounded(values: Floats) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _sign(level: float, contrast: float, rng: np.random.Generator, *, bright: float = 0.5) -> float:
    """Whether a defect is bright or dark, by chance; where there is room for its contrast."""
    sign = 1.0 if rng.random() < bright else -1.0
    return sign if 0 <= level + sign * contrast <= 255 else -sign


def _added(
    photograph: _Photograph,
    below: Floats,
    shape: _Shape,
    contrast: float,
    rng: np.random.Generator,
) -> Floats:
    """Light that a defect sends or takes away; the texture below stays as it is."""
    sign = _sign(float(below[shape.mask].mean()), contrast, rng)
    return below + (sign * contrast) * shape.level[..., None]


def _stained(
    photograph: _Photograph,
    below: Floats,
    shape: _Shape,
    contrast: float,
    rng: np.random.Generator,
) -> Floats:
    """A film that takes a share of the light, of colour photographs more of the blue."""
    level = float(below[shape.mask].mean())
    tint = np.ones(3) if photograph.is_gray else np.array([0.8, 1.0, 1.2])
    if level < 1.2 * contrast:  # a film on what is dark is seen by its own light
        return below + contrast * shape.level[..., None]
    return below * (1 - (contrast / level) * (shape.level[..., None] * tint.astype(np.float32)))


def _foreign(
    photograph: _Photograph,
    below: Floats,
    shape: _Shape,
    contrast: float,
    rng: np.random.Generator,
) -> Floats:
    """Another place of the photograph: of some, the one that differs by about the contrast."""
    image, turns = photograph.image, int(rng.integers(4))
    mask = np.rot90(shape.mask, -turns)
    ways = []
    for _ in range(_CANDIDATES):
        corner = _place(mask, image.shape[:2], photograph.part, rng)
        if corner is None:  # it fits in its own direction
            turns, mask = 0, shape.mask
            continue
        piece = np.rot90(image[_window(corner, mask.shape)], turns).astype(np.float32)
        difference = (piece - below)[shape.mask]
        ways.append((abs(float(np.abs(difference).mean()) - contrast), piece, difference))
    if not ways:
        ways = [(contrast, below, np.zeros(1, np.float32))]
    _, piece, difference = min(ways, key=lambda way: way[0])
    mean = float(difference.mean())
    if np.abs(difference).mean() < contrast:
        sign = _sign(float(below[shape.mask].mean()), contrast, rng) if mean == 0 else np.sign(mean)
        piece = piece + (sign * contrast - mean)
    return below + shape.cover[..., None] * (piece - below)


def _hollow(
    photograph: _Photograph,
    below: Floats,
    shape: _Shape,
    contrast: float,
    rng: np.random.Generator,
) -> Floats:
    """A hole in what is all part: its ground is smooth and darker, with the fine noise only."""
    smooth = cv2.GaussianBlur(below, (0, 0), max(1.0, 0.1 * max(shape.mask.shape)))
    fine = below - cv2.GaussianBlur(below, (0, 0), 1.0)
    level = float(below[shape.mask].mean())
    sign = -1.0 if level >= contrast else 1.0
    ground = 0.3 * smooth + 0.7 * smooth[shape.mask].mean(axis=0) + fine + sign * contrast
    return below + shape.cover[..., None] * (ground - below)


_BLENDED = {"blotch": _stained, "patch": _foreign, "missing": _hollow}


def _broken_off(
    image: Image, part: Mask, size_px: float, rng: np.random.Generator
) -> tuple[Image, Mask]:
    """A piece at the outline of the part that gives way to the background next to it."""
    outline = np.argwhere(part & (cv2.erode(part.astype(np.uint8), np.ones((3, 3))) == 0))
    background = cv2.erode((~part).astype(np.uint8), np.ones((5, 5))) > 0
    for _ in range(_TRIES if len(outline) else 0):
        shape = _turned(_piece(rng, size_px), rng, size_px)
        height, width = shape.mask.shape
        centre = outline[rng.integers(len(outline))]
        corner = (int(centre[0]) - height // 2, int(centre[1]) - width // 2)
        if not all(0 <= c <= image.shape[n] - shape.mask.shape[n] for n, c in enumerate(corner)):
            continue
        window = _window(corner, (height, width))
        mask = shape.mask & part[window]
        if not 0.6 * size_px <= defect_size(mask) <= 1.2 * size_px + 1:
            continue
        filling = _background(image, background, (height, width), corner, rng)
        if filling is None:
            continue
        out = image.copy()
        below = image[window].astype(np.float32)
        out[window] = _rounded(below + shape.cover[..., None] * (filling - below))
        whole = np.zeros(image.shape[:2], bool)
        whole[window] = mask
        return out, whole
    raise _too_large("missing piece", size_px)


def _background(
    image: Image,
    background: Mask,
    size: tuple[int, int],
    corner: tuple[int, int],
    rng: np.random.Generator,
) -> Floats | None:
    """A window of background, from near by; mirrored on where none is as large."""
    height, width = size
    while min(height, width) >= 2:
        places = [
            place
            for _ in range(4)
            if (place := _place(np.ones((height, width), bool), image.shape[:2], background, rng))
        ]
        if places:
            near = min(places, key=lambda place: math.dist(place, corner))
            found = image[_window(near, (height, width))]
            rows, columns = (
                np.pad(np.arange(there), (0, asked - there), "reflect")
                for there, asked in ((height, size[0]), (width, size[1]))
            )
            return found[rows][:, columns].astype(np.float32)
        height, width = (max(2, height // 2), max(2, width // 2)) if max(size) > 3 else (0, 0)
        if (height, width) == (2, 2):
            break
    return None
