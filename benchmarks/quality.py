"""What each decision behind the methods on features is worth: the figures of docs/quality.md.

    python benchmarks/quality.py $ANOMALY_AD_DATA

Image AUROC on parts of many kinds, for the defaults and with one decision changed at a time. The
package itself never sees a test label; this is how its authors chose between rules. The parts:

bottle, magnetic_tile   real images, as they are laid out
transistor, hazelnut    transistor_small and hazelnut_small, which have 2 good test images: the good
                        training images are held out in five folds, and the mean is shown
washer, washer any      the rendered sample set, lying as in a fixture, and in any rotation
washers long            three of them side by side, 400x1200 pixels, with faint defects
"""

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops
from sklearn.metrics import roc_auc_score

from anomaly_ad.backbones.networks import feature_maps
from anomaly_ad.data.sample import render_part, render_sample
from anomaly_ad.images import ImageSet, find_images, sample_sizes, split
from anomaly_ad.methods import registry
from anomaly_ad.methods.base import StatisticalDetector
from anomaly_ad.methods.heads import MapHead
from anomaly_ad.model.plan import Plan, input_size
from anomaly_ad.runtime.convert import to_openvino
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.statistics.density import KernelDensity
from anomaly_ad.statistics.moments import Moments
from anomaly_ad.statistics.pca import Subspace
from anomaly_ad.training.steps import build

FOLDS = 5
BATCH = 64

Change = Callable[[StatisticalDetector], None]


class Part:
    """Images of one kind of part: files, which are bad, and which to fit to and to test on."""

    def __init__(self, name: str, folder: Path, *, held_out: bool = False) -> None:
        self.name = name
        self.good, tested = find_images(folder / "train"), find_images(folder / "test")
        self.files = [*self.good, *tested]
        self.bad = np.array([False] * len(self.good) + [f.parent.name != "good" for f in tested])
        self.held_out = held_out

    def splits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices of the files to fit to and to test on."""
        count, rest = len(self.good), np.arange(len(self.good), len(self.files))
        if not self.held_out:
            yield np.arange(count), rest
            return
        for fold in split(count, [count // FOLDS] * (FOLDS - 1), 0):
            yield np.setdiff1d(np.arange(count), fold), np.concatenate([fold, rest])

    def auroc(self, method: str, change: Change, options: dict[str, Any]) -> float:
        """Mean image AUROC of a detector that was changed."""
        options, sizes = dict(options), sample_sizes(self.good)
        if "largest_area" in options:
            area = options.pop("largest_area")
            preset = dataclasses.replace(registry.preset(method), largest_area=area)
            options["img_size"] = input_size(preset, sizes)
        plan = Plan.from_options(method, options, sizes)
        detector: Any = build(plan)
        change(detector)
        with ImageSet.decode(self.files, plan.framing) as images:
            engine = Engine(to_openvino(detector.features()))
            each = ((None, views) for views in images.singly())
            features = np.concatenate([out["features"] for _, out in engine.stream(each)])
        found = []
        for fit, test in self.splits():
            statistic = detector.new_statistic()
            for start in range(0, len(fit), BATCH):
                batch = features[fit[start : start + BATCH]]
                statistic.update(batch.reshape(len(batch), -1, batch.shape[-1]))
            score = detector.scorer(statistic)
            scores = [
                score({"features": features[test[start : start + BATCH]]})["score"]
                for start in range(0, len(test), BATCH)
            ]
            found.append(roc_auc_score(self.bad[test], np.concatenate(scores)))
        return statistics.mean(found)


# ------------------------------------------------------------------- decisions taken otherwise


def as_it_is(detector: Any) -> None:
    """The method's own way."""


def one_scale(detector: Any) -> None:
    """Layers are not scaled to the same variance."""
    detector.groups = (sum(detector.groups),)


def coarsest_pooled(detector: Any) -> None:
    """The coarsest layer is averaged over 3 x 3 cells too, as in the paper."""
    features = detector._features.output["features"]
    finer = sum(detector.groups[:-1])
    pooled = ops.average_pool(features[..., finer:], 3, 1, padding="same")
    both = ops.concatenate([features[..., :finer], pooled], axis=-1)
    detector._features = keras.Model(detector._features.input, {"features": both})


