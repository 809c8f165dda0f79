"""From images of good parts to a saved model: prepare, split, fit, convert, prove, calibrate, save.

Needs the extra "train": this is the one module outside `detectors`, `layers` and `backbones` that
has Keras loaded when it works.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from .._version import __version__
from ..errors import DataError, ModelError, ParityError
from ..images import ImageSet, TrainingImages, split
from ..methods import registry
from ..methods.features import FeatureSet
from ..model.calibration import GoodScores
from ..model.plan import Plan
from ..model.store import Manifest, ModelWriter, StoredModel, load
from ..runtime.engine import Engine
from ..support.progress import bar

if TYPE_CHECKING:
    from ..methods.base import StatisticalDetector

_PARITY_IMAGES = 8
_VALIDATION_SHARE = 0.1
_CALIBRATION_SHARE = 0.2
_FOLDS = 5
# Of the formula that the limits come from and the converted graph, by arithmetic.
_FORMULA_TOLERANCE = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}


def train(
    plan: Plan,
    good: TrainingImages,
    directory: Path,
    *,
    epochs: int,
    before: StoredModel | None = None,
    network: Any = None,
) -> StoredModel:
    """Train and save a model. Nothing is saved until all is proven.

    A method that learns by gradient gets the images in three disjoint, seeded parts: for fitting,
    for validation (which weights are best) and for calibration (where good ends). A statistical
    method is fitted to all of them, and calibrated with the scores that each image gets from the
    statistics of the others (cross-fitting).

    Parameters
    ----------
    plan : Plan
        What to make.
    good : TrainingImages
        Images of good parts.
    directory : Path
        The model directory; a model there is replaced.
    epochs : int
        Passes over the images, for methods that learn by gradient.
    before : StoredModel, optional
        A model of the same plan. A method that learns by gradient goes on from its weights if it
        was trained on the same images, and begins anew if not; a statistical one begins anew.
    network : keras.Model, optional
        A backbone of the user's own.

    Raises
    ------
    DataError
        Too few images, broken ones, or images that are all the same.
    BackboneError
        The backbone cannot be had or does not fit.
    MissingExtraError
        TensorFlow, or the package of the backbone's weights, is not installed.
    ParityError
        The converted model is not the trained one.
    OutputError
        The model cannot be saved.
    """
    detector = build(plan, network)
    _check_count(len(good.paths), registry.preset(plan.method).min_images)
    start = time.perf_counter()
    with _decode(good, plan, set()) as (images, own):
        _check_count(len(images), registry.preset(plan.method).min_images)
        if before is not None and before.manifest.training.get("images") != own["images"]:
            # Other images are divided otherwise: some that the old weights were fitted to would be
            # calibrated with, and the stated false alarm rate would not hold.
            print("These are not the images of the loaded model: training begins anew.")
            before = None
        learnt = learn(detector, images, plan, epochs=epochs, before=before)
        record = {"images": own["images"], "sets": [own], **learnt.record}
        record["seconds"] = round(time.perf_counter() - start, 1)
        return _save(plan, detector, learnt, record, directory)


def add_images(
    stored: StoredModel, good: TrainingImages, directory: Path, *, network: Any = None
) -> StoredModel:
    """Add images of good parts to a model as if they had been there before, and save it.

    The new images are scored by the statistics of all others, old and new; these scores join those
    that the old images got when they came, and the limits are taken from all.

    Images that the model knows already are left out; parameters and errors as in `train`, and
    DataError also if none is left.
    """
    plan = stored.manifest.plan
    detector = build(plan, network)
    _check_count(len(good.paths), 2)
    held_out = _of_training(stored)
    detector.restore(stored.detector_state())
    record = stored.manifest.training
    with _decode(good, plan, stored.manifest.learnt) as (images, added):
        learnt = _learn_statistics(detector, images, plan, held_out)
        together = f"{record.get('images')}{added['images']}".encode()
        record = {
            **record,
            **learnt.record,
            "images": hashlib.sha256(together).hexdigest(),
            "sets": [*record.get("sets", []), added],
        }
        return _save(plan, detector, learnt, record, directory)


def _save(
    plan: Plan, detector: Any, learnt: Learnt, record: dict[str, Any], directory: Path
) -> StoredModel:
    """Graph, convert, prove, score unseen good images, take the limits, save.

    What is proven and scored is the file that is saved.
    """
    from ..runtime.convert import prove_parity, to_openvino

    graph = detector.graph()
    with ModelWriter(directory) as writer:
        writer.write_graph(to_openvino(graph))
        engine = Engine(writer.xml, "f32")
        parity = prove_parity(graph, engine, _with_defects(learnt.shown))
        if plan.precision != "f32":
            engine = Engine(writer.xml, plan.precision)
        good = _unseen_scores(detector, learnt, engine)
        writer.write_state({**detector.state(), **good.arrays()})
        manifest = Manifest(
            plan=plan,
            outputs=engine.output_names,
            calibration=good.calibration(plan.false_alarm_rate),
            training=record,
            parity=parity.to_dict(),
            versions=_versions(),
        )
        del engine  # its file is about to be moved, and Windows keeps open files where they are
        writer.commit(manifest)
    return replace(load(directory), replaced=writer.replaced)


def _of_training(stored: StoredModel) -> GoodScores:
    """What the images that the model was trained on scored, as the formula gave it."""
    try:
        return replace(GoodScores.from_arrays(stored.state()), raised=(0.0, 0.0))
    except (KeyError, ValueError) as error:
        raise ModelError(f"The training state lacks {error}. Train the model anew.") from error


def build(plan: Plan, network: Any = None) -> Any:
    """The detector of a plan, not fitted yet; `network` takes the place of its backbone's name."""
    cls = registry.detector_class(plan.method)
    own = {} if network is None else {"backbone": network}
    return cls(plan.spec, plan.patch_size, plan.seed, **{**plan.parameters, **own})


