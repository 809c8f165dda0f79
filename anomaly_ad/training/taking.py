"""What is learnt before a model is: how photographs are taken, their pose and their light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, PathError, PoseError
from ..images import Image, Photograph, Survey, TrainingImages
from ..images.light import Light, learn_field, learn_gain
from ..images.part import bounds, shrunk
from ..images.photograph import spread
from ..images.pose import learn_pose
from ..model import Choice, Plan
from ..model.plan import DEFAULT_ALIGN
from ..support import bar, ordered_map

_LIGHT_OF = 64  # images that the light is learnt from
_AUTO_OF = 64  # images that "auto" decides by
_LEARNT_OF = 256  # images that a pose is learnt from


def planned(choice: Choice, good: TrainingImages, found: Survey) -> tuple[Plan, list[str]]:
    """The plan for these images, and what was found out for it, in words.

    Images that cannot be read are passed over here; they are errors when they are learnt from.
    """
    plan = choice.planned(found)
    if choice.options is None:
        return plan, []
    notes = []
    align = choice.option("align", DEFAULT_ALIGN)
    if align == "auto" and plan.framing.region is not None:
        align = "none"  # the region is drawn for parts that lie alike
    if align != "none":
        paths = spread(good.paths, _AUTO_OF if align == "auto" else _LEARNT_OF)
        smalls = _thumbnails(paths, plan)
        if not smalls:
            return plan, []
        pose, why = learn_pose(align, smalls)
        if align == "auto" and pose is not None and len(paths) < len(good.paths):
            pose, why = learn_pose(align, _thumbnails(spread(good.paths, _LEARNT_OF), plan))
        notes.append(why)
        if pose is not None:
            notes[-1] += ' Set align="none" to leave them as they lie.'
            plan = choice.planned(found, pose)
    if plan.framing.only_part:
        paths = spread(good.paths, _LEARNT_OF)
        shares = [_share(plan, small) for small in _thumbnails(paths, plan)]
        covered = np.array([share for share in shares if share is not None])
        if len(covered):
            share = bounds(covered)
            plan = replace(plan, framing=replace(plan.framing, part_share=share))
    normalize = choice.option("normalize", "none")
    if normalize != "none":
        light = _light(normalize, spread(good.paths, _LIGHT_OF), plan)
        plan = replace(plan, framing=replace(plan.framing, light=light))
    return plan, notes


def _share(plan: Plan, small: Image) -> float | None:
    """Which share of a photograph is inspected; None where no part stands out."""
    try:
        return float(plan.framing.around_part(small).mean())
    except PoseError:
        return None


def _light(normalize: str, paths: Sequence[Path], plan: Plan) -> Light | None:
    if normalize == "flatfield":
        smalls = _thumbnails(paths, plan)
        return learn_field(smalls) if smalls else None
    taken = [one for one in ordered_map(lambda path: _taken(path, plan), paths) if one is not None]
    return learn_gain(taken) if taken else None


def _taken(path: Path, plan: Plan) -> tuple[Image, NDArray[np.bool_] | None] | None:
    """What the model takes of a photograph, and what of it counts; None of one that is broken."""
    try:
        taken = Photograph.read(path, plan.framing.overview).take()
    except (ImageError, PathError):
        return None
    return plan.framing.apart(taken)


def _thumbnails(paths: Sequence[Path], plan: Plan) -> list[Image]:
    def read(path: Path) -> Image | None:
        try:
            photo = Photograph.read(path, plan.framing)
            height, width = photo.pixels.shape[:2]
            return shrunk(photo.picture((height, width)))
        except (ImageError, PathError):
            return None

    out = []
    with bar(len(paths), "Looking at pose and light") as step:
        for small in ordered_map(read, paths):
            if small is not None:
                out.append(small)
            step("")
    return out
