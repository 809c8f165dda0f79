"""Sample data: renders photographs of a machined washer, good and defective, with exact masks.

A fresh machine without a network has nothing to train on.  This module fills that gap: it renders
a turned steel washer with three drilled holes and a stamped mark, lying on a dark conveyor mat
under two lamps, in the folder layout that the rest of the package reads::

    <root>/train/good/000.png
    <root>/test/good/000.png
    <root>/test/<defect>/000.png
    <root>/ground_truth/<defect>/000_mask.png
    <root>/sample.json

Every image is a height map lit per pixel.  The brushing is not painted on: the highlight of turned
metal comes from an anisotropic reflection model (Ward), so a dent bends it as a real dent would.
The mask of a defect is the difference between two noise-free renderings of the same part, with the
defect and without it, hence it marks the pixels that really changed.

Lengths in this module are in units of the washer's outer radius unless a name ends in ``_px``;
angles are in radians, clockwise on the screen, 0 pointing right.
"""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import OptionError, OutputError
from ..images import check_path
from ..support.progress import bar

# float32 and uint8; the type stubs of OpenCV say less, so do these names.
Floats = npt.NDArray[Any]
Bytes = npt.NDArray[Any]

DEFECTS: tuple[str, ...] = ("scratch", "dent", "stain", "missing_piece", "wrong_part")
POSES: tuple[str, ...] = ("small", "any")

_RECORD = "sample.json"
_MARKER = ".rendering"
# Raised whenever the same arguments would give other pixels, so an old set is not mistaken for new.
_VERSION = 1

_MIN_SIDE, _MAX_SIDE = 64, 4096
# Below this side the image is rendered larger and averaged down: chamfers and letters would be
# thinner than a pixel and flicker between images.
_WORKING_SIDE = 256
_OUTER_RADIUS = 0.385  # of the shorter side; leaves room for the shifts of pose="any"

_FACE_RADIUS = 0.71  # middle of the ring: holes and mark sit here
_MARK_HEIGHT = 0.135
_MARK_STENCIL_PX = 640  # stencil pixels per outer radius
_THICKNESS = 0.13
_CHAMFER_SLOPE = np.float32(0.65)
_VISIBLE_STEP = 5.0  # grey levels; about three times the sensor noise of mid grey

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


class _Vectors(NamedTuple):
    """A unit vector per pixel: components of shape (H, W), float32; z points to the camera."""

    x: Floats
    y: Floats
    z: Floats


def _holes(*degrees: float) -> tuple[float, ...]:
    return tuple(math.radians(angle) for angle in degrees)


class _Part(NamedTuple):
    """Geometry of a washer: what a drawing would specify."""

    bore: float = 0.42
    hole_radius: float = 0.085
    hole_angles: tuple[float, ...] = _holes(-90, 30, 150)
    mark: str = "M24-A2"


# Other parts of the same family, from obvious to subtle.
_WRONG_PARTS: tuple[_Part, ...] = (
    _Part(bore=0.53, hole_angles=_holes(-90, -30, 30, 150, 210)),
    _Part(hole_angles=_holes(-135, -45, 20, 160)),
    _Part(hole_angles=_holes(30, 150)),
    _Part(bore=0.37),
    _Part(hole_radius=0.065),
    _Part(mark="M27-A4"),
)


class _Light(NamedTuple):
    """A lamp above the table: position in part units, strength, highlight widths, colour."""

    position: tuple[float, float, float]
    strength: float
    along: float  # highlight width along the brushing (slope units)
    across: float  # and across it, where the grooves spread the light
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class _Stage:
    """Everything about one photograph except the part's geometry and its defect.

    All arrays are float32 of shape (H, W) at working resolution unless noted.
    """

    unit_px: float  # pixels per outer radius
    x: Floats  # position from the part's centre, in the image's axes
    y: Floats
    u: Floats  # the same position in the part's own axes
    v: Floats
    radius: Floats
    image_x: Floats  # position from the image's centre, where the camera hangs
    image_y: Floats
    strokes: Floats  # brushing, about unit variance
    jitter: Floats  # direction errors of the brushing, about unit variance
    mat: Floats  # (H, W, 3) reflectance of the background
    lights: tuple[_Light, ...]
    rays: tuple[_Vectors, ...]  # from every pixel to each light
    view: _Vectors  # and to the camera
    ambient: float
    metal: tuple[float, float, float]  # reflectance, RGB
    grain: float  # contrast of the brushing
    chamfer: float  # width of the outer chamfer
    drift: tuple[float, float]  # offset of the hole pattern in the part's axes, a tolerance


