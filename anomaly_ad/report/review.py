"""The page that shows a person the good images which look odd, and lists those to leave out."""

from __future__ import annotations

import base64
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import AnomalyADError, ImageError, PathError
from ..evaluation.odd import GoodImage, OddImages, odd_images
from ..images import PathLike, Photograph, image_digest
from ..images.exclusion import as_line
from ..inspection.pages import fitted
from ..methods import registry
from ..model import SAVE_PATH, Limit, StoredModel
from ..support import ordered_map, printable
from .document import Document, refuse_in_input, script_data
from .thumbnails import heat, photograph

EXCLUDE_FILE = "exclude.txt"  # what the page calls the list
_SIDE = 560  # pixels of the longer side of a picture: enough to tell a scratch from a fibre
_BYTES = 200_000  # of a photograph
_NAMED = 3  # images that are named in a message


@dataclass(frozen=True, eq=False)
class Review:
    """A page that was written. Its `str` says where it is and what it lacks.

    Parameters
    ----------
    page : Path
        The HTML file.
    found : OddImages
        What it shows, in this order.
    missing : dict of str to str
        Name of each image that cannot be shown -> why.
    changed : tuple of str
        Names of images that are others than when the model was trained.
    """

    page: Path
    found: OddImages
    missing: dict[str, str]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"Good images with the highest scores, to look at: {self.page}"]
        for names, what in (
            ([*self.missing], "cannot be shown (moved, or damaged)"),
            (self.changed, "have changed since the training"),
        ):
            if names:
                some = ", ".join(map(as_line, names[:_NAMED])) + (", ..." if names[_NAMED:] else "")
                lines.append(f"Warning: {len(names)} of them {what}: {some}.")
        return printable("\n".join(lines))


def after_training(stored: StoredModel, *, page: bool) -> Iterator[str]:
    """What is said of odd images after a training; the model is saved, whatever fails here.

    Parameters
    ----------
    stored : StoredModel
        The model.
    page : bool
        Whether the page is written.
    """
    try:
        odd = str(odd_images(stored))
        if odd and not page:
            odd += f" Look: anomaly-ad review {_quoted(stored.directory)}"
        yield odd
        if page:
            yield str(review(stored))
    except (AnomalyADError, OSError) as error:
        yield (
            f"Warning: the model is saved, but its good images cannot be reviewed: {error} Try "
            f"again with: anomaly-ad review {_quoted(stored.directory)}"
        )


def page_of(directory: Path) -> Path:
    """Where the page of a model is: next to its directory, and named after it."""
    name = directory.name if directory.name not in ("", "..") else ""
    home = directory if name else Path(os.path.abspath(directory))
    return home.with_name(f"{home.name}-review.html")


def review(stored: StoredModel, target: PathLike | None = None) -> Review:
    """Write the page for a model: the good images with the highest unseen scores.

    Only these images are read; their heatmaps are those that they had as unseen ones.

    Parameters
    ----------
    stored : StoredModel
        The model.
    target : path, optional
        The HTML file; None for ``<model directory>-review.html``. Replaced if it is there.

    Raises
    ------
    ModelError
        The model was saved by a version that did not keep names and scores of its images.
    OptionError
        The target is not an HTML file, or lies in the folder of the images.
    OutputError
        It cannot be written.
    """
    found = odd_images(stored)
    if target is not None:
        refuse_in_input(target, [image.path for image in found.images])
    page = page_of(stored.directory) if target is None else target
    document = Document(page, "review.html", ["report.css", "review.css"], ["review.js"])
    with document:
        cards = [*_cards(stored, found)]
        document.write(**_told(stored, found), cards=cards, data=script_data(_data(stored, found)))
    return Review(
        document.target,
        found,
        {card["image"].name: card["missing"] for card in cards if card["missing"]},
        tuple(card["image"].name for card in cards if card["changed"]),
    )


# ------------------------------------------------------------------------------ what it says


def _cards(stored: StoredModel, found: OddImages) -> Iterator[dict[str, Any]]:
    """What the page says of each image."""
    limit = stored.manifest.calibration.image
    # What looks odd has set the limit of the maps as well: colours begin where they would without.
    maps = (found.without or stored.manifest.calibration).map
    with closing(ordered_map(lambda image: _look(stored, image, maps), found.images)) as looked:
        for image, seen in zip(found.images, looked, strict=True):
            yield {
                "image": image,
                "name": as_line(image.name),
                "score": float(limit.score(image.raw_score)),
                "photo": "",
                "heat": "",
                "boxes": [],
                "size": (1, 1),
                "missing": "",
                "changed": False,
                **seen,
            }


