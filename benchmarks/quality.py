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
from verdict import FORMER

from anomaly_ad.backbones.networks import feature_maps
from anomaly_ad.data.sample import render_part, render_sample
from anomaly_ad.images import ImageSet, find_images, split, survey
from anomaly_ad.methods import registry
from anomaly_ad.methods.base import StatisticalDetector
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.methods.heads import MapHead, image_vector
from anomaly_ad.model.plan import Plan, input_size
from anomaly_ad.runtime.convert import to_openvino
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.statistics.density import KernelDensity
from anomaly_ad.statistics.moments import Moments
from anomaly_ad.statistics.pca import Subspace
from anomaly_ad.training.steps import build

FOLDS = 5

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
        options, sizes = dict(options), survey(self.good).sizes
        if "largest_area" in options:
            area = options.pop("largest_area")
            preset = dataclasses.replace(registry.preset(method), largest_area=area)
            options["img_size"] = input_size(preset, sizes)
        plan = Plan.from_options(method, options, sizes)
        detector: Any = build(plan)
        change(detector)
        with ImageSet.decode(self.files, plan.framing) as images:
            engine = Engine(to_openvino(detector.features()))
            features = FeatureSet.compute(engine, images)
        found = []
        with features:
            for fit, test in self.splits():
                detector.prepare_from(features, fit)
                statistic = features.gather(detector, "learn", detector.new_statistic(), fit)
                score = detector.scorer(statistic)
                scores = [score(batch)["score"] for batch in features.batches(test)]
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
            return lambda *cells: {**(found := measure(*cells)), "score": pick(found)}

        detector.distances = distances

    return change


def map_maximum(detector: Any) -> None:
    """The score is the maximum of the blurred map."""
    plain = detector.scorer

    def scorer(statistic: Any) -> Callable:
        score = plain(statistic)
        return lambda features: {"score": score(features)["anomaly_map"].max(axis=(1, 2))}

    detector.scorer = scorer


def image_score(pick: Callable[[Subspace, np.ndarray, np.ndarray], np.ndarray]) -> Change:
    """The score of dfm from its subspace and its two terms: outside, inside."""

    def change(detector: Any) -> None:
        def scorer(statistic: Any) -> Callable:
            pool = statistic.images
            images = Subspace.of_vectors(pool.vectors, pool.times, detector.variance)
            return lambda features: {"score": pick(images, *images.errors(features["image"]))}

        detector.scorer = scorer

    return change


def parts(rows: int, columns: int) -> Change:
    """The vector of an image in dfm is of so many parts."""

    def change(detector: Any) -> None:
        graph = detector._features
        image = image_vector(detector.further_maps, detector.framing, None, (rows, columns))
        detector._features = keras.Model(graph.input, {**graph.output, "image": image})

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
        ("input of up to 320x320 pixels", as_it_is, {"largest_area": 320 * 320}),
        ("input of up to 384x384 pixels", as_it_is, {"largest_area": 384 * 384}),
        ("stages 1, 2, 4", as_it_is, {"layers": ["stage1", "stage2", "stage4"]}),
        ("stages 2, 3, 4, 5", as_it_is, {"layers": ["stage2", "stage3", "stage4", "stage5"]}),
        ("layers not scaled", one_scale, {}),
        ("channels at random, grid of stage 5", as_it_is, {"projection": "channels"}),
        ("another projection", as_it_is, {"seed": 1}),
        ("100 channels", as_it_is, {"channels": 100}),
        ("200 channels", as_it_is, {"channels": 200}),
        ("no prior", as_it_is, {"prior": 0}),
        ("prior of 60 images", as_it_is, {"prior": 60}),
        ("prior of 200 images", as_it_is, {"prior": 200}),
        ("score: highest cell", as_it_is, {"top_share": 1e-6}),
        ("score: mean of the highest 2 %", as_it_is, {"top_share": 0.02}),
        ("score: maximum of the map", as_it_is, {"top_share": 0}),
        ("before: random, stages 1, 2, 4", as_it_is, FORMER["padim"]),
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
        ("image score of stage 4", as_it_is, {"image_layers": ["stage4"]}),
        ("image score of stages 4, 5", as_it_is, {"image_layers": ["stage4", "stage5"]}),
        ("input of up to 256x256 pixels", as_it_is, {"largest_area": 256 * 256}),
        ("input of up to 320x320 pixels", as_it_is, {"largest_area": 320 * 320}),
        ("input 384x384, smaller images enlarged", as_it_is, {"img_size": (384, 384)}),
        ("4x4 parts whatever the shape", parts(4, 4), {}),
        ("one part", parts(1, 1), {}),
        ("score: reconstruction error alone", image_score(lambda _, outside, __: outside), {}),
        (
            "score: Gaussian of the reduced features alone",
            image_score(lambda _, __, inside: inside),
            {},
        ),
        ("score: maximum of the map", map_maximum, {}),
        ("90 % of the variance", as_it_is, {"variance": 0.9}),
        ("99 % of the variance", as_it_is, {"variance": 0.99}),
        (
            "before: stage 4, up to 256x256 pixels",
            as_it_is,
            {"image_layers": ["stage4"], "largest_area": 256 * 256},
        ),
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