@dataclass
class _Surface:
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


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Floats:
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


def _smoothstep(low: float, high: float, values: Floats) -> Floats:
    """Cubic ramp from 0 at `low` to 1 at `high`."""
    t = np.clip((values - low) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _blend(subtle: float, obvious: float, severity: float) -> float:
    """Value between `subtle` (severity 0) and `obvious` (severity 1)."""
    return subtle + (obvious - subtle) * severity


# --- stage ---------------------------------------------------------------------------------------


def _brushing(
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
    rings = 0.4 * rings + 0.35 * _noise(rng, (rows, 1), 0.03 * unit_px)
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


def _mat(rng: np.random.Generator, shape: tuple[int, int], unit_px: float) -> Floats:
    """Reflectance (H, W, 3) of a dark rubber conveyor mat with a fine moulded weave."""
    height, width = shape
    pitch = 0.052 * unit_px * rng.uniform(0.97, 1.03)
    tilt = math.radians(45.0 + rng.uniform(-2.0, 2.0))
    rows = np.arange(height, dtype=np.float32)[:, None] * np.float32(2.0 * math.pi / pitch)
    columns = np.arange(width, dtype=np.float32)[None, :] * np.float32(2.0 * math.pi / pitch)
    c, s = np.float32(math.cos(tilt)), np.float32(math.sin(tilt))
    phase = rng.uniform(0.0, 2.0 * math.pi, 2).astype(np.float32)
    weave = np.sin(columns * c + rows * s + phase[0]) * np.sin(columns * -s + rows * c + phase[1])
    level = 1.0 + 0.16 * weave
    level += 0.13 * _noise(rng, shape, 0.012 * unit_px)
    level += 0.07 * _noise(rng, shape, 0.35 * unit_px)
    dust = _noise(rng, shape, 0.014 * unit_px)
    level += 0.9 * _smoothstep(3.6, 4.6, dust)
    colour = np.array([0.017, 0.021, 0.026], np.float32) * rng.uniform(0.98, 1.02, 3)
    return np.maximum(level, 0.1)[..., None] * colour.astype(np.float32)


def _lights(rng: np.random.Generator) -> tuple[_Light, ...]:
    """A warm key lamp from the upper left and a weaker, cooler one from the right."""

    def place(azimuth: float, elevation: float, distance: float) -> tuple[float, float, float]:
        azimuth = math.radians(azimuth + rng.uniform(-6.0, 6.0))
        elevation = math.radians(elevation + rng.uniform(-3.0, 3.0))
        flat = distance * math.cos(elevation)
        return flat * math.cos(azimuth), flat * math.sin(azimuth), distance * math.sin(elevation)

    key = rng.uniform(0.9, 1.1)
    fill = rng.uniform(0.88, 1.12)
    return (
        _Light(place(-128.0, 52.0, 5.0), 1.45 * key, 0.115, 0.50, (1.0, 0.975, 0.93)),
        _Light(place(-20.0, 42.0, 5.5), 0.68 * fill, 0.15, 0.55, (0.93, 0.97, 1.0)),
    )


def _towards(x: Floats, y: Floats, position: tuple[float, float, float]) -> _Vectors:
    """Unit vectors from every point (x, y) of the table to a point above it."""
    dx, dy = np.float32(position[0]) - x, np.float32(position[1]) - y
    inverse = 1.0 / np.sqrt(dx * dx + dy * dy + np.float32(position[2] ** 2))
    return _Vectors(dx * inverse, dy * inverse, inverse * np.float32(position[2]))


def _stage(seeds: list[np.random.SeedSequence], shape: tuple[int, int], pose: str) -> _Stage:
    """Draw pose, light, brushing and background of one photograph from four seeds."""
    rng = np.random.default_rng(seeds[0])
    side = min(shape)
    turn = math.radians(rng.uniform(-3.0, 3.0))
    reach = 0.008
    if pose == "any":
        turn, reach = rng.uniform(-math.pi, math.pi), 0.085
    shift = rng.uniform(-reach, reach, 2) * side
    unit_px = _OUTER_RADIUS * side * rng.uniform(0.985, 1.015)
    scale = np.float32(1.0 / unit_px)
    height, width = shape
    rows = (np.arange(height, dtype=np.float32) - np.float32(0.5 * (height - 1))) * scale
    columns = (np.arange(width, dtype=np.float32) - np.float32(0.5 * (width - 1))) * scale
    image_x, image_y = np.meshgrid(columns, rows)
    x = image_x - np.float32(shift[1] / unit_px)
    y = image_y - np.float32(shift[0] / unit_px)
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    radius = np.maximum(cv2.magnitude(x, y), np.float32(1e-4))
    u, v = c * x + s * y, c * y - s * x
    strokes, jitter = _brushing(np.random.default_rng(seeds[2]), radius, cv2.phase(u, v), unit_px)
    tone = rng.uniform(0.97, 1.03)
    lights = _lights(np.random.default_rng(seeds[1]))
    return _Stage(
        unit_px=unit_px,
        x=x,
        y=y,
        u=u,
        v=v,
        radius=radius,
        image_x=image_x,
        image_y=image_y,
        strokes=strokes,
        jitter=jitter,
        mat=_mat(np.random.default_rng(seeds[3]), shape, unit_px),
        lights=lights,
        rays=tuple(_towards(image_x, image_y, light.position) for light in lights),
        view=_towards(image_x, image_y, (0.0, 0.0, 8.0)),
        ambient=0.125 * rng.uniform(0.92, 1.08),
        metal=(0.96 * tone, 0.90 * tone, 0.82 * tone * rng.uniform(0.985, 1.015)),
        grain=rng.uniform(0.6, 0.8),
        chamfer=0.040 * rng.uniform(0.94, 1.06),
        drift=(rng.uniform(-0.005, 0.005), rng.uniform(-0.005, 0.005)),
    )


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


def _stamp(stage: _Stage, text: str) -> Floats:
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


def _surface(stage: _Stage, part: _Part) -> _Surface:
    """The faultless surface of a part on its stage."""
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
    return _Surface(
        inside=inside,
        height=height,
        gloss=1.0 - 0.55 * depth,
        brushing=1.0 - 0.8 * depth,
        tint=np.ones((*inside.shape, 3), np.float32),
        glint=np.zeros_like(inside),
    )


# --- light ---------------------------------------------------------------------------------------


def _normals(surface: _Surface, stage: _Stage) -> _Vectors:
    """Unit normals of the height map."""
    # The blur rounds every edge a little, as deburring does, and hides the pixel grid.
    height = cv2.GaussianBlur(surface.height, (0, 0), max(0.5, 0.004 * stage.unit_px))
    scale = -stage.unit_px / 32.0
    nx = cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=scale)
    ny = cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=scale)
    nz = 1.0 / np.sqrt(1.0 + nx * nx + ny * ny)
    return _Vectors(nx * nz, ny * nz, nz)