def still_falling(record: Mapping[str, Any]) -> str:
    """A word of warning where a training ended though it was still getting better; else empty."""
    losses = record.get("history", {}).get("val_loss", [])
    epochs = len(losses)
    # By more than 1 % since a fifth of the epochs ago, and the last was the best.
    earlier = losses[: epochs - max(1, epochs // 5)]
    if epochs < 2 or min(losses) < losses[-1] or losses[-1] > 0.99 * min(earlier):
        return ""
    return (
        f"the validation loss still fell when training ended after {epochs} "
        f"{'epoch' if epochs == 1 else 'epochs'}. Train for more, or call train again to go on."
    )


def part_sizes(count: int) -> list[int]:
    """Sizes of the validation and the calibration part of `count` images."""
    return [max(2, round(share * count)) for share in (_VALIDATION_SHARE, _CALIBRATION_SHARE)]


def _check_count(count: int, minimum: int) -> None:
    if count < minimum:
        raise DataError(
            f"Training needs at least {minimum} images of good parts; {count} were found. "
            "Take more photographs; 50 to 200 are usual."
        )


@contextmanager
def _decode(
    good: TrainingImages, plan: Plan, known: Collection[str]
) -> Iterator[tuple[ImageSet, dict[str, Any]]]:
    """The images and what the manifest says of them.

    Each image comes once: a copy in another part would make the limit of good too low.
    """
    with bar(len(good.paths), "Reading images") as step:
        images = ImageSet.decode(good.paths, plan.spec, lambda: step(""))
    with images:
        digests = images.digests()
        first = {digest: index for index, digest in reversed([*enumerate(digests)])}
        if len(first) == 1 and len(images) > 1:
            raise DataError(
                f"All {len(images)} images look the same to the model, so there is nothing to "
                "learn of what varies on good parts. Are they copies, or all black?"
            )
        new = sorted(index for digest, index in first.items() if digest not in known)
        if not new:
            raise DataError(f"The model has learnt from all of these images already: {good}.")
        if len(new) < len(images):
            print(
                f"{len(images) - len(new)} of {len(images)} images are copies of others, or known "
                "to the model already; they are left out."
            )
        kept = [digests[index] for index in new]
        about = {
            "source": str(good),
            "images": hashlib.sha256(" ".join([repr(plan.spec), *kept]).encode()).hexdigest(),
            "digests": kept,
        }
        yield images.subset(np.array(new)), about


@dataclass(frozen=True)
class Learnt:
    """What a fit leaves beside the detector.

    Parameters
    ----------
    record : dict
        Of the fit, for the manifest.
    shown : ndarray of uint8, shape (N, height, width, channels)
        Images to prove the conversion with.
    calibration : ImageSet or None
        Images that the fit has not seen, for a method that learns by gradient.
    held_out : GoodScores or None
        For a statistical one, what each image scored by the statistics of the others.
    features : Engine or None
        For a statistical one, its features, compiled.
    """

    record: dict[str, Any]
    shown: NDArray[np.uint8]
    calibration: ImageSet | None = None
    held_out: GoodScores | None = None
    features: Engine | None = None


def learn(
    detector: Any,
    images: ImageSet,
    plan: Plan,
    *,
    epochs: int,
    before: StoredModel | None = None,
) -> Learnt:
    """Fit a detector to images of good parts, each kind in its way; parameters as in `train`."""
    if registry.preset(plan.method).is_statistical:
        return _learn_statistics(detector, images, plan, None)
    return _learn_by_gradient(detector, images, plan, epochs, before)


def _unseen_scores(detector: Any, learnt: Learnt, engine: Engine) -> GoodScores:
    """What good images score that the fit has not seen, by the finished engine's arithmetic."""
    if learnt.calibration is not None:
        return _score(engine, learnt.calibration)
    assert learnt.held_out is not None and learnt.features is not None
    higher = _prove_formula(detector, learnt.features, engine, learnt.shown)
    return replace(learnt.held_out, raised=(higher.score, higher.maximum))


# --------------------------------------------------------------- methods that learn by gradient


def _learn_by_gradient(
    detector: Any, images: ImageSet, plan: Plan, epochs: int, before: StoredModel | None
) -> Learnt:
    fit, validation, calibration = (
        images.subset(part) for part in split(len(images), part_sizes(len(images)), plan.seed)
    )
    if before is not None:
        detector.restore(before.detector_state())
    with bar(epochs, "Training") as step:
        detector.fit(fit, validation=validation, epochs=epochs, progress=step)
    record = {
        "n_fit": len(fit),
        "n_validation": len(validation),
        "n_calibration": len(calibration),
        "continued_from": None if before is None else before.digest,
        "epochs": detector.record.epochs,
        "history": detector.record.history,
    }
    shown = calibration[slice(0, _PARITY_IMAGES)]
    return Learnt(record, shown, calibration=calibration)


# ------------------------------------------------------------------------ statistical methods


def _learn_statistics(
    detector: StatisticalDetector,
    images: ImageSet,
    plan: Plan,
    before: GoodScores | None,
) -> Learnt:
    """Add images to a detector's statistic; score each by the statistic without its fold."""
    from ..runtime.convert import to_openvino

    engine = Engine(to_openvino(detector.features()), plan.precision)
    with bar(len(images), "Features") as step:
        features = FeatureSet.compute(engine, images, step)
    with features:
        held_out = cross_fit(detector, features, plan.seed)
    if before is not None:
        held_out = before.joined(held_out)
    count = detector.statistic.count
    record = {"n_fit": count, "n_calibration": len(held_out), "folds": _FOLDS}
    shown = images[slice(0, _PARITY_IMAGES)]
    return Learnt(record, shown, held_out=held_out, features=engine)


def cross_fit(detector: StatisticalDetector, features: FeatureSet, seed: int) -> GoodScores:
    """Learn all features, then score each fold by what was learnt without it."""
    count = len(features)
    folds = min(_FOLDS, count)
    _learn(detector.statistic, features, np.arange(count))
    scores = np.empty(count)
    maxima = np.empty(count)
    with bar(count, "Calibrating") as step:
        for fold in split(count, [count // folds] * (folds - 1), seed):
            part = _learn(detector.new_statistic(), features, fold)
            score = detector.scorer(detector.statistic.without(part))
            done = 0
            for batch in features.batches(fold):
                outputs = score(batch["features"])
                these = fold[done : done + len(outputs["score"])]
                scores[these] = outputs["score"]
                if "anomaly_map" in outputs:
                    maxima[these] = outputs["anomaly_map"].max(axis=(1, 2))
                for _ in these:
                    step("")
                done += len(these)
    return GoodScores(scores, maxima if "anomaly_map" in outputs else None, cross_fitted=True)


def _learn(statistic: Any, features: FeatureSet, indices: NDArray[np.intp]) -> Any:
    for batch in features.batches(indices):
        vectors = batch["features"]
        statistic.update(vectors.reshape(len(vectors), -1, vectors.shape[-1]))
    return statistic


@dataclass(frozen=True)
class _Higher:
    """How much higher the graph judges good images than the formula, at most.

    In an arithmetic other than f32 the held-out scores and maxima are raised by it, so that the
    limits hold.
    """

    score: float
    maximum: float


def _prove_formula(
    detector: StatisticalDetector, features: Engine, finished: Engine, images: NDArray[np.uint8]
) -> _Higher:
    """Compare the converted graph with the formula that the limits are taken with."""
    from ..runtime.convert import extent

    good = len(images)
    images = _with_defects(images)
    expected = detector.scorer(detector.statistic)(features.run_all(images)["features"])
    received = finished.run_all(images, expected)
    largest = max(
        float(np.abs(values - received[name]).max()) / extent(expected, name)
        for name, values in expected.items()
    )
    tolerance = _FORMULA_TOLERANCE[finished.precision]
    if not largest <= tolerance and finished.precision != "f32":
        raise ParityError(
            f"In the arithmetic {finished.precision} the model deviates by {largest:.1e} of the "
            f"range from what was trained; at most {tolerance} is accepted. Nothing was saved. "
            'Train with precision="f32", or with a larger img_size.'
        )
    if not largest <= tolerance:
        raise ParityError(
            f"The converted model deviates by {largest:.1e} of the range from the formula "
            f"that its limits come from; at most {tolerance} is accepted. Nothing was saved. "
            "Report this as a bug, with the versions of keras, tensorflow and openvino."
        )
    if finished.precision == "f32":  # next to nothing
        return _Higher(0.0, 0.0)

    def higher(values: Callable[[Mapping[str, NDArray]], NDArray]) -> float:
        return max(float((values(received) - values(expected))[:good].max()), 0.0)

    with_map = "anomaly_map" in expected
    return _Higher(
        higher(lambda outputs: outputs["score"]),
        higher(lambda outputs: outputs["anomaly_map"].max(axis=(1, 2))) if with_map else 0.0,
    )


# -------------------------------------------------------------------------------- all methods


def _with_defects(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """These images, and each again with a gray square in its middle.

    The range that deviations are measured by is then the one from good to defective. Images that a
    model was fitted to may all score nearly the same, and then say nothing of what is large.
    """
    spoilt = images.copy()
    _, height, width, _ = images.shape
    spoilt[:, height // 3 : -(height // 3), width // 3 : -(width // 3)] = 128
    return np.concatenate([images, spoilt])


def _score(engine: Engine, images: ImageSet) -> GoodScores:
    """The converted model's own scores of images that the fit has not seen."""
    scores: list[float] = []
    maxima: list[float] = []
    with bar(len(images), "Calibrating") as step:
        singles = ((None, image) for batch in images for image in batch)
        for _, outputs in engine.stream(singles, ("score", "anomaly_map")):
            assert outputs is not None
            scores.append(float(outputs["score"][0]))
            if "anomaly_map" in outputs:
                maxima.append(float(outputs["anomaly_map"].max()))
            step("")
    return GoodScores(np.array(scores), np.array(maxima) if maxima else None)


def _versions() -> dict[str, str]:
    loaded = sys.modules  # the detector has imported them
    return {
        "anomaly_ad": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "openvino": ov.__version__,
        "keras": loaded["keras"].__version__,
        "tensorflow": loaded["tensorflow"].__version__,
    }
