"""Fitting a detector to images of good parts, each kind of method in its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..errors import ModelError, OptionError
from ..images import ImageSet, split_groups
from ..methods import registry
from ..model import FEW_FOLDS, GoodScores, Plan, StoredModel
from ..runtime import Engine
from ..support import Spool, bar, say
from .defects import rendered
from .shared import Shared
from .unseen import Also, Scores, cross_fit, in_groups, inspected

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
        For other methods, what each image scored by the statistics of the others.
    formula : callable or None
        For these, what the graph computes, as these scores are computed: views -> outputs.
    quantised : openvino.Model or None
        What the features come from, where that is quantised.
    """

    record: dict[str, Any]
    shown: NDArray[np.uint8]
    calibration: ImageSet | None = None
    groups: NDArray[np.intp] | None = None
    held_out: GoodScores | None = None
    formula: Callable[[NDArray[np.uint8]], dict[str, NDArray]] | None = None
    quantised: ov.Model | None = None


def learn(
    detector: Any,
    images: ImageSet,
    plan: Plan,
    *,
    epochs: int | None = None,
    before: StoredModel | None = None,
    held_out: GoodScores | None = None,
    groups: NDArray[np.intp] | None = None,
    shared: Shared | None = None,
) -> Learnt:
    """Fit a detector to images of good parts.

    Parameters are those of `steps.train`; `held_out` are the scores of what a statistical one has
    learnt before, `groups` the group of each image, numbered from 0 (None: each by itself).
    """
    if shared is None:
        with Shared() as own:
            return learn(
                detector,
                images,
                plan,
                epochs=epochs,
                before=before,
                held_out=held_out,
                groups=groups,
                shared=own,
            )
    groups = np.arange(len(images)) if groups is None else groups
    preset = registry.preset(plan.method)
    if preset.combines:
        return _learn_members(detector, images, groups, plan, epochs, shared)
    if preset.is_statistical:
        return _learn_statistics(detector, images, groups, plan, held_out, shared=shared)
    return _learn_by_gradient(detector, images, groups, plan, epochs, before)


def _learn_by_gradient(
    detector: Any,
    images: ImageSet,
    groups: NDArray[np.intp],
    plan: Plan,
    epochs: int | None,
    before: StoredModel | None = None,
) -> Learnt:
    epochs = epochs or registry.preset(plan.method).epochs or 1
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
    defects = rendered(monitored, plan.framing, plan.seed) if detector.needs_defects else None
    with bar(epochs, f"Training {plan.method}", is_timed=False) as step:
        detector.fit(views, validation=monitored, epochs=epochs, progress=step, defects=defects)
    record = {
        "n_fit": len(fit),
        "n_validation": len(validation),
        "n_calibration": len(calibration),
        "calibrated_on": parts[-1].tolist(),  # places among the images of the set
        "continued_from": None if before is None else before.digest,
        **asdict(detector.record),
    }
    shown = _shown(calibration)
    return Learnt(record, shown, calibration=calibration, groups=groups[parts[-1]])


def part_sizes(count: int) -> list[int]:
    """Sizes of the validation and the calibration part of `count` groups of images."""
    return [max(2, round(share * count)) for share in (_VALIDATION_SHARE, _CALIBRATION_SHARE)]


def least_groups(plan: Plan, detector: Any) -> int:
    """How few groups a method can learn from and be calibrated with."""
    methods = [member.method for member in getattr(detector, "members", ())] or [plan.method]
    if all(registry.preset(method).is_statistical for method in methods):
        return 2
    return 1 + sum(part_sizes(1))


def _learn_statistics(
    detector: Any,
    images: ImageSet,
    groups: NDArray[np.intp],
    plan: Plan,
    before: GoodScores | None = None,
    *,
    shared: Shared,
    is_fitted: bool = False,
    also: Also | None = None,
) -> Learnt:
    """Add images to a detector's statistic; score each by the statistic without its fold."""
    features = shared.features(detector, plan, images, lambda engine: check_input(engine, plan))
    if not is_fitted:
        detector.learn_all(features.set)
    held_out, folds = cross_fit(detector, features.set, plan, groups, also)
    if before is not None:
        held_out = before.joined(held_out)
    count = len(held_out)
    folds = folds * count // len(images)  # of all that was learnt, where images were added
    if before is not None and before.cross_fitted:
        folds = min(folds, FEW_FOLDS)
    record = {"n_fit": count, "n_calibration": count, "folds": folds}
    score = detector.scorer(detector.statistic)
    return Learnt(
        record,
        _shown(images),
        held_out=held_out,
        formula=lambda views: score(features.of(views)),
        quantised=features.quantised,
    )