def _highlight(
    stage: _Stage,
    surface: _Surface,
    normal: _Vectors,
    light: _Light,
    ray: _Vectors,
) -> tuple[Floats, Floats]:
    """Anisotropic reflection (Ward) and diffuse cosine of one lamp, each (H, W)."""
    nx, ny, nz = normal
    hx, hy, hz = ray.x + stage.view.x, ray.y + stage.view.y, ray.z + stage.view.z
    length2 = hx * hx + hy * hy + hz * hz
    hn = hx * nx + hy * ny + hz * nz
    # The grooves run along the tangent (-y, x) / radius.
    inverse = 1.0 / stage.radius
    ht = (hy * stage.x - hx * stage.y) * inverse - hn * ((ny * stage.x - nx * stage.y) * inverse)
    rest = np.maximum(length2 - hn * hn - ht * ht, 0.0)
    ht = ht + np.float32(0.055 * stage.grain) * stage.jitter * surface.brushing
    # Dull metal scatters more widely and reflects less in the peak.
    dull = 1.0 - surface.gloss
    along = np.float32(light.along) + np.float32(0.35) * dull
    across = np.float32(light.across) + np.float32(0.15) * dull
    hn2 = np.maximum(hn * hn, 1e-3)
    lobe = np.exp(-((ht / along) ** 2 + rest / (across * across)) / hn2)
    cosine = np.maximum(ray.x * nx + ray.y * ny + ray.z * nz, 0.0)
    return lobe * (1.0 - 0.6 * dull), cosine


