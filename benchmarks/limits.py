"""How many good parts are really rejected: limits against images that they have not seen.

    python benchmarks/limits.py
    python benchmarks/limits.py $ANOMALY_AD_DATA/bottle $ANOMALY_AD_DATA/magnetic_tile
    python benchmarks/limits.py $ANOMALY_AD_DATA/magnetic_tile --moments 60

Without folders: scores drawn from known distributions, a limit from n of them, and the share of
that distribution above it, 20,000 times; and the same for several scores of each part, with the
limit from groups and, for comparison, from images. With folders: their good training images are
divided into halves, 200 times; padim learns one half with its limits for 1, 2 and 5 %, and the
other half is scored. Prints the mean share that is rejected and its standard error; and how often
`drift` would call the other half, in which nothing has changed, different. With --moments: images
whose last numbers in their names follow each other within so much are of one part; parts are
divided into halves, 20 times, and the limits are those with groups and without.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from anomaly_ad.evaluation.drift import CROSS_FITTED, SIGNIFICANCE, compare
from anomaly_ad.images import ImageSet, find_training_images, survey
from anomaly_ad.images.groups import numbered
from anomaly_ad.methods.base import StatisticalDetector
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.calibration import Limit
from anomaly_ad.model.plan import Plan
from anomaly_ad.runtime.convert import to_openvino
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.training.steps import build
from anomaly_ad.training.unseen import cross_fit

RATE = 0.05  # of the known distributions
RATES = (0.01, 0.02, 0.05)
DRAWS, SPLITS, SPLITS_OF_GROUPS = 20_000, 200, 20
DISTRIBUTIONS = {
    "Gaussian": stats.norm(),
    "log-normal": stats.lognorm(0.5),
    "Student's t, 3 degrees": stats.t(3),
}


def verdict(name: str, count: int, shares: np.ndarray, rate: float = RATE) -> None:
    error = shares.std(ddof=1) / np.sqrt(len(shares))
    held = "holds" if shares.mean() <= rate + 2 * error else "DOES NOT HOLD"
    print(
        f"{name:24} n {count:4}   rejected {shares.mean():.4f}   standard error {error:.4f}   "
        f"5 to 95 % of the times {np.quantile(shares, 0.05):.3f} to "
        f"{np.quantile(shares, 0.95):.3f}   at most {rate} + 2 errors: {held}",
        flush=True,
    )


def synthetic() -> None:
    random = np.random.default_rng(0)
    for name, distribution in DISTRIBUTIONS.items():
        for count in (19, 50, 100, 200):
            draws = distribution.rvs((DRAWS, count), random)
            limits = np.array([Limit.from_good(draw, RATE).limit for draw in draws])
            verdict(name, count, distribution.sf(limits))


def several_of_one_part() -> None:
    """Scores of 1 to 6 photographs of each part, nine tenths of whose variance is the part's."""
    random = np.random.default_rng(0)
    for count in (19, 50, 100):
        rejected = []
        for _ in range(DRAWS // 4):
            groups = np.repeat(np.arange(count), random.integers(1, 7, count))
            scores = np.sqrt(0.9) * random.normal(size=count)[groups]
            scores += np.sqrt(0.1) * random.normal(size=len(groups))
            limits = [Limit.from_good(scores, RATE, some).limit for some in (groups, None)]
            rejected.append(stats.norm.sf(limits))
        for name, shares in zip(("by groups", "by images"), np.transpose(rejected), strict=True):
            verdict(f"parts, {name}", count, shares)


def load(data: Path) -> tuple[Plan, StatisticalDetector, np.ndarray, list[Path]]:
    good = find_training_images(data)
    plan = Plan.from_options("padim", {}, survey(good.paths).sizes)
    detector = build(plan)
    with ImageSet.decode(good.paths, plan.framing) as images:
        engine = Engine(to_openvino(detector.features()))
        each = ((None, seen.views) for seen in images.singly())
        features = np.stack([out["features"] for _, out in engine.stream(each)])
    return plan, detector, features, [*good.paths]


def moments(paths: list[Path], gap: int) -> np.ndarray:
    """The group of each file: numbers in names that follow each other within `gap`."""
    numbers = np.array([int(re.findall(r"\d+", path.stem)[-1]) for path in paths])
    order = np.argsort(numbers)
    groups = np.empty(len(paths), np.intp)
    groups[order] = np.cumsum(np.diff(numbers[order], prepend=numbers.min()) > gap)
    return groups


def splits_of_groups(data: Path, gap: int) -> None:
    plan, detector, features, paths = load(data)
    groups = moments(paths, gap)
    count = groups.max() + 1
    shares = []
    for split in range(SPLITS_OF_GROUPS):
        half = np.random.default_rng(split).permutation(count)[: count // 2]
        learnt = np.isin(groups, half)
        own = numbered([str(group) for group in groups[learnt]])
        limits = []
        some_features = FeatureSet({"features": features[learnt]})
        detector.statistic = detector.new_statistic()
        detector.learn_all(some_features)
        for some in (own, np.arange(len(own))):
            held_out, _ = cross_fit(detector, some_features, plan, some)
            limits.append([held_out.calibration(rate).image.limit for rate in RATES])
        score = detector.scorer(detector.statistic)
        scores = score({"features": np.concatenate(features[~learnt])})["score"]
        # Of a further part one photograph counts: each has the weight that its group leaves it.
        weights = 1 / np.bincount(groups)[groups[~learnt]]
        above = scores > np.array(limits)[..., None]
        shares.append((above * weights).sum(axis=-1) / weights.sum())
    for n, name in enumerate(("by groups", "by images")):
        for rate, some in zip(RATES, np.transpose(shares)[:, n], strict=True):
            verdict(f"{data.name}, {name}, {rate:.0%}", count // 2, some, rate)


def splits(data: Path) -> None:
    plan, detector, features, _ = load(data)
    shares, distances, shifts = [], [], []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(features))
        half = len(order) // 2
        detector.statistic = detector.new_statistic()
        learnt = FeatureSet({"features": features[order[:half]]})
        detector.learn_all(learnt)
        held_out, _ = cross_fit(detector, learnt, replace(plan, seed=split), np.arange(half))
        limits = np.array([held_out.calibration(rate).image.limit for rate in RATES])
        score = detector.scorer(detector.statistic)
        parts = np.array_split(order[half:], 4)
        scores = np.concatenate(
            [score({"features": np.concatenate(features[part])})["score"] for part in parts]
        )
        shares.append((scores[:, None] > limits).mean(axis=0))
        allowed = CROSS_FITTED if held_out.cross_fitted else 0
        distances.append(compare(scores, held_out.scores, allowed))
        shift = np.median(scores) - np.median(held_out.scores)
        shifts.append(shift / held_out.scores.std())

    def share(name: str) -> float:
        return float(np.mean([getattr(d, name) < SIGNIFICANCE for d in distances]))

    for rate, some in zip(RATES, np.transpose(shares), strict=True):
        verdict(f"padim, {data.name}, {rate:.0%}", half, some, rate)
    print(
        f"    Kolmogorov-Smirnov: p < 0.05 in {share('p_value'):.1%} of the splits, and in "
        f"{share('p_change'):.1%} beyond what the reference may be off; the median of new parts is "
        f"{-np.mean(shifts):.2f} standard deviations lower"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--moments", type=int)
    options = parser.parse_args()
    if not options.data:
        synthetic()
        several_of_one_part()
    for data in options.data:
        if options.moments is None:
            splits(data)
        else:
            splits_of_groups(data, options.moments)


if __name__ == "__main__":
    main()