def _look(stored: StoredModel, image: GoodImage, maps: Limit | None) -> dict[str, Any]:
    """The pictures of an image, or why there are none; called in threads."""
    plan = stored.manifest.plan
    framing = plan.framing
    try:
        photo = Photograph.read(image.path, framing)
        taken, size = photo.take(), fitted(photo.size, _SIDE)
        seen: dict[str, Any] = {
            "photo": _base64(photograph(photo.picture(size), size, _BYTES)),
            "size": photo.size,
            "changed": image_digest(taken.views) != image.digest,
        }
    except (ImageError, PathError) as error:
        return {"missing": printable(error)}
    if maps is not None and image.anomaly_map is not None and not seen["changed"]:
        large = cv2.resize(
            image.anomaly_map, framing.map_size[::-1], interpolation=cv2.INTER_LINEAR
        )
        seen["heat"] = _base64(heat(maps.score(large), size, taken))
        inside = taken.where_counted(large)
        y, x = np.unravel_index(np.argmax(inside), inside.shape)
        half = max(round(plan.patch_size * framing.map_scale / 2), 1)
        around = np.array([[x - half, y - half, x + half, y + half]])
        seen["boxes"] = taken.boxes_to_original(around).tolist()
    return seen


def _told(stored: StoredModel, found: OddImages) -> dict[str, Any]:
    manifest = stored.manifest
    calibration = manifest.calibration
    return {
        "name": printable(stored.directory.name or os.path.abspath(stored.directory)),
        "method": manifest.plan.method,
        "created": time.strftime("%Y-%m-%d %H:%M %z"),
        "trained": manifest.created,
        "digest": stored.digest,
        "n_images": len(found.good),
        "n_groups": found.good.calibration(found.rate).image.n_groups,
        "limit": found.limit,
        "rate": found.rate,
        "n_odd": found.n_odd,
        "set_the_limit": found.set_the_limit,
        "limit_without": found.limit_without,
        "excluded": [as_line(name) for name in manifest.excluded],
        "own_limit": None
        if calibration.image.limit == found.limit
        else f"{calibration.image.limit:.6g}, by {calibration.record.get('by', 'training')}",
        "has_maps": calibration.map is not None,
        "command": command(stored),
        "file": EXCLUDE_FILE,
    }


def _data(stored: StoredModel, found: OddImages) -> dict[str, Any]:
    """What the page computes with."""
    good = found.good.with_margin
    return {
        "scores": good.scores.tolist(),
        "groups": None if good.groups is None else good.groups.tolist(),
        "rate": found.rate,
        "limit": found.limit,
        "file": EXCLUDE_FILE,
        "excluded": [as_line(name) for name in stored.manifest.excluded],
        "images": [
            {"index": image.index, "line": as_line(_listed(stored, image))}
            for image in found.images
        ],
    }


def _listed(stored: StoredModel, image: GoodImage) -> str:
    """What names an image in a list of excluded ones."""
    return image.name if len(_folders(stored)) == 1 else str(image.path)


def _folders(stored: StoredModel) -> set[str]:
    return {str(one.get("folder")) for one in stored.manifest.training.get("sets", [])}


def command(stored: StoredModel) -> str:
    """The command that trains the model again without some images.

    Where the command line cannot say how the model was trained, the words are those of Python.
    """
    sets = stored.manifest.training.get("sets", [])
    plan = stored.manifest.plan
    python = f'ad.train(exclude="{EXCLUDE_FILE}")'
    own = registry.PRESETS.get(plan.method)
    labels = any(one.get("grouped_by") == "labels" for one in sets)
    listed = any(one.get("listed") or not one.get("folder") for one in sets)
    network = str(plan.parameters.get("backbone", "")).startswith("own:")
    framing = plan.framing
    if framing.has_region or any((framing.pose, framing.light, framing.tiles)):
        return python
    if own is None or not own.module or labels or listed or network or len(sets) != 1:
        return python
    words: list[object] = ["anomaly-ad", "train", sets[0]["folder"], "--detector", plan.method]
    home = Path(os.path.abspath(stored.directory))
    if home.parent != Path(os.path.abspath(SAVE_PATH)):
        words += ["--save-path", home.parent]
    words += ["--name", home.name] if home.name != "model" else []
    if (framing.channels == 1) != own.gray_scale:
        words.append("--gray-scale" if framing.channels == 1 else "--colour")
    if framing.size != own.img_size:
        words += ["--img-size", *framing.size]
    if plan.patch_size != min(own.patch_size, *framing.size):
        words += ["--patch-size", plan.patch_size]
    if framing.deep and framing.value_range is not None:
        words += ["--value-range", *(f"{value:g}" for value in framing.value_range)]
    for name, value, usual in (
        ("--seed", plan.seed, 0),
        ("--fit", framing.fit, "stretch"),
        ("--false-alarm-rate", plan.false_alarm_rate, 0.01),
        ("--precision", plan.precision, "f32"),
    ):
        words += [name, value] if value != usual else []
    for name, value in plan.parameters.items():
        if value != own.parameters.get(name):
            words += ["--option", f"{name}={json.dumps(value)}"]
    words += ["--groups", sets[0]["grouped_by"]] if sets[0].get("grouped_by") else []
    return " ".join(_quoted(word) for word in [*words, "--exclude", EXCLUDE_FILE])


def _quoted(word: object) -> str:
    return as_line(shlex.quote(str(word)))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