def _learn_members(
    ensemble: Any,
    images: ImageSet,
    groups: NDArray[np.intp],
    plan: Plan,
    epochs: int | None,
    shared: Shared,
) -> Learnt:
    """Fit the members that are not yet; join what they say of images that none has learnt."""
    from ..runtime.convert import to_openvino

    with ExitStack() as stack:
        unseen, records, formulas = [], [], []
        for member in ensemble.members:
            own = replace(plan, method=member.method, parameters=member.parameters)
            kept = stack.enter_context(Unseen(len(images), plan.framing.map_size))
            unseen.append(kept)
            if registry.preset(member.method).is_statistical:
                learnt = _learn_statistics(
                    member.detector,
                    images,
                    groups,
                    own,
                    shared=shared,
                    is_fitted=member.training is not None,
                    also=kept.add,
                )
                record, formula = learnt.record, learnt.formula
            else:
                if member.training is None:
                    record = _learn_by_gradient(member.detector, images, groups, own, epochs).record
                else:
                    record = {"calibrated_on": member.training["calibrated_on"]}
                engine = Engine(to_openvino(member.detector.graph()), plan.precision)
                places, formula = record["calibrated_on"], engine.run_all
                some = images.subset(np.array(places))
                for index, outputs in inspected(engine, some, plan.framing):
                    kept.add(places[index], outputs)
            assert formula is not None
            formulas.append(formula)
            records.append({"name": member.name, "method": member.method, **record})
        joint = np.flatnonzero(np.all([kept.is_known for kept in unseen], axis=0))
        ensemble.standardise([kept.values for kept in unseen])
        is_crossed = any(record.get("folds", FEW_FOLDS + 1) <= FEW_FOLDS for record in records)
        found = Scores(cross_fitted=is_crossed)
        for number, index in enumerate(joint.tolist()):
            outputs = ensemble.combined(np, [kept.outputs(index) for kept in unseen])
            found.add(number, {name: values[0] for name, values in outputs.items()})
    record = {"n_fit": len(images), "n_calibration": len(joint), "members": records}
    if len(joint) < len(images):
        record["calibrated_on"] = joint.tolist()
    else:
        record["folds"] = min(each["folds"] for each in records)

    def formula_of_all(views: NDArray[np.uint8]) -> dict[str, NDArray]:
        inside = views[..., -1] if plan.framing.has_inside else None
        return dict(ensemble.combined(np, [formula(views) for formula in formulas], inside))

    return Learnt(
        record,
        _shown(images),
        held_out=in_groups(found.all(), groups[joint]),
        formula=formula_of_all,
    )


class Unseen:
    """What a member said of images that it had not learnt, by their index; maps are on disk.

    Parameters
    ----------
    count : int
        Of the images.
    map_size : (int, int)
        (height, width) of a map.
    """

    def __init__(self, count: int, map_size: tuple[int, int]) -> None:
        self._scores = np.full(count, np.nan)
        self._maxima = np.full(count, np.nan)
        self._maps: Spool | None = None
        self._new_maps = lambda: Spool(count, map_size, np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._maps is not None:
            self._maps.close()

    def add(self, index: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Keep what was said of an image."""
        self._scores[index] = outputs["score"]
        if "anomaly_map" in outputs:
            self._maps = self._maps or self._new_maps()
            self._maps[index] = outputs["anomaly_map"]
            self._maxima[index] = outputs["anomaly_map"].max()

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Of which images something was said, shape (count,)."""
        return np.isfinite(self._scores)

    @property
    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Scores, and the largest values of the maps; None for a member without maps."""
        known = self.is_known
        return self._scores[known], None if self._maps is None else self._maxima[known]

    def outputs(self, index: int) -> dict[str, NDArray[Any]]:
        """What was said of an image, as a batch of one."""
        found: dict[str, NDArray[Any]] = {"score": self._scores[[index]]}
        if self._maps is not None:
            found["anomaly_map"] = self._maps[np.array([index])]
        return found


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
