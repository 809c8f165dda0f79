"""The pose of a part: how a photograph is turned and moved so that all parts lie alike.

Two ways. Where the part stands out from its background, its own axes: the origin is its centroid,
its main axis becomes horizontal, and one of its third moments says which end is which. Where it
does not, the photograph is registered to one of the training images. Lengths are in units of the
photograph's longer side, so a pose holds for photographs of another resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, PoseError
from .formats import Image
from .part import bounds, find_small_part
from .stored import as_text, from_text

Affine = NDArray[np.float64]  # (2, 3): x' = A x + b, from upper left corners

ALIGN = ("none", "translation", "rigid", "auto")

_ENDS = (2, 98)  # percentiles of the extents over the training images
_MARGIN = 0.06  # of the longer side of the part, around it

# Where "auto" turns: blobs at the border in fewer images, main axis so much longer than the other,
# directions so much apart (1: all alike), and parts found in so many.
_AT_BORDER, _ELONGATED, _ALIKE, _FOUND = 0.1, 1.5, 0.9, 0.95

_THUMBNAIL = 96  # longer side at which photographs are registered
_ANGLES = 36  # tried around the circle
_CANDIDATES, _APART = 4, 3  # of these that are refined, and steps that lie between
_SMOOTH = (0.7, 1.2)  # of a photograph and of its edges, in pixels of the thumbnail
_MEDOID_OF = 64  # images that the medoid is looked for among
_REFINED = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)


@dataclass(frozen=True)
class OwnAxes:
    """A pose by the part's own axes.

    Parameters
    ----------
    turns : bool
        Whether the main axis is turned to the horizontal; otherwise the part is only moved.
    box : (float, float, float, float)
        What is taken around the part's centroid: xyxy along its axes.
    lengths, widths : (float, float)
        Least and largest extent along the axes of parts that are taken.
    moment : (int, int)
        Powers of the third moment whose sign tells the ends apart.
    """

    way: ClassVar[str] = "axes"
    turns: bool
    box: tuple[float, float, float, float]
    lengths: tuple[float, float]
    widths: tuple[float, float]
    moment: tuple[int, int] = (3, 0)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of what is taken of a photograph of `size`, in its pixels."""
        longer = max(size)
        x1, y1, x2, y2 = self.box
        return max(round((y2 - y1) * longer), 1), max(round((x2 - x1) * longer), 1)

    def matrix(self, small: Image, size: tuple[int, int]) -> Affine:
        """From the photograph to what is taken of it.

        Parameters
        ----------
        small : ndarray of uint8, shape (h, w, 3)
            The photograph, from `part.shrunk`.
        size : (int, int)
            (height, width) of the photograph.

        Raises
        ------
        PoseError
            No part stands out, or its extents are not those of good parts.
        """
        found = find_small_part(small)
        if found is None:
            raise PoseError("no part stands out from the background")
        part = Axes.of(found, turns=self.turns, moment=self.moment)
        for name, extent, (low, high) in (
            ("length", part.extent[2] - part.extent[0], self.lengths),
            ("width", part.extent[3] - part.extent[1], self.widths),
        ):
            if not low <= extent <= high:
                longer = max(size)
                raise PoseError(
                    f"the {name} of the part is {extent * longer:.0f} pixels, that of good parts "
                    f"{low * longer:.0f} to {high * longer:.0f}"
                )
        longer = max(size)
        cos, sin = math.cos(part.angle), math.sin(part.angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        # The thumbnail's sides are rounded: each axis has its own scale.
        scale = np.array([size[1] / small.shape[1], size[0] / small.shape[0]])
        centre = np.array(part.centre) * scale
        offset = -turn @ centre - np.array(self.box[:2]) * longer
        return np.column_stack([turn, offset])


@dataclass(frozen=True)
class Axes:
    """A part in its own axes.

    Parameters
    ----------
    centre : (float, float)
        Of the part, x and y in pixels of the thumbnail, from its upper left corner.
    angle : float
        Of the main axis, in radians, clockwise on the screen.
    extent : (float, float, float, float)
        xyxy along the axes from the centre, in units of the thumbnail's longer side.
    elongation : float
        Standard deviation along the main axis over that across it.
    moments : dict
        The normalized third moments, by their powers.
    """

    centre: tuple[float, float]
    angle: float
    extent: tuple[float, float, float, float]
    elongation: float
    moments: dict[tuple[int, int], float]

    POWERS: ClassVar = ((3, 0), (1, 2), (2, 1), (0, 3))

    @classmethod
    def of(cls, part: NDArray[np.bool_], *, turns: bool, moment: tuple[int, int] = (3, 0)) -> Self:
        """Those of a mask, its holes filled; where it does not turn, the axes are the image's."""
        outlines, _ = cv2.findContours(
            part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        filled = np.zeros(part.shape, np.uint8)
        cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
        found = cv2.moments(filled, binaryImage=True)
        area = found["m00"]
        centre = np.array([found["m10"], found["m01"]]) / area + 0.5
        xx, xy, yy = (found[name] / area for name in ("mu20", "mu11", "mu02"))
        angle = math.atan2(2 * xy, xx - yy) / 2
        half, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
        variances = half + spread, max(half - spread, 1e-9)
        third = [found[name] / area for name in ("mu30", "mu21", "mu12", "mu03")]
        moments = _moments(angle, third, variances)
        if turns and moments[moment] < 0:
            angle += math.pi
        axes = angle if turns else 0.0
        cos, sin = math.cos(axes), math.sin(axes)
        points = np.concatenate(outlines).reshape(-1, 2) + 0.5 - centre
        along = points @ np.array([[cos, -sin], [sin, cos]])
        longer = max(part.shape)
        low, high = (along.min(axis=0) - 0.5) / longer, (along.max(axis=0) + 0.5) / longer
        return cls(
            (float(centre[0]), float(centre[1])),
            axes,
            (float(low[0]), float(low[1]), float(high[0]), float(high[1])),
            math.sqrt(variances[0] / variances[1]),
            moments,
        )


def _moments(
    angle: float, third: Sequence[float], variances: tuple[float, float]
) -> dict[tuple[int, int], float]:
    """Third moments along axes that are turned, over the standard deviations along them."""
    c, s = math.cos(angle), math.sin(angle)
    rows = {
        (3, 0): (c**3, 3 * c * c * s, 3 * c * s * s, s**3),
        (2, 1): (-c * c * s, c**3 - 2 * c * s * s, 2 * c * c * s - s**3, c * s * s),
        (1, 2): (c * s * s, s**3 - 2 * c * c * s, c**3 - 2 * c * s * s, c * c * s),
        (0, 3): (-(s**3), 3 * c * s * s, -3 * c * c * s, c**3),
    }
    u, v = map(math.sqrt, variances)
    return {
        powers: float(np.dot(row, third)) / (u ** powers[0] * v ** powers[1])
        for powers, row in rows.items()
    }


@dataclass(frozen=True)
class Registration:
    """A pose by registration to one of the training images.

    Parameters
    ----------
    turns : bool
        Whether photographs are turned as well as moved.
    template : str
        The edges of the image that they are registered to: a PNG in base64.
    least : float
        The least correlation with it.
    most : float
        The largest shift.
    """

    way: ClassVar[str] = "registration"
    turns: bool
    template: str
    least: float
    most: float

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `OwnAxes.size_of`."""
        return size

    def matrix(self, small: Image, size: tuple[int, int]) -> Affine:
        """See `OwnAxes.matrix`."""
        template = from_text(self.template, "pose")
        found, correlation = _registered(_thumbnail(small), template, self.turns)
        shift = _shift(found, template.shape)
        if correlation < self.least:
            raise PoseError(
                f"it cannot be registered to the training images: the correlation is "
                f"{correlation:.2f}, that of good images {self.least:.2f} at least"
            )
        if shift > self.most:
            raise PoseError(
                f"the part is moved by {shift * max(size):.0f} pixels, in good images by "
                f"{self.most * max(size):.0f} at most"
            )
        scale = np.array([size[1] / template.shape[1], size[0] / template.shape[0]])
        linear = scale[:, None] * found[:, :2] / scale
        return np.column_stack([linear, scale * found[:, 2]])


Pose = OwnAxes | Registration
_WAYS: dict[str, Any] = {"axes": OwnAxes, "registration": Registration}


def pose_to_dict(pose: Pose) -> dict[str, Any]:
    """As plain values for a manifest."""
    return {"way": pose.way, **asdict(pose)}


def pose_from_dict(values: Mapping[str, Any]) -> Pose:
    """The inverse of `pose_to_dict`; OptionError if they are damaged."""
    try:
        kept = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name != "way"
        }
        pose: Pose = _WAYS[values["way"]](**kept)
        if isinstance(pose, Registration):
            from_text(pose.template, "pose")
        return pose
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f"The pose of a model is damaged: {error!r}.") from error


# --- learning it ---------------------------------------------------------------------------------


def learn_pose(align: str, images: Iterable[Image]) -> tuple[Pose | None, str]:
    """The pose that training images are brought into, and why.

    Parameters
    ----------
    align : {"none", "translation", "rigid", "auto"}
        See `AD`.
    images : iterable of ndarray of uint8, shape (h, w, 3)
        Thumbnails of the training images, from `part.shrunk`.

    Returns
    -------
    Pose or None
        None where they are left as they lie.
    str
        Why, in words, for people.
    """
    if align == "none":
        return None, ""
    smalls = [*images]
    parts = [find_small_part(small) for small in smalls]
    found = [part for part in parts if part is not None]
    share = len(found) / max(len(parts), 1)
    reason = _why_not(found, share)
    if align == "auto":
        if reason:
            return None, f"Pose: images are left as they lie, since {reason}."
        pose = _own_axes(found, turns=True)
        return pose, f"Pose: parts are turned into one, since {_why(found)}."
    turns = align == "rigid"
    stands_out = share >= _FOUND and _touching(found) < _AT_BORDER
    if stands_out and (not turns or _elongation(found) > _ELONGATED):
        how = "moved and turned" if turns else "moved"
        return _own_axes(found, turns=turns), f"Pose: parts are {how} by their outline."
    pose_found = _registration(smalls, turns=turns)
    return pose_found, "Pose: images are registered to the most typical of them."


def _why_not(found: Sequence[NDArray[np.bool_]], share: float) -> str:
    """Why parts are not turned by "auto"; empty where they are."""
    if share < _FOUND:
        return f"a part stands out from the background in {share:.0%} of them only"
    touching = _touching(found)
    if touching >= _AT_BORDER:
        return f"the part touches the border in {touching:.0%} of them"
    if _elongation(found) <= _ELONGATED:
        return f"the part is hardly longer than wide ({_elongation(found):.1f} : 1)"
    if _alike(found) >= _ALIKE:
        return "the parts lie alike"
    return ""


def _why(found: Sequence[NDArray[np.bool_]]) -> str:
    return (
        f"an elongated part ({_elongation(found):.1f} : 1) stands out from the background and "
        f"lies in different directions (agreement {_alike(found):.2f} of 1)"
    )


def _touching(found: Sequence[NDArray[np.bool_]]) -> float:
    """In which share of the images the part touches the border."""
    at = [
        part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any() for part in found
    ]
    return float(np.mean(at)) if at else 1.0


def _elongation(found: Sequence[NDArray[np.bool_]]) -> float:
    return float(np.median([Axes.of(part, turns=True).elongation for part in found]))


def _alike(found: Sequence[NDArray[np.bool_]]) -> float:
    angles = np.array([Axes.of(part, turns=True).angle for part in found])
    return float(abs(np.exp(2j * angles).mean()))


def _own_axes(found: Sequence[NDArray[np.bool_]], *, turns: bool) -> OwnAxes:
    moments = [Axes.of(part, turns=turns).moments for part in found]
    # The one that is largest where it is small, among good parts.
    clearest = {
        powers: float(np.percentile(np.abs([one[powers] for one in moments]), 5))
        for powers in Axes.POWERS
    }
    moment = max(Axes.POWERS, key=lambda powers: clearest[powers])
    extents = np.array([Axes.of(part, turns=turns, moment=moment).extent for part in found])
    low, high = np.percentile(extents, _ENDS, axis=0)
    box = np.array([low[0], low[1], high[2], high[3]])
    margin = _MARGIN * max(box[2] - box[0], box[3] - box[1])
    box += np.array([-margin, -margin, margin, margin])
    lengths, widths = (extents[:, axis + 2] - extents[:, axis] for axis in (0, 1))
    x1, y1, x2, y2 = (float(value) for value in box)
    return OwnAxes(turns, (x1, y1, x2, y2), bounds(lengths), bounds(widths), moment)


def _registration(smalls: Sequence[Image], *, turns: bool) -> Registration:
    thumbnails = [_thumbnail(small) for small in smalls]
    shape = thumbnails[0].shape
    alike = [np.asarray(cv2.resize(one, shape[::-1]), np.uint8) for one in thumbnails]
    step = -(-len(alike) // _MEDOID_OF)
    some = np.array([one.ravel() for one in alike[::step]], np.float32)
    square = (some**2).sum(axis=1)
    distances = square[:, None] + square - 2 * some @ some.T
    template = alike[::step][int(np.sqrt(np.maximum(distances, 0)).sum(axis=1).argmin())]
    found = [_registered(one, template, turns) for one in thumbnails]
    correlations = np.array([correlation for _, correlation in found])
    shifts = np.array([_shift(matrix, shape) for matrix, _ in found])
    spread = float(np.median(correlations) - correlations.min())
    least = max(float(correlations.min()) - 0.5 * spread - 0.05, 0.1)
    return Registration(
        turns,
        as_text(template),
        round(least, 4),
        round(1.5 * float(shifts.max()) + 0.02, 4),
    )


# --- registration --------------------------------------------------------------------------------


def _thumbnail(small: Image) -> NDArray[np.uint8]:
    """What is registered: the edges of a photograph, shape (h, w)."""
    scale = _THUMBNAIL / max(small.shape[:2])
    size = (max(8, round(small.shape[1] * scale)), max(8, round(small.shape[0] * scale)))
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    # Edges turn with the part; the light on it does not.
    out: Any = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    out = cv2.GaussianBlur(out, (0, 0), _SMOOTH[0])
    edges = cv2.magnitude(cv2.Sobel(out, cv2.CV_32F, 1, 0), cv2.Sobel(out, cv2.CV_32F, 0, 1))
    edges = cv2.GaussianBlur(edges, (0, 0), _SMOOTH[1])
    strongest = max(float(np.percentile(edges, 99.5)), 1.0)
    return np.clip(edges * (255 / strongest), 0, 255).astype(np.uint8)


def _registered(
    thumbnail: NDArray[np.uint8], template: NDArray[np.uint8], turns: bool
) -> tuple[Affine, float]:
    """From a thumbnail to the template, and the correlation then."""
    height, width = template.shape
    image = (
        cv2.resize(thumbnail, (width, height)) if thumbnail.shape != template.shape else thumbnail
    )
    moving, fixed = image.astype(np.float32), template.astype(np.float32)
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    centre = (width / 2 - 0.5, height / 2 - 0.5)
    tried = []
    for number in range(_ANGLES if turns else 1):
        turn: Affine = np.asarray(
            cv2.getRotationMatrix2D(centre, 360 * number / _ANGLES, 1.0), np.float64
        )
        turned = _warped(moving, turn) if number else moving
        # OpenCV multiplies the window into what it is given.
        shift, _ = cv2.phaseCorrelate(turned.copy(), fixed.copy(), window)
        turn[:, 2] += np.array(shift)
        tried.append((_correlation(_warped(moving, turn), fixed), number, turn))
    tried.sort(key=lambda one: -one[0])
    best, highest = np.eye(2, 3), -1.0
    chosen: list[int] = []
    for _, number, matrix in tried:
        steps = [abs(number - other) for other in chosen]
        if any(min(step, _ANGLES - step) < _APART for step in steps):
            continue
        refined, correlation = _refined(moving, fixed, matrix, turns)
        if correlation > highest:
            best, highest = refined, correlation
        chosen.append(number)
        if len(chosen) == _CANDIDATES:
            break
    # Pixel centres -> corners.
    best = best.astype(np.float64)
    best[:, 2] += 0.5 - best[:, :2] @ np.array([0.5, 0.5])
    return best, float(highest)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson's, of two images."""
    return float(cv2.matchTemplate(a, b, cv2.TM_CCOEFF_NORMED)[0, 0])


def _refined(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], matrix: Affine, turns: bool
) -> tuple[Affine, float]:
    motion = cv2.MOTION_EUCLIDEAN if turns else cv2.MOTION_TRANSLATION
    # Turned first: OpenCV takes the angle from its sine, which is that of less than a right angle.
    near = _warped(moving, matrix)
    try:
        start = np.eye(2, 3, dtype=np.float32)
        correlation, back = cv2.findTransformECC(fixed, near, start, motion, _REFINED)
    except cv2.error:  # it does not converge from here
        return matrix, -1.0
    # OpenCV's matrix leads from the template to the image.
    rest = np.asarray(cv2.invertAffineTransform(np.asarray(back, np.float64)))
    both = np.column_stack([rest[:, :2] @ matrix[:, :2], rest @ [*matrix[:, 2], 1]])
    return both, float(correlation)


def _warped(image: NDArray[np.float32], matrix: Affine) -> NDArray[np.float32]:
    height, width = image.shape
    out = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.float32)


def _shift(matrix: Affine, shape: Sequence[int]) -> float:
    """How far the middle of a thumbnail is moved, in units of its longer side."""
    middle = np.array([shape[1] / 2, shape[0] / 2])
    thumbnail = max(shape[:2])
    moved = matrix[:, :2] @ middle + matrix[:, 2] - middle
    return float(np.hypot(*moved)) / thumbnail