def _metal(stage: _Stage, surface: _Surface) -> Floats:
    """Light (H, W, 3), linear, that the part sends to the camera."""
    normal = _normals(surface, stage)
    contrast = surface.brushing * np.float32(stage.grain)
    sheen = 1.0 + np.float32(0.17) * contrast * stage.strokes
    light_sum = np.zeros((*surface.inside.shape, 3), np.float32)
    for light, ray in zip(stage.lights, stage.rays, strict=True):
        lobe, cosine = _highlight(stage, surface, normal, light, ray)
        amount = light.strength * (lobe * sheen + 0.09 * cosine)
        amount += light.strength * 0.75 * surface.glint * (0.35 + cosine)
        light_sum += amount[..., None] * np.array(light.colour, np.float32)
    # The room: a bright ceiling towards the key lamp, darker walls.
    kx, ky, kz = stage.lights[0].position
    far = 1.0 / math.sqrt(kx * kx + ky * ky + kz * kz)
    room = 0.55 * normal.z**4 + 0.45 + 1.2 * far * (kx * normal.x + ky * normal.y)
    room *= stage.ambient * (1.0 + np.float32(0.10) * contrast * stage.strokes)
    light_sum += np.maximum(room, 0.02)[..., None]
    return light_sum * surface.tint * np.array(stage.metal, np.float32)


def _shifted(image: Floats, dx: float, dy: float) -> Floats:
    """The image moved by a fraction of pixels, its border repeated."""
    matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]], np.float32)
    return cv2.warpAffine(
        image, matrix, (image.shape[1], image.shape[0]), borderMode=cv2.BORDER_REPLICATE
    )


def _table(stage: _Stage, cover: Floats) -> Floats:
    """Light (H, W, 3), linear, from the mat, with the shadows of the part on it."""
    unit = stage.unit_px
    # Blurring at a quarter of the resolution is enough for soft shadows, and much faster.
    small = cv2.resize(cover, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    size = (cover.shape[1], cover.shape[0])

    def soft(width: float, dx: float = 0.0, dy: float = 0.0) -> Floats:
        image = cv2.GaussianBlur(
            _shifted(small, dx * unit / 4, dy * unit / 4), (0, 0), width * unit / 4
        )
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)

    near, wide = soft(0.05), soft(0.16)
    level = stage.ambient * 2.2 * (1.0 - 0.55 * near) * (1.0 - 0.45 * wide)
    light_sum = np.repeat(level[..., None], 3, axis=2)
    for light, ray in zip(stage.lights, stage.rays, strict=True):
        x, y, z = light.position
        shadow = soft(0.045, -_THICKNESS * x / z, -_THICKNESS * y / z)
        amount = 1.3 * light.strength * ray.z * (1.0 - shadow)
        light_sum += amount[..., None] * np.array(light.colour, np.float32)
    return light_sum * stage.mat


def _walls(stage: _Stage, surface: _Surface) -> Floats:
    """Light (H, W) from the walls of bore and holes, a narrow rim just outside the metal."""
    depth = np.clip(-surface.inside / np.float32(0.035), 0.0, 1.0)
    x, y, _ = stage.lights[0].position
    facing = -(x * stage.x + y * stage.y) / (stage.radius * math.hypot(x, y))
    inner = stage.radius < 0.98
    return np.where(inner, (0.05 + 0.05 * facing) * (1.0 - depth), 0.0).astype(np.float32)


