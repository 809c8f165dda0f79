"""From images of good parts to a saved model: prepare, split, fit, convert, prove, calibrate, save.

Needs the extra "train": this is the one module outside `detectors`, `layers` and `backbones` that
has Keras loaded when it works.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import openvino as ov

from ._version import __version__
from .calibration import Calibration
from .detectors import registry
from .errors import DataError
from .images import ImageSet, TrainingImages, split
from .model_store import Manifest, ModelWriter, StoredModel, load
from .plan import Plan
from .progress import bar
from .runtime.engine import Engine

if TYPE_CHECKING:
    from .detectors.base import Detector

_PARITY_IMAGES = 16
_VALIDATION_SHARE = 0.1
_CALIBRATION_SHARE = 0.2


def train(
    plan: Plan,
    good: TrainingImages,
    directory: Path,
    *,
    epochs: int,
    before: StoredModel | None = None,
) -> StoredModel:
    """Train and save a model.

    The images are divided, seeded, into three disjoint parts: for fitting, for validation (which
    weights are best) and for calibration (where good ends). Nothing is saved until all is proven.

    Parameters
    ----------
    plan : Plan
        What to make.
    good : TrainingImages
        Images of good parts.
    directory : Path
        The model directory; a model there is replaced.
    epochs : int
        Passes over the images.
    before : StoredModel, optional
        A model of the same plan. Training goes on from its weights if it was trained on the same
        images, and begins anew if not.

    Raises
    ------
    DataError
        Too few images, or broken ones.
    MissingExtraError
        TensorFlow is not installed.
    ParityError
        The converted model is not the trained one.
    OutputError
        The model cannot be saved.
    """
    detector = build(plan)
    sizes = part_sizes(len(good.paths), registry.preset(plan.method).min_images)
    start = time.perf_counter()
    with bar(len(good.paths), "Reading images") as step:
        images = ImageSet.decode(good.paths, plan.spec, lambda: step(""))
    with images:
        fingerprint = images.fingerprint()
        if before is not None and before.manifest.training.get("images") != fingerprint:
            # Other images are divided otherwise: some that the old weights were fitted to would
            # be calibrated with, and the stated false alarm rate would not hold.
            print("These are not the images of the loaded model: training begins anew.")
            before = None
        if before is not None:
            detector.restore(before.state())
        fit, validation, calibration = (
            images.subset(part) for part in split(len(images), sizes, plan.seed)
        )
        with bar(epochs, "Training") as step:
            detector.fit(fit, validation=validation, epochs=epochs, progress=step)
        record = {
            "source": str(good),
            "images": fingerprint,
            "n_fit": len(fit),
            "n_validation": len(validation),
            "n_calibration": len(calibration),
            "continued_from": None if before is None else before.digest,
            "epochs": detector.record.epochs,
            "history": detector.record.history,
            "seconds": round(time.perf_counter() - start, 1),
        }
        return _finish(plan, detector, calibration, record, directory)


def build(plan: Plan) -> Detector:
    """The detector of a plan, not fitted yet."""
    cls = registry.detector_class(plan.method)
    return cls(plan.spec, plan.patch_size, plan.seed, **plan.parameters)


def part_sizes(count: int, minimum: int) -> Sequence[int]:
    """Sizes of the validation and the calibration part of `count` images."""
    if count < minimum:
        raise DataError(
            f"Training needs at least {minimum} images of good parts; {count} were found. "
            "Take more photographs; 50 to 200 are usual."
        )
    return [max(2, round(share * count)) for share in (_VALIDATION_SHARE, _CALIBRATION_SHARE)]


def _finish(
    plan: Plan, detector: Detector, calibration: ImageSet, record: dict[str, Any], directory: Path
) -> StoredModel:
    """Convert, prove parity, calibrate and save; what is proven is the file that is saved."""
    from .runtime.convert import prove_parity, to_openvino

    graph = detector.graph()
    with ModelWriter(directory) as writer:
        writer.write_graph(to_openvino(graph))
        parity = prove_parity(graph, Engine(writer.xml, "f32"), calibration[:_PARITY_IMAGES])
        engine = Engine(writer.xml, plan.precision)
        limits = _calibrate(engine, calibration, plan.false_alarm_rate)
        writer.write_state(detector.state())
        manifest = Manifest(
            plan=plan,
            outputs=engine.output_names,
            calibration=limits,
            training=record,
            parity=parity.to_dict(),
            versions=_versions(),
        )
        del engine  # its file is about to be moved, and Windows keeps open files where they are
        writer.commit(manifest)
    return load(directory)


def _calibrate(engine: Engine, images: ImageSet, rate: float) -> Calibration:
    """Both limits from the converted model's own scores of images that the fit has not seen."""
    scores: list[float] = []
    maxima: list[float] = []
    with bar(len(images), "Calibrating") as step:
        singles = ((None, image) for batch in images for image in batch)
        for _, outputs in engine.stream(singles):
            assert outputs is not None
            scores.append(float(outputs["score"][0]))
            if "anomaly_map" in outputs:
                maxima.append(float(outputs["anomaly_map"].max()))
            step("")
    return Calibration.from_good(np.array(scores), np.array(maxima) if maxima else None, rate)


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    return {
        "anomaly_ad": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "openvino": ov.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