def finer_grid(detector: Any) -> None:
    """Features lie on the grid of stage 2: stage 1 is averaged down, stage 4 is enlarged."""
    images = detector._features.input
    layers = ("stage1", "stage2", "stage4")
    maps = feature_maps(images, detector.framing, "efficientnet_lite0", layers)
    height, width = maps[1].shape[1:3]
    pooled = [ops.average_pool(each, 3, 1, padding="same") for each in maps[:2]]
    pooled[0] = ops.average_pool(pooled[0], 2, 2, padding="same")
    large = ops.image.resize(maps[2], (height, width), interpolation="bilinear")
    together = ops.concatenate([*pooled, large], axis=-1)
    detector._features = keras.Model(images, {"features": together})
    detector.grid = (height, width)
    detector.head = MapHead(detector.framing.size, detector.grid, 4.0)


def scored_by(pick: Callable[[dict[str, np.ndarray]], np.ndarray]) -> Change:
    """Another image score, from what the method measures."""

    def change(detector: Any) -> None:
        plain = detector.distances

        def distances(statistic: Any) -> Callable:
            measure = plain(statistic)
            return lambda vectors: {**(found := measure(vectors)), "score": pick(found)}

        detector.distances = distances

    return change


def map_maximum(detector: Any) -> None:
    """The score is the maximum of the blurred map."""
    plain = detector.distances
    detector.distances = lambda statistic: (
        lambda vectors: {"cells": plain(statistic)(vectors)["cells"]}
    )


def image_errors(which: int) -> Change:
    """The score of dfm is one of its two terms: 0 reconstruction error, 1 reduced Gaussian."""

    def change(detector: Any) -> None:
        def distances(statistic: Any) -> Callable:
            images = Subspace.of(statistic.images, detector.variance)

            def measure(vectors: np.ndarray) -> dict[str, np.ndarray]:
                together = (detector._parts @ vectors).reshape(len(vectors), -1)
                return {
                    "cells": np.zeros(vectors.shape[:2], np.float32),
                    "score": images.errors(together)[which],
                }

            return measure

        detector.distances = distances

    return change