def _photograph(stage: _Stage, surface: _Surface, size: tuple[int, int]) -> Floats:
    """The noise-free photograph (H, W, 3), float32, 0..255, at its final size."""
    cover = np.clip(surface.inside * np.float32(stage.unit_px) + 0.5, 0.0, 1.0)
    table = _table(stage, cover)
    table += _walls(stage, surface)[..., None]
    light = table + (_metal(stage, surface) - table) * cover[..., None]
    vignette = 1.0 - 0.035 * (stage.image_x**2 + stage.image_y**2)
    light *= vignette[..., None]
    light = cv2.GaussianBlur(light, (0, 0), 0.5)  # no lens is perfect
    if light.shape[:2] != size:
        light = cv2.resize(light, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    # A film-like shoulder keeps highlights from clipping; the root stands for the sRGB curve.
    return 255.0 * np.sqrt(1.0 - np.exp(-1.25 * np.maximum(light, 0.0)))


def _develop(photograph: Floats, seed: np.random.SeedSequence) -> Bytes:
    """The photograph as the sensor delivers it: shot noise, read noise, 8 bits."""
    rng = np.random.default_rng(seed)
    noise: Floats = rng.standard_normal(photograph.shape, dtype=np.float32)
    # The camera interpolates colours, which smears the noise over neighbours.
    noise = cv2.GaussianBlur(noise, (3, 3), 0.5) * (0.9 + 0.0062 * photograph)
    return np.clip(np.rint(photograph + noise), 0.0, 255.0).astype(np.uint8)


# --- defects -------------------------------------------------------------------------------------


def _spot(rng: np.random.Generator, inner: float, outer: float) -> tuple[float, float, float]:
    """A place on the face away from holes and mark: (u, v, angle) in the part's axes."""
    gaps = (-30.0, -150.0, -52.0, -128.0, -8.0, 188.0)
    angle = math.radians(gaps[int(rng.integers(len(gaps)))] + rng.uniform(-10.0, 10.0))
    radius = rng.uniform(inner, outer)
    return radius * math.cos(angle), radius * math.sin(angle), angle


def _scratch(stage: _Stage, surface: _Surface, rng: np.random.Generator, severity: float) -> None:
    """Gouges across the brushing: a bright cut with a dark, thrown-up flank."""
    u0, v0, angle = _spot(rng, 0.66, 0.78)
    direction = angle + rng.uniform(0.3, 0.9) * float(rng.choice((-1.0, 1.0)))
    strength = _blend(0.60, 1.0, severity)
    for index in range(1 + round(2.4 * severity)):
        # The further ones are shorter and run nearly parallel: one slip of one sharp edge.
        heading = direction + (rng.uniform(-0.15, 0.15) if index else 0.0)
        length = _blend(0.40, 0.85, severity) * (rng.uniform(0.25, 0.6) if index else 1.0)
        du = stage.u - np.float32(u0 + (rng.uniform(-0.09, 0.09) if index else 0.0))
        dv = stage.v - np.float32(v0 + (rng.uniform(-0.09, 0.09) if index else 0.0))
        c, s = np.float32(math.cos(heading)), np.float32(math.sin(heading))
        along, off = c * du + s * dv, c * dv - s * du
        bend, wave = rng.uniform(-0.2, 0.2), rng.uniform(0.0, 6.0)
        off = off - bend * along * along - 0.003 * np.sin(13.0 * along + wave)
        # Never thinner than the working grid can show.
        width = max(_blend(0.0085, 0.0150, severity) * (0.7 if index else 1.0), 0.6 / stage.unit_px)
        ends = _smoothstep(0.0, 0.3 * length, 0.5 * length - np.abs(along))
        pressure = ends * (0.8 + 0.2 * np.sin(31.0 * along + 3.0 * wave))
        cut = strength * pressure * np.exp(-((off / width) ** 2))
        flank = strength * pressure * np.exp(-(((off - 1.7 * width) / (0.9 * width)) ** 2))
        surface.glint = np.maximum(surface.glint, cut)
        surface.tint *= (1.0 - 0.6 * flank)[..., None]


def _dent(stage: _Stage, surface: _Surface, rng: np.random.Generator, severity: float) -> None:
    """An impact: an oval hollow with a thrown-up rim; the highlight bends around it."""
    u0, v0, angle = _spot(rng, 0.66, 0.78)
    direction = angle + rng.uniform(-0.6, 0.6)
    size = _blend(0.075, 0.125, severity)
    stretch = rng.uniform(0.75, 1.0)
    c, s = np.float32(math.cos(direction)), np.float32(math.sin(direction))
    du, dv = stage.u - np.float32(u0), stage.v - np.float32(v0)
    along, off = (c * du + s * dv) / size, (c * dv - s * du) / (size * stretch)
    distance2 = along * along + off * off
    distance2 = distance2 * (1.0 + 0.12 * np.sin(3.0 * cv2.phase(along, off) + rng.uniform(0, 6)))
    hollow = np.exp(-(distance2**1.5))
    rim = np.exp(-(((np.sqrt(distance2) - 1.35) / 0.28) ** 2))
    depth = _blend(0.22, 0.42, severity) * size
    surface.height -= depth * (hollow - 0.16 * rim)
    surface.brushing *= 1.0 - _blend(0.2, 0.7, severity) * hollow
    surface.gloss *= 1.0 - _blend(0.0, 0.25, severity) * hollow


def _stain(stage: _Stage, surface: _Surface, rng: np.random.Generator, severity: float) -> None:
    """A dried oil stain: a brown, mottled film with a darker rim and a few droplets around it."""
    u0, v0, angle = _spot(rng, 0.66, 0.76)
    size = _blend(0.12, 0.25, severity)
    mottle = _noise(rng, surface.inside.shape, 0.05 * stage.unit_px)
    drift = _noise(rng, surface.inside.shape, 0.22 * stage.unit_px)
    film = np.zeros_like(surface.inside)
    for index in range(1 + round(4 * severity)):
        place = angle if index == 0 else rng.uniform(0.0, 2.0 * math.pi)
        reach = 0.0 if index == 0 else size * rng.uniform(1.15, 1.7)
        radius = size if index == 0 else size * rng.uniform(0.08, 0.22)
        du = stage.u - np.float32(u0 + reach * math.cos(place))
        dv = stage.v - np.float32(v0 + reach * math.sin(place))
        edge = cv2.magnitude(du, dv) / np.float32(radius) + 0.16 * drift + 0.03 * mottle
        inside = 1.0 - _smoothstep(0.9, 1.05, edge)
        ring = np.exp(-(((edge - 0.93) / 0.07) ** 2))
        film = np.maximum(film, inside * (0.62 + 0.10 * mottle) + 0.38 * ring)
    film = np.clip(film * _blend(0.50, 0.95, severity), 0.0, 1.0)
    colour = np.array([0.27, 0.17, 0.09], np.float32) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    surface.tint *= 1.0 - film[..., None] * (1.0 - colour)
    surface.brushing *= 1.0 - 0.4 * film


def _missing_piece(
    stage: _Stage, surface: _Surface, rng: np.random.Generator, severity: float
) -> None:
    """A chunk broken off the outer rim, leaving a rough, dull, sloping fracture."""
    _, _, angle = _spot(rng, 0.9, 0.9)
    size = _blend(0.09, 0.34, severity)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    out = (c * stage.u + s * stage.v - np.float32(1.0 + 0.25 * size)) / np.float32(size)
    side = (c * stage.v - s * stage.u) / np.float32(size * rng.uniform(1.15, 1.5))
    around = cv2.phase(out, side)
    bound = np.ones_like(around)
    for order in range(2, 10):
        bound += 0.30 / order**1.3 * np.sin(order * around + np.float32(rng.uniform(0.0, 6.3)))
    rough = _noise(rng, around.shape, 0.014 * stage.unit_px)
    cut = (cv2.magnitude(out, side) - bound) * np.float32(size) + 0.003 * rough
    width = _blend(0.025, 0.06, severity)
    fracture = 1.0 - _smoothstep(0.55 * width, width, cut + 0.006 * rough)
    surface.height -= np.clip(width - cut, 0.0, 2.0 * width) * 0.55 + 0.003 * fracture * rough
    surface.inside = np.minimum(surface.inside, cut)
    surface.gloss *= 1.0 - 0.9 * fracture
    surface.brushing *= 1.0 - fracture
    surface.tint *= (1.0 - fracture * (0.5 - 0.1 * rough))[..., None]


_EDITS: dict[str, Callable[[_Stage, _Surface, np.random.Generator, float], None]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
    "missing_piece": _missing_piece,
}


# --- mask ----------------------------------------------------------------------------------------


def _difference_mask(good: Floats, bad: Floats) -> Bytes:
    """Mask (H, W) of 0 and 255: where two noise-free photographs (H, W, 3) differ visibly."""
    difference = np.abs(bad - good).max(axis=2)
    peak = float(difference.max())
    # A faint defect in a small image may stay below the visible step everywhere.
    threshold = min(_VISIBLE_STEP, 0.4 * peak)
    mask = (difference > threshold).astype(np.uint8)
    side = min(mask.shape)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, iterations=1 + side // 300)
    # Specks are soft shadow ends, not the defect; pinholes are where the change crosses zero.
    mask = _without_small(mask, max(2.0, 6e-5 * mask.size))
    mask = 1 - _without_small(1 - mask, 8e-4 * mask.size)
    return cv2.dilate(mask, kernel, iterations=1) * np.uint8(255)


def _without_small(mask: Bytes, area: float) -> Bytes:
    """The mask (H, W) of 0 and 1 less its connected areas below `area` pixels, save the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    return (areas >= max(1.0, min(area, float(areas.max()))))[labels].astype(np.uint8)


# --- one image -----------------------------------------------------------------------------------


def render_part(
    seed: int,
    *,
    defect: str | None = None,
    severity: float = 1.0,
    size: tuple[int, int] = (512, 512),
    pose: str = "small",
) -> tuple[Bytes, Bytes]:
    """Render one photograph of the sample part and the mask of its defect.

    The seed fixes part, pose, light and sensor noise; `defect` and `severity` change nothing else.
    So the same seed with and without a defect shows the same part before and after the damage.

    Parameters
    ----------
    seed : int
        At least 0.  The same seed gives the same bytes.
    defect : str or None
        One of `DEFECTS`, or None for a good part.
    severity : float
        0.0 (subtle) to 1.0 (obvious).  For ``"wrong_part"`` it chooses among six other parts.
    size : (int, int)
        (height, width) in pixels, each at least 64.  The part is centred and fills about three
        quarters of the shorter side.
    pose : str
        ``"small"``: turned by up to 3 degrees and shifted by up to 0.8 % of the shorter side, as
        in a fixture.  ``"any"``: turned freely and shifted by up to 8.5 %.

    Returns
    -------
    image : uint8 array of shape (H, W, 3)
        RGB.
    mask : uint8 array of shape (H, W)
        255 where the defect changes the image, 0 elsewhere; all 0 for a good part, never all 0
        for a defect.

    Raises
    ------
    OptionError
        If an argument is not one of the above.
    """
    seed = _count("seed", seed, 0)
    size = _image_size(size)
    _choice("pose", pose, POSES)
    severity = _fraction("severity", severity)
    if defect is not None:
        _choice("defect", defect, DEFECTS)
    factor = math.ceil(_WORKING_SIDE / min(size))
    seeds = np.random.SeedSequence(seed).spawn(6)
    stage = _stage(seeds[:4], (size[0] * factor, size[1] * factor), pose)
    good = _photograph(stage, _surface(stage, _Part()), size)
    if defect is None:
        return _develop(good, seeds[5]), np.zeros(size, np.uint8)
    if defect == "wrong_part":
        variant = round((1.0 - severity) * (len(_WRONG_PARTS) - 1))
        surface = _surface(stage, _WRONG_PARTS[variant])
    else:
        surface = _surface(stage, _Part())
        _EDITS[defect](stage, surface, np.random.default_rng(seeds[4]), severity)
    bad = _photograph(stage, surface, size)
    return _develop(bad, seeds[5]), _difference_mask(good, bad)


# --- the data set --------------------------------------------------------------------------------


def render_sample(
    path: str | os.PathLike[str],
    *,
    n_train: int = 80,
    n_test_good: int = 20,
    n_per_defect: int = 6,
    size: tuple[int, int] = (512, 512),
    pose: str = "small",
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Render the whole sample data set into a folder.

    Photographs are JPEG files (quality 95: sensor noise makes PNG files six times as large), masks
    are PNG files; the default set takes about 9 MB.  Within each kind of defect the severity falls
    evenly from 1 to 0.  How many images there are changes no good image, and of a defective one
    only the severity.

    Parameters
    ----------
    path : path
        The folder; made if it is not there.  If it holds this very set already, nothing is done; a
        set whose rendering was interrupted is rendered anew.
    n_train, n_test_good, n_per_defect : int
        Number of good images to train on (at least 1), of good test images, and of test images of
        each of the five kinds of defect.
    size, pose
        As in `render_part`.
    seed : int
        At least 0.  The same seed gives the same files.
    progress : bool
        Show progress on stderr.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OptionError
        An argument is not one of the above, or the folder holds something else.
    OutputError
        The folder cannot be written to.
    """
    record: dict[str, Any] = {
        "version": _VERSION,
        "n_train": _count("n_train", n_train, 1),
        "n_test_good": _count("n_test_good", n_test_good, 0),
        "n_per_defect": _count("n_per_defect", n_per_defect, 0),
        "size": list(_image_size(size)),
        "pose": _choice("pose", pose, POSES),
        "seed": _count("seed", seed, 0),
    }
    root = check_path(path, "The folder of the sample")
    jobs = _jobs(record)
    if _is_rendered(root, record, jobs):
        return root
    try:
        _begin(root, record, jobs)
        with bar(len(jobs), "Rendering", shown=progress) as step:
            for job in jobs:
                image, mask = render_part(
                    job.seed, defect=job.defect, severity=job.severity, size=size, pose=pose
                )
                _write(root / job.image, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
                if job.mask is not None:
                    _write(root / job.mask, mask, [])
                step("")
        _write_record(root / _RECORD, record)  # last: a folder that has it is complete
        (root / _MARKER).unlink()
    except OSError as error:
        raise OutputError(
            f"The sample set cannot be written to {root}: {error}. Name a folder on a disk with "
            "room that you may write to; the next call into this one starts anew."
        ) from error
    return root


class _Job(NamedTuple):
    """One image of a set; paths are relative to the set's folder."""

    image: str
    mask: str | None
    defect: str | None
    severity: float
    seed: int


def _jobs(record: dict[str, Any]) -> list[_Job]:
    """Every image of the set that a record describes."""
    jobs = []
    for kind, defect in enumerate((None, None, *DEFECTS)):
        part = ("train", "test")[min(kind, 1)]
        count = record[("n_train", "n_test_good", "n_per_defect")[min(kind, 2)]]
        for index in range(count):
            # A seed of its own from the image's place, so that counts change no part.
            state = np.random.SeedSequence([record["seed"], kind, index])
            jobs.append(
                _Job(
                    image=f"{part}/{defect or 'good'}/{index:03d}.jpg",
                    mask=f"ground_truth/{defect}/{index:03d}_mask.png" if defect else None,
                    defect=defect,
                    severity=1.0 if count == 1 else 1.0 - index / (count - 1),
                    seed=int(state.generate_state(1, np.uint64)[0]),
                )
            )
    return jobs


def _files(jobs: list[_Job]) -> set[str]:
    return {name for job in jobs for name in (job.image, job.mask) if name is not None}


def _is_rendered(root: Path, record: dict[str, Any], jobs: list[_Job]) -> bool:
    """Whether this very set is complete; OptionError if the folder holds something else."""
    advice = "Name another folder, or remove that one yourself."
    if root.exists() and not root.is_dir():
        raise OptionError(f"The sample set is rendered into a folder, but {root} is a file.")
    if not root.exists() or not any(root.iterdir()):
        return False
    found = _read_record(root / _RECORD)
    if found is None:
        if any((root / name).exists() for name in (_MARKER, f"{_MARKER}.tmp")):
            return False  # our own, interrupted
        raise OptionError(
            f"The sample set is rendered into an empty folder, but {root} holds other files. "
            + advice
        )
    if found != record:
        keys = sorted(key for key in {*found, *record} if found.get(key) != record.get(key))
        there = ", ".join(f"{key} {found.get(key)!r}" for key in keys)
        asked = ", ".join(f"{key} {record.get(key)!r}" for key in keys)
        raise OptionError(
            f"{root} holds a sample set with other arguments ({there}; asked for: {asked}). "
            + advice
        )
    missing = sorted(name for name in _files(jobs) if not (root / name).is_file())
    if missing:
        raise OptionError(
            f"The sample set in {root} is no longer complete: {len(missing)} of its files are "
            f"gone, {missing[0]} among them. " + advice
        )
    return True


def _begin(root: Path, record: dict[str, Any], jobs: list[_Job]) -> None:
    """Mark the folder as unfinished, and clear what an interrupted call with other counts left."""
    root.mkdir(parents=True, exist_ok=True)
    earlier = _read_record(root / _MARKER)
    if earlier is not None and earlier.keys() == record.keys():
        for name in _files(_jobs(earlier)) - _files(jobs):
            (root / name).unlink(missing_ok=True)
    _write_record(root / _MARKER, record)


def _read_record(path: Path) -> dict[str, Any] | None:
    """The arguments written to a file, or None if they are not there or not readable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the arguments so that the file is there completely or not at all."""
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _write(path: Path, image: Bytes, options: list[int]) -> None:
    """Write an image, grey or BGR, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), options)
    path.write_bytes(data.tobytes())


# --- arguments -----------------------------------------------------------------------------------


def _count(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise OptionError(f"{name} is a whole number from {least}. Received: {value!r}.")
    return int(value)


def _image_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        height = width = 0
    if not (_MIN_SIDE <= height <= _MAX_SIDE and _MIN_SIDE <= width <= _MAX_SIDE):
        raise OptionError(
            f"size is (height, width) in pixels, each from {_MIN_SIDE} to {_MAX_SIDE}. "
            f"Received: {size!r}."
        )
    return height, width


def _choice(name: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise OptionError(f"{name} is one of {', '.join(valid)}. Received: {value!r}.")
    return value


def _fraction(name: str, value: float) -> float:
    is_number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise OptionError(f"{name} is a number from 0 to 1. Received: {value!r}.")
    return float(value)
