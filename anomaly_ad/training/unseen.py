"""Scores of good images that no fit has seen: what the limits are taken from.

Of a method that learns by gradient they are those of images that were kept apart. A statistical one
is fitted to all images; each is scored by the statistic without its fold, and the formula that this
takes is compared with the model that ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ParityError
from ..images import Framing, ImageSet, split_groups
from ..images.taken import with_peaks
from ..model import FEW_FOLDS, MOST_MAPS, GoodScores, Plan
from ..runtime import Engine
from ..runtime.agreement import extent
from ..support import bar

if TYPE_CHECKING:
    from ..methods.base import StatisticalDetector
    from ..methods.features import FeatureSet
    from .learning import Learnt
    from .spread import SpreadFeatures

# Of the formula that the limits come from and the converted graph, by arithmetic.
_FORMULA_TOLERANCE = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}
_MAP_SIDE = 128  # pixels, of maps that are kept for looking at

# Takes what was said of an image, and its index.
Also = Callable[[int, Mapping[str, NDArray[Any]]], None]


def unseen_scores(learnt: Learnt, engine: Engine, framing: Framing) -> GoodScores:
    """What good images score that the fit has not seen, by the finished engine's arithmetic."""
    if learnt.calibration is not None:
        found = Scores(cross_fitted=False)
        for index, outputs in inspected(engine, learnt.calibration, framing):
            found.add(index, outputs)
        return in_groups(found.all(), learnt.groups)
    assert learnt.held_out is not None and learnt.formula is not None
    higher = _prove_formula(learnt.formula, engine, learnt.shown, framing)
    return replace(learnt.held_out, raised=(higher.score, higher.maximum))


def inspected(
    engine: Engine, images: ImageSet, framing: Framing
) -> Iterator[tuple[int, Mapping[str, NDArray]]]:
    """What a converted model says of each image, with its index."""
    with bar(len(images), "Calibrating") as step:
        each = ((None, seen) for seen in images.singly())
        names = ("score", "anomaly_map")
        for index, (_, outputs) in enumerate(engine.inspect_all(each, framing, names)):
            assert outputs is not None
            yield index, outputs
            step("")


