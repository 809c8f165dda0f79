"""The metal of a washer: its shape, its brushing, and what is stamped into it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .photograph import Stage

# float32 and uint8; the type stubs of OpenCV say less, so do these names.
Floats = npt.NDArray[Any]
Bytes = npt.NDArray[Any]
# Below this side the image is rendered larger and averaged down: chamfers and letters would be
# thinner than a pixel and flicker between images.
WORKING_SIDE = 256
OUTER_RADIUS = 0.385  # of the shorter side; leaves room for the shifts of pose="any"

_FACE_RADIUS = 0.71  # middle of the ring: holes and mark sit here
_MARK_HEIGHT = 0.135
_MARK_STENCIL_PX = 640  # stencil pixels per outer radius
THICKNESS = 0.13
_CHAMFER_SLOPE = np.float32(0.65)
VISIBLE_STEP = 5.0  # grey levels; about three times the sensor noise of mid grey

# Stroke letters, drawn rather than typeset: the fonts of OpenCV differ between its versions.
_GLYPHS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "M": (((0, 0), (0, 1), (0.35, 0.35), (0.7, 1), (0.7, 0)),),
    "A": (((0, 0), (0.33, 1), (0.66, 0)), ((0.12, 0.34), (0.54, 0.34))),
    "2": (
        (
            (0, 0.74),
            (0.07, 0.91),
            (0.3, 1),
            (0.53, 0.91),
            (0.6, 0.72),
            (0.5, 0.5),
            (0, 0),
            (0.6, 0),
        ),
    ),
    "4": (((0.46, 0), (0.46, 1), (0, 0.3), (0.64, 0.3)),),
    "7": (((0, 1), (0.6, 1), (0.2, 0)),),
    "-": (((0.08, 0.46), (0.5, 0.46)),),
}


class Vectors(NamedTuple):
    """A unit vector per pixel: components of shape (H, W), float32; z points to the camera."""

    x: Floats
    y: Floats
    z: Floats


def _holes(*degrees: float) -> tuple[float, ...]:
    return tuple(math.radians(angle) for angle in degrees)


class Part(NamedTuple):
    """Geometry of a washer: what a drawing would specify."""

    bore: float = 0.42
    hole_radius: float = 0.085
    hole_angles: tuple[float, ...] = _holes(-90, 30, 150)
    mark: str = "M24-A2"


class Link(NamedTuple):
    """Geometry of a link: a bar between two eyes of different size, along the u axis."""

    places: tuple[float, float] = (-0.52, 0.72)  # of the eyes, u
    radii: tuple[float, float] = (0.40, 0.25)
    bores: tuple[float, float] = (0.21, 0.12)
    half_width: float = 0.16


# Other parts of the same family, from obvious to subtle.
WRONG_PARTS: tuple[Part, ...] = (
    Part(bore=0.53, hole_angles=_holes(-90, -30, 30, 150, 210)),
    Part(hole_angles=_holes(-135, -45, 20, 160)),
    Part(hole_angles=_holes(30, 150)),
    Part(bore=0.37),
    Part(hole_radius=0.065),
    Part(mark="M27-A4"),
)


@dataclass
class Surface:
    """The part as seen from above; defects edit these maps in place.

    All arrays are float32 of shape (H, W) unless noted.
    """

    inside: Floats  # signed distance to the nearest edge, positive on metal
    height: Floats  # height above the flat face
    gloss: Floats  # 0: dull, 1: as machined
    brushing: Floats  # 0: brushing wiped out, 1: as machined
    tint: Floats  # (H, W, 3) colour filter on top of the metal
    glint: Floats  # 0..1, share of bare, freshly cut metal that shines in every direction


# --- noise ---------------------------------------------------------------------------------------


def noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Floats:
    """Smooth noise of zero mean and unit variance whose bumps are about `scale_px` pixels wide."""
    height, width = shape
    step = max(1.0, scale_px / 3.0)
    coarse = (math.ceil(height / step) + 4, math.ceil(width / step) + 4)
    field: Floats = rng.standard_normal(coarse, dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), max(0.3, scale_px / step / 2.0))
    if step > 1.0:
        field = cv2.resize(field, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    field = field[:height, :width]
    return (field - field.mean()) / (field.std() + 1e-6)


def smoothstep(low: float, high: float, values: Floats) -> Floats:
    """Cubic ramp from 0 at `low` to 1 at `high`."""
    t = np.clip((values - low) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def blend(subtle: float, obvious: float, severity: float) -> float:
    """Value between `subtle` (severity 0) and `obvious` (severity 1)."""
    return subtle + (obvious - subtle) * severity


# --- stage ---------------------------------------------------------------------------------------


def brushing(
    rng: np.random.Generator, radius: Floats, angle: Floats, unit_px: float
) -> tuple[Floats, Floats]:
    """Concentric brushing: strokes and their direction errors, both (H, W), about unit variance.

    The strokes are noise in polar coordinates, smeared along the angle: long strokes, short ones
    and rings that run all the way round, as a lathe and an abrasive pad leave them.
    """
    rows, columns, pad = math.ceil(1.12 * unit_px), 1024, 64
    layers = []
    # Long strokes need few samples along the angle; stretching those is cheaper than a long blur.
    for stretch, weight in ((4, 0.45), (32, 0.75)):
        layer: Floats = rng.standard_normal((rows, columns // stretch), dtype=np.float32)
        spare = pad // stretch + 8
        layer = cv2.copyMakeBorder(layer, 0, 0, spare, spare, cv2.BORDER_WRAP)
        layer = cv2.GaussianBlur(layer, (0, 0), sigmaX=1.5, sigmaY=0.45)
        layer = cv2.resize(layer, (layer.shape[1] * stretch, rows), interpolation=cv2.INTER_CUBIC)
        layer = layer[:, 8 * stretch : -8 * stretch]
        layers.append(layer * (weight / (layer.std() + 1e-6)))
    rings: Floats = rng.standard_normal((rows, 1), dtype=np.float32)
    rings = 0.4 * rings + 0.35 * noise(rng, (rows, 1), 0.03 * unit_px)
    polar = np.dstack([layers[0] + layers[1] + rings, np.roll(layers[1], 7, axis=0) / 0.75])
    turn = np.float32(columns / (2.0 * math.pi))
    texture = cv2.remap(
        polar,
        angle * turn + pad,
        np.minimum(radius * unit_px, rows - 1),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return texture[..., 0], texture[..., 1]


# --- part ----------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _stencil(text: str) -> Floats:
    """Stamping depth 0..1 of a text, letters `_MARK_HEIGHT` high, upright; margins are zero."""
    letter = _MARK_HEIGHT * _MARK_STENCIL_PX
    margin = 0.4 * letter
    advances = [max(x for line in _GLYPHS[c] for x, _ in line) + 0.34 for c in text]
    width = int((sum(advances) - 0.34) * letter + 2 * margin)
    image = np.zeros((int(letter + 2 * margin), width), np.uint8)
    left = margin
    for character, advance in zip(text, advances, strict=True):
        for line in _GLYPHS[character]:
            points = [(left + x * letter, margin + (1.0 - y) * letter) for x, y in line]
            fixed = np.round(np.array(points) * 16.0).astype(np.int32)
            cv2.polylines(image, [fixed], False, 255, int(0.15 * letter), cv2.LINE_AA, shift=4)
        left += advance * letter
    blurred: Floats = cv2.GaussianBlur(image.astype(np.float32) / 255.0, (0, 0), 0.035 * letter)
    return blurred


def _stamp(stage: Stage, text: str) -> Floats:
    """Depth 0..1 of the mark on the part, bent around the lower side of the ring."""
    stencil = _stencil(text)
    from_bottom = cv2.phase(stage.v, stage.u)  # 0 at the bottom, growing towards the right
    from_bottom = np.where(from_bottom > math.pi, from_bottom - 2.0 * math.pi, from_bottom)
    scale = np.float32(_MARK_STENCIL_PX)
    map_x = from_bottom * (_FACE_RADIUS * scale) + np.float32(0.5 * stencil.shape[1])
    map_y = (stage.radius - _FACE_RADIUS) * scale + np.float32(0.5 * stencil.shape[0])
    return cv2.remap(
        stencil, map_x.astype(np.float32), map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )


def _bevel(inside: Floats, width: float) -> Floats:
    """Height lost to a chamfer of a given width along an edge, with a rounded crest."""
    t = np.clip(width - inside, -0.012, 3.0 * width) + np.float32(0.012)
    soft = np.float32(0.024)
    return _CHAMFER_SLOPE * np.where(t < soft, t * t / (2.0 * soft), t - 0.5 * soft)


def make_surface(stage: Stage, part: Part | Link) -> Surface:
    """The faultless surface of a part on its stage."""
    return _link(stage, part) if isinstance(part, Link) else _washer(stage, part)


def _link(stage: Stage, part: Link) -> Surface:
    bar = np.float32(part.half_width) - np.abs(stage.v)
    ends = np.minimum(stage.u - np.float32(part.places[0]), np.float32(part.places[1]) - stage.u)
    inside = np.minimum(bar, ends)
    eyes = [cv2.magnitude(stage.u - np.float32(place), stage.v) for place in part.places]
    for eye, radius in zip(eyes, part.radii, strict=True):
        inside = np.maximum(inside, np.float32(radius) - eye)
    height = -_bevel(inside, stage.chamfer)
    for eye, bore in zip(eyes, part.bores, strict=True):
        hole = eye - np.float32(bore)
        height -= _bevel(hole, 0.6 * stage.chamfer)
        inside = np.minimum(inside, hole)
    return _faultless(inside, height, np.zeros_like(inside))


def _washer(stage: Stage, part: Part) -> Surface:
    outer = 1.0 - stage.radius
    bore = stage.radius - np.float32(part.bore)
    height = -_bevel(outer, stage.chamfer) - _bevel(bore, 1.15 * stage.chamfer)
    inside = np.minimum(outer, bore)
    for angle in part.hole_angles:
        du = stage.u - np.float32(_FACE_RADIUS * math.cos(angle) + stage.drift[0])
        dv = stage.v - np.float32(_FACE_RADIUS * math.sin(angle) + stage.drift[1])
        hole = cv2.magnitude(du, dv) - np.float32(part.hole_radius)
        height -= _bevel(hole, 0.6 * stage.chamfer)
        inside = np.minimum(inside, hole)
    depth = _stamp(stage, part.mark)
    height -= 0.016 * depth
    return _faultless(inside, height, depth)


def _faultless(inside: Floats, height: Floats, depth: Floats) -> Surface:
    """A surface with a mark stamped into it, `depth` from 0 to 1."""
    return Surface(
        inside=inside,
        height=height,
        gloss=1.0 - 0.55 * depth,
        brushing=1.0 - 0.8 * depth,
        tint=np.ones((*inside.shape, 3), np.float32),
        glint=np.zeros_like(inside),
    )
