"""Rendered defects on good images that a fit does not see: what its epochs are compared by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.rendered import KINDS, LEAST_SIZE, render_defect
from ..errors import DataError
from ..images import Framing, ImageSet

if TYPE_CHECKING:
    from ..methods.base import Defects

_COUNT = 96  # of all kinds together
_SIZES = 0.02, 0.15  # shares of the shorter side of a view
_CONTRASTS = 15.0, 90.0  # gray levels
_TRIES = 5  # smaller each time, until one fits
_STREAM = 0xDEFEC7  # apart from what else is drawn with the seed


def rendered(images: ImageSet, framing: Framing, seed: int) -> Defects:
    """Views of these images, each with one rendered defect.

    Sizes and contrasts go from what hardly any model finds to what is easily found, evenly on a
    logarithmic scale, so that the figure taken on them neither ends at 0 nor at 1.

    Parameters
    ----------
    images : ImageSet
        Views of good images, each as an image of its own.
    framing : Framing
        How they were taken: a defect lies where an image counts.
    seed : int
        The same gives the same defects.
    """
    from ..methods.base import Defects

    random = np.random.default_rng([seed, _STREAM])
    count = max(_COUNT // len(KINDS), 1)
    places = np.resize(random.permutation(len(images)), count * len(KINDS))
    steps = np.linspace(0, 1, count)
    out, of = [], []
    for number, place in enumerate(places.tolist()):
        kind, step = KINDS[number % len(KINDS)], steps[number // len(KINDS)]
        size = max(_between(_SIZES, step) * min(framing.size), LEAST_SIZE)
        contrast = _between(_CONTRASTS, random.random())
        view = images[np.array([place])][0]
        drawn = _drawn(view, framing, kind, size, contrast, random)
        if drawn is not None:
            out.append(drawn)
            of.append(place)
    if not out:
        raise DataError(
            "No rendered defect fits on the images, so it cannot be told how well a training does. "
            "Is the region that is inspected a few pixels wide? Choose a larger roi, or a method "
            "that learns in one pass."
        )
    return Defects(ImageSet(np.stack(out)[:, None]), np.array(of))


def _between(ends: tuple[float, float], step: float) -> float:
    low, high = ends
    return float(low * (high / low) ** step)


def _drawn(
    view: NDArray[np.uint8],
    framing: Framing,
    kind: str,
    size: float,
    contrast: float,
    random: np.random.Generator,
) -> NDArray[np.uint8] | None:
    """A view with a defect; None where none fits."""
    channels = framing.channels
    picture = np.broadcast_to(view[..., :channels], (*view.shape[:2], 3)).copy()
    where = view[..., -1] > 0 if framing.has_inside else None
    if where is not None and not where.any():
        return None
    for _ in range(_TRIES):
        try:
            image, _ = render_defect(picture, kind, size, contrast, random, where=where)
        except DataError:
            size = max(size / math.sqrt(2), LEAST_SIZE)
            continue
        out = view.copy()
        out[..., :channels] = image[..., :channels]
        return out if where is None else np.where(where[..., None], out, view)
    return None