def components(count: int) -> Change:
    """That many principal components instead of a share of the variance."""

    def change(detector: Any) -> None:
        def scorer(statistic: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
            vectors = statistic.vectors
            moments = Moments(1, vectors.shape[1]).update(vectors[:, None])
            subspace = Subspace.of(moments, 0.9999)
            basis = subspace.basis[:, :count]
            density = KernelDensity.of((vectors - subspace.mean) @ basis, detector.bandwidth)
            return lambda features: {
                "score": -density.log_density((features - subspace.mean) @ basis)
            }

        detector.scorer = scorer

    return change


VARIANTS: dict[str, list[tuple[str, Change, dict[str, Any]]]] = {
    "padim": [
        ("as it is", as_it_is, {}),
        ("input 256x256, stretched", as_it_is, {"img_size": (256, 256)}),
        ("input of up to 384x384 pixels", as_it_is, {"largest_area": 384 * 384}),
        ("no prior, regularization 0.1", as_it_is, {"prior": 0, "regularization": 0.1}),
        ("no prior", as_it_is, {"prior": 0}),
        ("prior of 100 images", as_it_is, {"prior": 100}),
        ("stages 2, 4", as_it_is, {"layers": ["stage2", "stage4"]}),
        ("score: largest distance of a cell", scored_by(lambda m: m["cells"].max(1)), {}),
    ],
    "patchcore": [
        ("as it is", as_it_is, {}),
        ("input 256x256, stretched", as_it_is, {"img_size": (256, 256)}),
        ("input of 256x256 pixels, not stretched", as_it_is, {"largest_area": 256 * 256}),
        ("input 384x384, smaller images enlarged", as_it_is, {"img_size": (384, 384)}),
        *(
            (f"stages {', '.join(stages)}", as_it_is, {"layers": [f"stage{n}" for n in stages]})
            for stages in ("24", "45", "345", "245", "1245", "12345")
        ),
        ("layers not scaled", one_scale, {}),
        ("3x3 means of the coarsest layer too", coarsest_pooled, {}),
        ("grid of stage 2", finer_grid, {}),
        ("pool of 20,000", as_it_is, {"pool": 20_000}),
        ("500 neighbours", as_it_is, {"neighbours": 500}),
        ("8,000 neighbours", as_it_is, {"neighbours": 8000}),
        ("score: mean of the highest 1 %", as_it_is, {"top_share": 0.01}),
        ("score: mean of the highest 5 %", as_it_is, {"top_share": 0.05}),
        ("score: largest distance of a cell", as_it_is, {"top_share": 1e-6}),
        ("score: of the paper", as_it_is, {"top_share": 0}),
        ("score: maximum of the map", map_maximum, {}),
    ],
    "dfm": [
        ("as it is", as_it_is, {}),
        ("score: reconstruction error alone", image_errors(0), {}),
        ("score: Gaussian of the reduced features alone", image_errors(1), {}),
        ("score: maximum of the map", map_maximum, {}),
        ("90 % of the variance", as_it_is, {"variance": 0.9}),
        ("99.5 % of the variance", as_it_is, {"variance": 0.995}),
    ],
    "dfkde": [
        ("as it is", as_it_is, {}),
        ("16 components", components(16), {}),
        ("90 % of the variance", as_it_is, {"variance": 0.9}),
        ("97 % of the variance", as_it_is, {"variance": 0.97}),
        ("stage 4", as_it_is, {"layers": ["stage4"]}),
        ("stage 6", as_it_is, {"layers": ["stage6"]}),
        ("stages 2, 4, 6", as_it_is, {"layers": ["stage2", "stage4", "stage6"]}),
        ("bandwidth: Silverman", as_it_is, {"bandwidth": "silverman"}),
        ("bandwidth: cross-validated", as_it_is, {"bandwidth": "cross_validation"}),
        ("bandwidth: 2 standard deviations", as_it_is, {"bandwidth": 2.0}),
    ],
}


def long_part(job: tuple[Path, int, str | None, float]) -> None:
    """Three washers side by side; one of them may have a defect."""
    file, seed, defect, severity = job
    which = seed % 3
    pictures = [
        render_part(
            3 * seed + n,
            defect=defect if n == which else None,
            severity=severity,
            size=(400, 400),
        )[0]
        for n in range(3)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.hstack(pictures)[..., ::-1])


def render_long(folder: Path) -> Path:
    jobs: list[tuple[Path, int, str | None, float]] = []
    for n in range(90):
        where = "train/good" if n < 60 else "test/good"
        jobs.append((folder / where / f"{n:03d}.jpg", n, None, 1.0))
    for defect in ("scratch", "dent", "stain", "missing_piece"):
        for severity in np.linspace(0, 0.4, 8):
            n = len(jobs)
            file = folder / "test" / defect / f"{n:03d}.jpg"
            jobs.append((file, n, defect, float(severity)))
    with ProcessPoolExecutor() as pool:
        list(pool.map(long_part, jobs))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("methods", nargs="*", default=list(VARIANTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), options.data
        parts = [
            Part("bottle", data / "bottle"),
            Part("magnetic_tile", data / "magnetic_tile"),
            Part("transistor", data / "transistor_small", held_out=True),
            Part("hazelnut", data / "hazelnut_small", held_out=True),
            Part("washer", render_sample(folder / "small")),
            Part("washer any", render_sample(folder / "any", pose="any")),
            Part("washers long", render_long(folder / "long")),
        ]
        for method in options.methods:
            print(f"\n| {method} | {' | '.join(part.name for part in parts)} | mean |")
            print(f"|---|{'---|' * (len(parts) + 1)}")
            for label, change, changed in VARIANTS[method]:
                found = [part.auroc(method, change, changed) for part in parts]
                cells = " | ".join(f"{value:.3f}" for value in [*found, statistics.mean(found)])
                print(f"| {label} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
