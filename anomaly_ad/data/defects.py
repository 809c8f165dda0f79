"""Defects that are worked into a washer, and the masks that show where."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from .photograph import Stage
from .surface import VISIBLE_STEP, Bytes, Floats, Surface, blend, noise, smoothstep

DEFECTS: tuple[str, ...] = ("scratch", "dent", "stain", "missing_piece", "wrong_part")


# --- defects -------------------------------------------------------------------------------------


def _spot(rng: np.random.Generator, inner: float, outer: float) -> tuple[float, float, float]:
    """A place on the face away from holes and mark: (u, v, angle) in the part's axes."""
    gaps = (-30.0, -150.0, -52.0, -128.0, -8.0, 188.0)
    angle = math.radians(gaps[int(rng.integers(len(gaps)))] + rng.uniform(-10.0, 10.0))
    radius = rng.uniform(inner, outer)
    return radius * math.cos(angle), radius * math.sin(angle), angle


def _scratch(stage: Stage, surface: Surface, rng: np.random.Generator, severity: float) -> None:
    """Gouges across the brushing: a bright cut with a dark, thrown-up flank."""
    u0, v0, angle = _spot(rng, 0.66, 0.78)
    direction = angle + rng.uniform(0.3, 0.9) * float(rng.choice((-1.0, 1.0)))
    strength = blend(0.60, 1.0, severity)
    for index in range(1 + round(2.4 * severity)):
        # The further ones are shorter and run nearly parallel: one slip of one sharp edge.
        heading = direction + (rng.uniform(-0.15, 0.15) if index else 0.0)
        length = blend(0.40, 0.85, severity) * (rng.uniform(0.25, 0.6) if index else 1.0)
        du = stage.u - np.float32(u0 + (rng.uniform(-0.09, 0.09) if index else 0.0))
        dv = stage.v - np.float32(v0 + (rng.uniform(-0.09, 0.09) if index else 0.0))
        c, s = np.float32(math.cos(heading)), np.float32(math.sin(heading))
        along, off = c * du + s * dv, c * dv - s * du
        bend, wave = rng.uniform(-0.2, 0.2), rng.uniform(0.0, 6.0)
        off = off - bend * along * along - 0.003 * np.sin(13.0 * along + wave)
        # Never thinner than the working grid can show.
        width = max(blend(0.0085, 0.0150, severity) * (0.7 if index else 1.0), 0.6 / stage.unit_px)
        ends = smoothstep(0.0, 0.3 * length, 0.5 * length - np.abs(along))
        pressure = ends * (0.8 + 0.2 * np.sin(31.0 * along + 3.0 * wave))
        cut = strength * pressure * np.exp(-((off / width) ** 2))
        flank = strength * pressure * np.exp(-(((off - 1.7 * width) / (0.9 * width)) ** 2))
        surface.glint = np.maximum(surface.glint, cut)
        surface.tint *= (1.0 - 0.6 * flank)[..., None]


def _dent(stage: Stage, surface: Surface, rng: np.random.Generator, severity: float) -> None:
    """An impact: an oval hollow with a thrown-up rim; the highlight bends around it."""
    u0, v0, angle = _spot(rng, 0.66, 0.78)
    direction = angle + rng.uniform(-0.6, 0.6)
    size = blend(0.075, 0.125, severity)
    stretch = rng.uniform(0.75, 1.0)
    c, s = np.float32(math.cos(direction)), np.float32(math.sin(direction))
    du, dv = stage.u - np.float32(u0), stage.v - np.float32(v0)
    along, off = (c * du + s * dv) / size, (c * dv - s * du) / (size * stretch)
    distance2 = along * along + off * off
    distance2 = distance2 * (1.0 + 0.12 * np.sin(3.0 * cv2.phase(along, off) + rng.uniform(0, 6)))
    hollow = np.exp(-(distance2**1.5))
    rim = np.exp(-(((np.sqrt(distance2) - 1.35) / 0.28) ** 2))
    depth = blend(0.22, 0.42, severity) * size
    surface.height -= depth * (hollow - 0.16 * rim)
    surface.brushing *= 1.0 - blend(0.2, 0.7, severity) * hollow
    surface.gloss *= 1.0 - blend(0.0, 0.25, severity) * hollow


