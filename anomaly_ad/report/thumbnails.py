"""Small pictures of what was inspected, on disk until the page is written."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..drawing import pictures as drawing
from ..images import Image, Taken
from ..images.labelled import GOOD
from ..images.taken import with_peaks
from ..inspection import Inspected, Prediction
from ..inspection.pages import fitted, packed
from ..inspection.records import cannot_write
from ..inspection.regions import outlines
from ..model import LIMIT_SCORE, StoredModel

MOST_PICTURES = 5000  # of a page; a browser holds no more
_ALL_BYTES = 34_000_000  # of all photographs together
_SIDES = (128, 400)  # pixels of the longer side
_BYTES_A_PIXEL = 0.25  # of a detailed photograph at the first quality
_QUALITIES = (82, 65, 45, 25)


@dataclass(frozen=True)
class Seen:
    """What is kept of an image while the run goes on.

    Its digest; JPEG, and WebP or nothing; outlines of its mask, x and y by turns in pixels.
    """

    digest: str
    photo: bytes
    heat: bytes
    mask: tuple[list[int], ...]


@dataclass(frozen=True)
class Entry:
    """An image of the page.

    Parameters
    ----------
    path : Path
        The file.
    kind : str or None
        "good", the name of its defect, or None where it has no label.
    prediction : Prediction
        What the model says.
    place : int
        Where its pictures begin in the spool.
    lengths : (int, int)
        Bytes of the photograph and of the map.
    mask : tuple of list of int
        Outlines of its mask, x and y by turns in pixels of the photograph.
    """

    path: Path
    kind: str | None
    prediction: Prediction
    place: int
    lengths: tuple[int, int]
    mask: tuple[list[int], ...] = ()

    @property
    def is_wrong(self) -> bool:
        """A false alarm or a miss."""
        if self.kind is None or self.prediction.error is not None:
            return False
        return (self.kind != GOOD) != bool(self.prediction.is_anomalous)


class Thumbnails:
    """Collects small pictures while images are inspected; a `Observer`.

    Use it as a context manager. Pictures go to a temporary file as they come.

    Parameters
    ----------
    stored : StoredModel
        The model, for the scale of the heatmap.
    expected : int
        How many images will come; the more, the smaller their pictures, so that the page of 5,000
        stays below 60 MB.
    """

    def __init__(self, stored: StoredModel, expected: int) -> None:
        self._map = stored.manifest.calibration.map
        self._learnt = stored.manifest.learnt
        self._calibrated = stored.manifest.calibration.digests
        self._bytes = _ALL_BYTES / max(min(expected, MOST_PICTURES), 1)
        side = (self._bytes / _BYTES_A_PIXEL) ** 0.5
        self.side = int(min(max(side, _SIDES[0]), _SIDES[1]))
        self.entries: list[Entry] = []
        self.n_learnt = 0  # images that training has seen
        self.n_calibrated = 0  # images that have set the limit
        self._labels: list[str] = []
        self._end = 0  # of the spool

    def __enter__(self) -> Self:
        self._spool = tempfile.TemporaryFile()
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.close()

    def look(self, one: Inspected, mask: NDArray[np.bool_] | None = None) -> Seen:
        """Make the small pictures of an image; called in threads."""
        size = fitted(one.photo.size, self.side)
        above = b""
        if self._map is not None and one.taken is not None:
            above = _levels(packed(one.outputs["anomaly_map"], self._map), size, one.taken)
        photo = photograph(one.photo.picture(size), size, self._bytes)
        return Seen(one.digest, photo, above, _outlined(mask, size))

    def add(self, path: Path, kind: str | None, prediction: Prediction, seen: Seen | None) -> None:
        """Keep an image, in the order of the run."""
        place, lengths = self._end, (0, 0)
        if seen is not None:
            try:
                self._spool.write(seen.photo + seen.heat)
                self._spool.flush()
            except OSError as error:
                raise cannot_write(Path(tempfile.gettempdir()), error) from error
            lengths = len(seen.photo), len(seen.heat)
            self._end += sum(lengths)
            self._labels.append(f"{seen.digest} {kind}")
            self.n_learnt += seen.digest in self._learnt
            self.n_calibrated += seen.digest in self._calibrated
        outline = () if seen is None else seen.mask
        self.entries.append(Entry(path, kind, prediction, place, lengths, outline))

    @property
    def fingerprint(self) -> str:
        """Of the images that were inspected, as the model sees them, and of their labels.

        It does not hang on names and order. Empty if there are none.
        """
        together = "\n".join(sorted(self._labels))
        return hashlib.sha256(together.encode()).hexdigest()[:16] if together else ""

    def pictures(self, entry: Entry) -> tuple[bytes, bytes]:
        """The photograph (JPEG) and the packed map (WebP, or nothing) of an entry."""
        self._spool.seek(entry.place)
        photo = self._spool.read(entry.lengths[0])
        return photo, self._spool.read(entry.lengths[1])


def photograph(image: Image, size: tuple[int, int], most_bytes: float) -> bytes:
    """An image as a JPEG of `size`, (height, width), in about so many bytes."""
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    data = b""
    for quality in _QUALITIES:
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= most_bytes:
            break
    return data


def heat(scores: NDArray[np.float32], size: tuple[int, int], taken: Taken) -> bytes:
    """Colours above the limit as a WebP, for a picture of `size`; nothing where nothing is above.

    `scores` are a calibrated map, shape `taken.map_size`.
    """
    scores = _with_peaks(scores, size, taken)
    marks = scores > LIMIT_SCORE
    if not marks.any():
        return b""
    out = drawing.overlaid(scores, marks, taken, size=_half(size))
    return _webp(cv2.cvtColor(out, cv2.COLOR_RGBA2BGRA), 60)


def _levels(levels: NDArray[np.uint8], size: tuple[int, int], taken: Taken) -> bytes:
    """A packed map as a WebP, for a picture of `size`."""
    levels = _with_peaks(levels, size, taken)
    return _webp(cv2.cvtColor(taken.map_to_original(levels, _half(size)), cv2.COLOR_GRAY2BGR), 75)


def _half(size: tuple[int, int]) -> tuple[int, int]:
    """What does for a map, which is smooth."""
    return max(size[0] // 2, 1), max(size[1] // 2, 1)


def _with_peaks(values: NDArray[Any], size: tuple[int, int], taken: Taken) -> NDArray[Any]:
    """A map for a picture of `size`; of tiles it may be much larger, and defects in it small."""
    pixels = np.sqrt(taken.pixel_area)  # of the photograph, in a pixel of the map
    return with_peaks(values, float(pixels * max(_half(size)) / max(taken.size)))


def _webp(picture: NDArray[Any], quality: int) -> bytes:
    data: bytes = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
    return data


def _outlined(mask: NDArray[np.bool_] | None, size: tuple[int, int]) -> tuple[list[int], ...]:
    """Outlines of a mask, as fine as a picture of `size` shows them."""
    if mask is None:
        return ()
    small = cv2.resize(mask.view(np.uint8), size[::-1], interpolation=cv2.INTER_AREA) > 0
    scale = np.array([mask.shape[1] / size[1], mask.shape[0] / size[0]])
    return tuple(np.rint(one * scale).astype(int).ravel().tolist() for one in outlines(small))


def chosen(entries: Sequence[Entry], most: int = MOST_PICTURES) -> set[int]:
    """Which entries a page shows, if there are too many.

    Those whose verdict is wrong, the ones farthest beyond the threshold first; then those that
    could not be inspected; then the highest scores.
    """

    def urgency(n: int) -> tuple[int, float]:
        prediction = entries[n].prediction
        if prediction.error is not None or prediction.score is None:
            return 1, 0
        if entries[n].is_wrong:
            return 0, -abs(prediction.score - prediction.threshold)
        return 2, -prediction.score

    order = sorted(range(len(entries)), key=urgency)
    return set(order[:most])
