"""How many good parts are really rejected: limits against images that they have not seen.

    python benchmarks/limits.py
    python benchmarks/limits.py $ANOMALY_AD_DATA/bottle $ANOMALY_AD_DATA/magnetic_tile

Without folders: scores drawn from known distributions, a limit from n of them, and the share of
that distribution above it, 20,000 times. With folders: their good training images are divided into
halves, 200 times; padim learns one half with its limits for 1, 2 and 5 %, and the other half is
scored. Prints the mean share that is rejected and its standard error; and how often `drift` would
call the other half, in which nothing has changed, different.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from anomaly_ad.evaluation.drift import CROSS_FITTED, SIGNIFICANCE, compare
from anomaly_ad.images import ImageSet, find_training_images, sample_sizes
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.calibration import Limit
from anomaly_ad.model.plan import Plan
from anomaly_ad.runtime.convert import to_openvino
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.training.steps import build
from anomaly_ad.training.unseen import cross_fit

RATE = 0.05  # of the known distributions
RATES = (0.01, 0.02, 0.05)
DRAWS, SPLITS = 20_000, 200
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


def splits(data: Path) -> None:
    good = find_training_images(data)
    plan = Plan.from_options("padim", {}, sample_sizes(good.paths))
    detector = build(plan)
    with ImageSet.decode(good.paths, plan.framing) as images:
        engine = Engine(to_openvino(detector.features()))
        each = ((None, views) for views in images.singly())
        features = np.stack([out["features"] for _, out in engine.stream(each)])
    shares, distances, shifts = [], [], []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(features))
        half = len(order) // 2
        detector.statistic = detector.new_statistic()
        learnt = FeatureSet({"features": features[order[:half]]})
        held_out, _ = cross_fit(detector, learnt, replace(plan, seed=split))
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
    options = parser.parse_args()
    if not options.data:
        synthetic()
    for data in options.data:
        splits(data)


if __name__ == "__main__":
    main()