def _stain(stage: Stage, surface: Surface, rng: np.random.Generator, severity: float) -> None:
    """A dried oil stain: a brown, mottled film with a darker rim and a few droplets around it."""
    u0, v0, angle = _spot(rng, 0.66, 0.76)
    size = blend(0.12, 0.25, severity)
    mottle = noise(rng, surface.inside.shape, 0.05 * stage.unit_px)
    drift = noise(rng, surface.inside.shape, 0.22 * stage.unit_px)
    film = np.zeros_like(surface.inside)
    for index in range(1 + round(4 * severity)):
        place = angle if index == 0 else rng.uniform(0.0, 2.0 * math.pi)
        reach = 0.0 if index == 0 else size * rng.uniform(1.15, 1.7)
        radius = size if index == 0 else size * rng.uniform(0.08, 0.22)
        du = stage.u - np.float32(u0 + reach * math.cos(place))
        dv = stage.v - np.float32(v0 + reach * math.sin(place))
        edge = cv2.magnitude(du, dv) / np.float32(radius) + 0.16 * drift + 0.03 * mottle
        inside = 1.0 - smoothstep(0.9, 1.05, edge)
        ring = np.exp(-(((edge - 0.93) / 0.07) ** 2))
        film = np.maximum(film, inside * (0.62 + 0.10 * mottle) + 0.38 * ring)
    film = np.clip(film * blend(0.50, 0.95, severity), 0.0, 1.0)
    colour = np.array([0.27, 0.17, 0.09], np.float32) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    surface.tint *= 1.0 - film[..., None] * (1.0 - colour)
    surface.brushing *= 1.0 - 0.4 * film


def _missing_piece(
    stage: Stage, surface: Surface, rng: np.random.Generator, severity: float
) -> None:
    """A chunk broken off the outer rim, leaving a rough, dull, sloping fracture."""
    _, _, angle = _spot(rng, 0.9, 0.9)
    size = blend(0.09, 0.34, severity)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    out = (c * stage.u + s * stage.v - np.float32(1.0 + 0.25 * size)) / np.float32(size)
    side = (c * stage.v - s * stage.u) / np.float32(size * rng.uniform(1.15, 1.5))
    around = cv2.phase(out, side)
    bound = np.ones_like(around)
    for order in range(2, 10):
        bound += 0.30 / order**1.3 * np.sin(order * around + np.float32(rng.uniform(0.0, 6.3)))
    rough = noise(rng, around.shape, 0.014 * stage.unit_px)
    cut = (cv2.magnitude(out, side) - bound) * np.float32(size) + 0.003 * rough
    width = blend(0.025, 0.06, severity)
    fracture = 1.0 - smoothstep(0.55 * width, width, cut + 0.006 * rough)
    surface.height -= np.clip(width - cut, 0.0, 2.0 * width) * 0.55 + 0.003 * fracture * rough
    surface.inside = np.minimum(surface.inside, cut)
    surface.gloss *= 1.0 - 0.9 * fracture
    surface.brushing *= 1.0 - fracture
    surface.tint *= (1.0 - fracture * (0.5 - 0.1 * rough))[..., None]


EDITS: dict[str, Callable[[Stage, Surface, np.random.Generator, float], None]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
    "missing_piece": _missing_piece,
}


# --- mask ----------------------------------------------------------------------------------------


def difference_mask(good: Floats, bad: Floats) -> Bytes:
    """Mask (H, W) of 0 and 255: where two noise-free photographs (H, W, 3) differ visibly."""
    difference = np.abs(bad - good).max(axis=2)
    peak = float(difference.max())
    # A faint defect in a small image may stay below the visible step everywhere.
    threshold = min(VISIBLE_STEP, 0.4 * peak)
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
