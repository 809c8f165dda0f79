"""Looking at the pictures of a data set: what they are, what they look like, which are odd."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import (
    AnomalyADError,
)
from ..images import (
    Framing,
    Image,
    ValueRange,
    decode_with_header,
    read_bytes,
)
from ..images.labelled import (
    GOOD,
    read_fitting_mask,
)
from ..images.values import EIGHT_BITS, check_values, picture_of
from ..methods import registry
from ..runtime import Engine
from ..statistics.alike import NEAR, nearest, oddness, same_pictures

LEAST_FOR_ODD = 20  # images; among fewer nothing is usual

# Of the features: a small input and late layers, since what is asked for is the odd image as a
# whole. docs/data.md holds what larger inputs find, and what they cost.
_SPEC = Framing(96, 96, 3)
_REDUCED = Framing(128, 128, 3)  # made on the way to it; thumbnails are made from it
_LAYERS = ("stage4", "stage5")
_THUMBNAIL = 16
_SPARSE = 8  # pixels between those whose values are looked at


# ---------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class File:
    """An image file and what it is for: "train", "test", or "unclear"."""

    path: Path
    part: str
    kind: str = GOOD
    mask: Path | None = None


# ------------------------------------------------------------------------------- one pass


@dataclass
class Picture:
    """What is kept of an image."""

    file: File
    digest: bytes = b""
    mode: str = ""
    orientation: int = 1
    n_pages: int = 1
    size: tuple[int, int] | None = None  # (height, width)
    thumbnail: NDArray[np.uint16] | None = None
    error: str | None = None
    mask_error: str | None = None
    marks_nothing: bool = False


class Pictures:
    """All images, and features of some."""

    def __init__(self) -> None:
        self.all: list[Picture] = []
        self.broken: list[Picture] = []
        self._features: list[NDArray[np.float32]] = []
        self._featured: list[int] = []

    def add(self, picture: Picture, features: NDArray[np.float32] | None) -> None:
        """Take what is kept of an image."""
        if picture.error is not None:
            self.broken.append(picture)
            return
        if features is not None:
            self._features.append(features)
            self._featured.append(len(self.all))
        self.all.append(picture)

    def of(self, part: str) -> list[Picture]:
        """Those for a part of the work: "train", "test" or "unclear"."""
        return [picture for picture in self.all if picture.file.part == part]

    def groups(self) -> NDArray[np.intp]:
        """For each picture the first one that is the same."""
        first: dict[bytes, int] = {}
        same = [first.setdefault(picture.digest, n) for n, picture in enumerate(self.all)]
        distinct = sorted(first.values())
        if not distinct:
            return np.empty(0, np.intp)
        kept = (self.all[index].thumbnail for index in distinct)
        thumbnails = np.stack([thumbnail for thumbnail in kept if thumbnail is not None])
        labels = np.array(distinct)[same_pictures(thumbnails)]
        by_index = dict(zip(distinct, labels, strict=True))
        return np.array([by_index[index] for index in same], np.intp)

    def oddness(self, groups: NDArray[np.intp]) -> dict[str, float]:
        """Of the images with features; a copy is as odd as the first of its group."""
        places: dict[int, int] = {}
        for place, index in enumerate(self._featured):
            places.setdefault(int(groups[index]), place)
        if len(places) < LEAST_FOR_ODD:
            return {}
        values = oddness(np.stack([self._features[place] for place in places.values()]))
        by_group = dict(zip(places, values.tolist(), strict=True))
        return {str(self.all[n].file.path): by_group[int(groups[n])] for n in self._featured}

    def near_copies(self, groups: NDArray[np.intp]) -> list[tuple[Picture, Picture]]:
        """Training images that are nearly the same, the nearest pair first; copies count once."""
        kept = [
            (picture, picture.thumbnail)
            for index, picture in enumerate(self.all)
            if picture.file.part == "train" and groups[index] == index
            if picture.thumbnail is not None
        ]
        if len(kept) < LEAST_FOR_ODD:
            return []
        other, share = nearest(np.stack([thumbnail for _, thumbnail in kept]))
        near = [int(index) for index in np.argsort(share, kind="stable") if share[index] < NEAR]
        pairs = dict.fromkeys(tuple(sorted((index, int(other[index])))) for index in near)
        return [(kept[first][0], kept[second][0]) for first, second in pairs]


@functools.cache
def feature_engine() -> Engine:
    """The default backbone on small images, compiled; built once in a process."""
    networks = registry.keras_module("anomaly_ad.backbones.networks", "Looking for outliers")
    convert = registry.keras_module("anomaly_ad.runtime.convert", "Looking for outliers")
    graph = networks.strongest_features(_SPEC, registry.DEFAULT_BACKBONE, _LAYERS)
    # bf16 takes two thirds of the time where the processor has it, and which images are odd hangs
    # on no fourth digit.
    engine = Engine(convert.to_openvino(graph), "bf16")
    engine.run_concurrently(np.zeros((1, *_SPEC.shape), np.uint8))  # compiles
    return engine


def examine(
    file: File, engine: Engine | None, value_range: ValueRange | None, *, deep: bool
) -> tuple[Picture, NDArray[np.float32] | None]:
    """What is kept of an image, and the features of a good one; called in threads.

    `value_range` is that of images of more than 8 bits, `deep` whether training would take them.
    """
    picture = Picture(file)
    try:
        data = read_bytes(file.path)
        pixels, header = decode_with_header(data, file.path)
        if file.part == "train":
            sparse = pixels[::_SPARSE, ::_SPARSE]
            check_values(sparse, value_range or EIGHT_BITS, file.path, deep=deep)
    except AnomalyADError as error:
        picture.error = str(error)
        return picture, None
    picture.digest = hashlib.sha256(data).digest()
    picture.mode, picture.orientation = header.mode, header.orientation
    picture.n_pages, picture.size = header.n_pages, header.size
    image = picture_of(pixels, value_range if header.is_deep else None)
    if file.mask is not None:
        try:
            picture.marks_nothing = not read_fitting_mask(file.mask, picture.size).any()
        except AnomalyADError as error:
            picture.mask_error = str(error)
    reduced = _REDUCED.views(_halved(image))[0]
    picture.thumbnail = _thumbnail(reduced)
    if engine is None or file.part != "train":
        return picture, None
    return picture, engine.run_concurrently(_SPEC.views(reduced))["features"][0]


def _halved(image: Image) -> Image:
    """The image halved as long as it is twice as large as `_REDUCED`; a last odd row is left out.

    OpenCV averages 2 x 2 pixels several times as fast as any other number of them.
    """
    height, width = (side // 2 for side in image.shape[:2])
    while height >= _REDUCED.height and width >= _REDUCED.width:
        even = image[: 2 * height, : 2 * width]
        halved: Any = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        image = halved
        height, width = height // 2, width // 2
    return image


def _thumbnail(reduced: Image) -> NDArray[np.uint16]:
    """Mean gray values of 16x16 fields, in units of 1 / 256: finer than the noise of a JPEG."""
    gray = cv2.cvtColor(reduced, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fields = cv2.resize(gray, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.round(256 * fields).astype(np.uint16).ravel()
