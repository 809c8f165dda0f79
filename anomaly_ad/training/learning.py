"""Fitting a detector to images of good parts, each kind of method in its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, OptionError
from ..images import ImageSet, split_groups
from ..methods import registry
from ..methods.features import FeatureSet
from ..model import FEW_FOLDS, GoodScores, Plan, StoredModel
from ..runtime import Engine
from ..support import bar, say
from .unseen import cross_fit

_PARITY_VIEWS, _PARITY_TILES = 8, 32
_VALIDATION_SHARE = 0.1
_CALIBRATION_SHARE = 0.2
_VIEWS_PER_EPOCH, _MONITORED_VIEWS = 1024, 256  # at most, of images in tiles


@dataclass(frozen=True)
class Learnt:
    """What a fit leaves besides the detector.

    Parameters
    ----------
    record : dict
        Of the fit, for the manifest.
    shown : ndarray of uint8, shape (N, height, width, channels)
        Views of images to prove the conversion with.
    calibration : ImageSet or None
        Images that the fit has not seen, for a method that learns by gradient.
    groups : ndarray of int, shape (N,), or None
        Their groups.
    held_out : GoodScores or None
        For a statistical one, what each image scored by the statistics of the others.
    features : Engine or None
        For a statistical one, its features, compiled.
    """

    record: dict[str, Any]
    shown: NDArray[np.uint8]
    calibration: ImageSet | None = None
    groups: NDArray[np.intp] | None = None
    held_out: GoodScores | None = None
    features: Engine | None = None


def learn(
    detector: Any,
    images: ImageSet,
    plan: Plan,
    *,
    epochs: int,
    before: StoredModel | None = None,
    held_out: GoodScores | None = None,
    groups: NDArray[np.intp] | None = None,
) -> Learnt:
    """Fit a detector to images of good parts.

    Parameters are those of `steps.train`; `held_out` are the scores of what a statistical one has
    learnt before, `groups` the group of each image, numbered from 0 (None: each by itself).
    """
    groups = np.arange(len(images)) if groups is None else groups
    if registry.preset(plan.method).is_statistical:
        return _learn_statistics(detector, images, groups, plan, held_out)
    return _learn_by_gradient(detector, images, groups, plan, epochs, before)


def _learn_by_gradient(
    detector: Any,
    images: ImageSet,
    groups: NDArray[np.intp],
    plan: Plan,
    epochs: int,
    before: StoredModel | None,
) -> Learnt:
    parts = split_groups(groups, part_sizes(int(groups.max()) + 1), plan.seed)
    fit, validation, calibration = (images.subset(part) for part in parts)
    if before is not None and not detector.can_restore(before.detector_state()):
        say(
            "The network of the loaded model is that of another version of anomaly_ad: training "
            "starts from scratch."
        )
        before = None
    if before is not None:
        detector.restore(before.detector_state())
    views, monitored = fit.as_views(), validation.as_views()
    if plan.framing.tiles is not None:
        views, monitored = fit.as_views(_VIEWS_PER_EPOCH), monitored.spread(_MONITORED_VIEWS)
    with bar(epochs, "Training", is_timed=False) as step:
        detector.fit(views, validation=monitored, epochs=epochs, progress=step)
    record = {
        "n_fit": len(fit),
        "n_validation": len(validation),
        "n_calibration": len(calibration),
        "calibrated_on": parts[-1].tolist(),  # places among the images of the set
        "continued_from": None if before is None else before.digest,
        "epochs": detector.record.epochs,
        "max_epochs": epochs,
        "history": detector.record.history,
    }
    shown = _shown(calibration)
    return Learnt(record, shown, calibration=calibration, groups=groups[parts[-1]])


def part_sizes(count: int) -> list[int]:
    """Sizes of the validation and the calibration part of `count` groups of images."""
    return [max(2, round(share * count)) for share in (_VALIDATION_SHARE, _CALIBRATION_SHARE)]


def least_groups(method: str) -> int:
    """How few groups a method can learn from and be calibrated with."""
    return 2 if registry.preset(method).is_statistical else 1 + sum(part_sizes(1))


def _learn_statistics(
    detector: Any,
    images: ImageSet,
    groups: NDArray[np.intp],
    plan: Plan,
    before: GoodScores | None,
) -> Learnt:
    """Add images to a detector's statistic; score each by the statistic without its fold."""
    from ..runtime.convert import to_openvino

    engine = Engine(to_openvino(detector.features()), plan.precision)
    check_input(engine, plan)
    with bar(len(images), "Features") as step:
        features = FeatureSet.compute(engine, images, step)
    with features:
        detector.learn_all(features)
        held_out, folds = cross_fit(detector, features, plan, groups)
    if before is not None:
        held_out = before.joined(held_out)
    count = len(held_out)
    folds = folds * count // len(images)  # of all that was learnt, where images were added
    if before is not None and before.cross_fitted:
        folds = min(folds, FEW_FOLDS)
    record = {"n_fit": count, "n_calibration": count, "folds": folds}
    return Learnt(record, _shown(images), held_out=held_out, features=engine)


def _shown(images: ImageSet) -> NDArray[np.uint8]:
    """Some views, to prove the conversion with."""
    most = _PARITY_VIEWS if images.total_views == len(images) else _PARITY_TILES
    return images.as_views().spread(most)[slice(None)]


def check_input(engine: Engine, plan: Plan) -> None:
    """Raise OptionError unless a graph takes what the plan's framing gives it."""
    try:
        received = engine.view_shape
    except ModelError as error:
        raise OptionError(f"The graph of {plan.method} cannot be used: {error}") from error
    if received != plan.framing.view_shape:
        raise OptionError(
            f"The graph of {plan.method} takes views of shape {received}, where "
            f'{plan.framing.view_shape} are given: uint8 "images" and, with fit="pad", a second '
            'input "inside" that is used; see methods.heads.model_input.'
        )