def cross_fit(
    detector: StatisticalDetector,
    features: FeatureSet | SpreadFeatures,
    plan: Plan,
    groups: NDArray[np.intp],
    also: Also | None = None,
) -> tuple[GoodScores, int]:
    """Score each image by what a detector that has learnt all has without it, or its fold.

    Groups of images, shape (N,), are left out as a whole. `also` gets each image's index, and what
    was said of it.

    Returns
    -------
    (GoodScores, int)
        And how many folds there were: as many as groups where each was left out alone.
    """
    count = int(groups.max()) + 1
    # The formula leaves out one view: not the other tiles of its image, or images of its group.
    is_exact = (
        count == len(features)
        and plan.framing.tiles is None
        and detector.unseen_scorer(detector.statistic) is not None
    )
    folds = count if is_exact else detector.folds(count)
    # As many as a batch are scored at a time where the formula leaves out each by itself.
    parts = 1 if is_exact else folds
    found = Scores(cross_fitted=folds <= FEW_FOLDS)
    with bar(len(features), "Calibrating") as step:
        for fold in split_groups(groups, [count // parts] * (parts - 1), plan.seed):
            known = detector.statistic
            if not is_exact:
                known = known.without(
                    features.gather(detector, "learn", detector.new_statistic(), fold)
                )
            scored = features.scored(detector, known, fold, plan.framing, has_learnt=is_exact)
            for index, outputs in scored:
                found.add(index, outputs)
                if also is not None:
                    also(index, outputs)
                step("")
    return in_groups(found.all(), groups), folds


def in_groups(scores: GoodScores, groups: NDArray[np.intp] | None) -> GoodScores:
    """The scores with their groups, where any is of more than one image."""
    if groups is None or len(np.unique(groups)) == len(groups):
        return scores
    return replace(scores, groups=groups)


class Scores:
    """Raw scores and maxima of the maps, by image; and the maps of the highest scores."""

    def __init__(self, *, cross_fitted: bool) -> None:
        self._cross_fitted = cross_fitted
        self._scores: dict[int, float] = {}
        self._maxima: dict[int, float] = {}
        self._maps: dict[int, NDArray[np.float32]] = {}

    def add(self, index: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Take what was said of an image."""
        self._scores[index] = float(outputs["score"])
        if "anomaly_map" in outputs:
            self._maxima[index] = float(outputs["anomaly_map"].max())
            self._keep(index, outputs["anomaly_map"])

    def _keep(self, index: int, anomaly_map: NDArray[Any]) -> None:
        """Keep the map of an image while its score is among the highest."""
        lowest = min(self._maps, key=self._scores.__getitem__, default=index)
        if len(self._maps) == MOST_MAPS:
            if self._scores[index] <= self._scores[lowest]:
                return
            del self._maps[lowest]
        self._maps[index] = _reduced(anomaly_map)

    def all(self) -> GoodScores:
        """Of all images that were added, in the order of their indices."""
        scores, maxima = (
            np.array([some[index] for index in sorted(some)])
            for some in (self._scores, self._maxima)
        )
        return GoodScores(
            scores,
            maxima if len(maxima) else None,
            cross_fitted=self._cross_fitted,
            maps=dict(sorted(self._maps.items())),
        )


def _reduced(anomaly_map: NDArray[Any]) -> NDArray[np.float32]:
    """A map with sides of at most `_MAP_SIDE`, for looking at."""
    height, width = anomaly_map.shape
    scale = min(_MAP_SIDE / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    out = with_peaks(anomaly_map.astype(np.float32), scale)
    out = cv2.resize(out, size, interpolation=cv2.INTER_AREA)
    return np.asarray(out, np.float32)


@dataclass(frozen=True)
class _Higher:
    """How much higher the graph scores good images than the formula, at most.

    In an arithmetic other than f32 the held-out scores and maxima are raised by it, so that the
    limits hold.
    """

    score: float
    maximum: float


def _prove_formula(
    formula: Callable[[NDArray[np.uint8]], dict[str, NDArray]],
    finished: Engine,
    views: NDArray[np.uint8],
    framing: Framing,
) -> _Higher:
    """Compare the converted graph with the formula that the limits are taken with."""
    good = len(views)
    views = with_defects(views, framing)
    expected = formula(views)
    received = finished.run_all(views, expected)
    largest = max(
        float(np.abs(values - received[name]).max()) / extent(expected, name)
        for name, values in expected.items()
    )
    tolerance = _FORMULA_TOLERANCE[finished.arithmetic]
    if not largest <= tolerance and finished.arithmetic != "f32":
        raise ParityError(
            f"In the arithmetic {finished.arithmetic} the model deviates by {largest:.1e} of the "
            f"range from what was trained; at most {tolerance} is accepted. Nothing was saved. "
            'Train with precision="f32", or with a larger img_size.'
        )
    if not largest <= tolerance:
        raise ParityError(
            f"The converted model deviates by {largest:.1e} of the range from the formula "
            f"that its limits come from; at most {tolerance} is accepted. Nothing was saved. "
            "Report this as a bug, with the versions of keras, tensorflow and openvino."
        )
    if finished.arithmetic == "f32":  # next to nothing
        return _Higher(0.0, 0.0)
    # Of views. That of an image does not exceed it: its score is one of theirs, or of their maps.
    higher = {
        name: float((_highest(received[name][:good]) - _highest(values[:good])).max())
        for name, values in expected.items()
    }
    maximum = max(higher.get("anomaly_map", 0.0), 0.0)
    by_map = framing.tiles is not None and framing.tiles.by_map
    return _Higher(maximum if by_map else max(higher["score"], 0.0), maximum)


def _highest(values: NDArray[Any]) -> NDArray[Any]:
    """Of each view."""
    return values.reshape(len(values), -1).max(axis=1)


def with_defects(views: NDArray[np.uint8], framing: Framing) -> NDArray[np.uint8]:
    """These views, and each again with a gray square in its middle.

    The range that deviations are measured by is then the one from good to defective. Images that a
    model was fitted to may all score nearly the same, and then say nothing of what is large.
    """
    damaged = views.copy()
    height, width = framing.size
    middle = damaged[:, height // 3 : -(height // 3), width // 3 : -(width // 3)]
    middle[..., : framing.channels] = 128
    return np.concatenate([views, damaged])
