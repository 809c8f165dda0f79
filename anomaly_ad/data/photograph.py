"""A photograph of a washer on its table: lights, shadows, the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .surface import (
    OUTER_RADIUS,
    THICKNESS,
    Floats,
    Surface,
    Vectors,
    brushing,
    noise,
    smoothstep,
)


class _Light(NamedTuple):
    """A lamp above the table: position in part units, strength, highlight widths, colour."""

    position: tuple[float, float, float]
    strength: float
    along: float  # highlight width along the brushing (slope units)
    across: float  # and across it, where the grooves spread the light
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Stage:
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
    rays: tuple[Vectors, ...]  # from every pixel to each light
    view: Vectors  # and to the camera
    ambient: float
    metal: tuple[float, float, float]  # reflectance, RGB
    grain: float  # contrast of the brushing
    chamfer: float  # width of the outer chamfer
    drift: tuple[float, float]  # offset of the hole pattern in the part's axes, a tolerance


def _any_table(rng: np.random.Generator, shape: tuple[int, int], unit_px: float) -> Floats:
    """Reflectance (H, W, 3) of some table: its colour, its texture and the light on it differ."""
    level = 1.0 + rng.uniform(0.05, 0.25) * noise(rng, shape, rng.uniform(0.02, 0.2) * unit_px)
    level += rng.uniform(0.1, 0.35) * noise(rng, shape, 2.0 * unit_px)
    colour = np.exp(rng.uniform(math.log(0.005), math.log(0.025))) * rng.uniform(0.6, 1.4, 3)
    return np.maximum(level, 0.1)[..., None] * colour.astype(np.float32)


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
    level += 0.13 * noise(rng, shape, 0.012 * unit_px)
    level += 0.07 * noise(rng, shape, 0.35 * unit_px)
    dust = noise(rng, shape, 0.014 * unit_px)
    level += 0.9 * smoothstep(3.6, 4.6, dust)
    colour = np.array([0.017, 0.021, 0.026], np.float32) * rng.uniform(0.98, 1.02, 3)
    return np.maximum(level, 0.1)[..., None] * colour.astype(np.float32)


_TABLES = {"mat": _mat, "any": _any_table}


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


def _towards(x: Floats, y: Floats, position: tuple[float, float, float]) -> Vectors:
    """Unit vectors from every point (x, y) of the table to a point above it."""
    dx, dy = np.float32(position[0]) - x, np.float32(position[1]) - y
    inverse = 1.0 / np.sqrt(dx * dx + dy * dy + np.float32(position[2] ** 2))
    return Vectors(dx * inverse, dy * inverse, inverse * np.float32(position[2]))


def make_stage(
    seeds: list[np.random.SeedSequence], shape: tuple[int, int], pose: str, table: str = "mat"
) -> Stage:
    """Draw pose, light, brushing and background of one photograph from four seeds."""
    rng = np.random.default_rng(seeds[0])
    side = min(shape)
    turn = math.radians(rng.uniform(-3.0, 3.0))
    reach = 0.008
    if pose == "any":
        turn, reach = rng.uniform(-math.pi, math.pi), 0.085
    shift = rng.uniform(-reach, reach, 2) * side
    unit_px = OUTER_RADIUS * side * rng.uniform(0.985, 1.015)
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
    strokes, jitter = brushing(np.random.default_rng(seeds[2]), radius, cv2.phase(u, v), unit_px)
    tone = rng.uniform(0.97, 1.03)
    lights = _lights(np.random.default_rng(seeds[1]))
    return Stage(
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
        mat=_TABLES[table](np.random.default_rng(seeds[3]), shape, unit_px),
        lights=lights,
        rays=tuple(_towards(image_x, image_y, light.position) for light in lights),
        view=_towards(image_x, image_y, (0.0, 0.0, 8.0)),
        ambient=0.125 * rng.uniform(0.92, 1.08),
        metal=(0.96 * tone, 0.90 * tone, 0.82 * tone * rng.uniform(0.985, 1.015)),
        grain=rng.uniform(0.6, 0.8),
        chamfer=0.040 * rng.uniform(0.94, 1.06),
        drift=(rng.uniform(-0.005, 0.005), rng.uniform(-0.005, 0.005)),
    )


# --- light ---------------------------------------------------------------------------------------


def _normals(surface: Surface, stage: Stage) -> Vectors:
    """Unit normals of the height map."""
    # The blur rounds every edge a little, as deburring does, and hides the pixel grid.
    height = cv2.GaussianBlur(surface.height, (0, 0), max(0.5, 0.004 * stage.unit_px))
    scale = -stage.unit_px / 32.0
    nx = cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=scale)
    ny = cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=scale)
    nz = 1.0 / np.sqrt(1.0 + nx * nx + ny * ny)
    return Vectors(nx * nz, ny * nz, nz)


def _highlight(
    stage: Stage,
    surface: Surface,
    normal: Vectors,
    light: _Light,
    ray: Vectors,
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


def _metal(stage: Stage, surface: Surface) -> Floats:
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


def _table(stage: Stage, cover: Floats) -> Floats:
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
        shadow = soft(0.045, -THICKNESS * x / z, -THICKNESS * y / z)
        amount = 1.3 * light.strength * ray.z * (1.0 - shadow)
        light_sum += amount[..., None] * np.array(light.colour, np.float32)
    return light_sum * stage.mat


def _walls(stage: Stage, surface: Surface) -> Floats:
    """Light (H, W) from the walls of bore and holes, a narrow rim just outside the metal."""
    depth = np.clip(-surface.inside / np.float32(0.035), 0.0, 1.0)
    x, y, _ = stage.lights[0].position
    facing = -(x * stage.x + y * stage.y) / (stage.radius * math.hypot(x, y))
    inner = stage.radius < 0.98
    return np.where(inner, (0.05 + 0.05 * facing) * (1.0 - depth), 0.0).astype(np.float32)


def photograph(stage: Stage, surface: Surface, size: tuple[int, int]) -> Floats:
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


def develop(photograph: Floats, seed: np.random.SeedSequence, depth: int = 8) -> npt.NDArray[Any]:
    """The photograph as the sensor delivers it: shot noise, read noise, 8 bits (or 12)."""
    rng = np.random.default_rng(seed)
    noise: Floats = rng.standard_normal(photograph.shape, dtype=np.float32)
    # The camera interpolates colours, which smears the noise over neighbours.
    noise = cv2.GaussianBlur(noise, (3, 3), 0.5) * (0.9 + 0.0062 * photograph)
    if depth == 8:
        return np.clip(np.rint(photograph + noise), 0.0, 255.0).astype(np.uint8)
    steps = np.float32(2 ** (depth - 8))
    levels = np.rint(steps * (photograph + noise))
    return np.clip(levels, 0.0, 2.0**depth - 1.0).astype(np.uint16)
