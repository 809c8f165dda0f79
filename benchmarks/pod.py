"""Whether the interval of a90 covers, and how wide it is: rendered scratches on the sample set.

    python benchmarks/pod.py
    python benchmarks/pod.py --size 256 --seeds 20

Trains padim on the sample set and renders further good washers that it has not learnt from. The
truth is the a90 of 2,000 scratches, each on a washer of its own. For each seed the series is
rendered as `detection_curve` does it, each scratch on another of 1,000 other washers. Prints a90
and its interval for each seed, how many intervals cover the truth, and how wide they are.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad import AD
from anomaly_ad.data.sample import render_part, render_sample
from anomaly_ad.evaluation.detection import detection_curve
from anomaly_ad.support import bar, ordered_map

TRUTH, POOL, SERIES = 2000, 1000, 820
FIRST = 10_000_000  # seed of the first washer; those of the sample set are others


def washers(folder: Path, count: int, first: int, size: int) -> list[Path]:
    """Good washers in a folder; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)

    def render(number: int) -> Path:
        path = folder / f"{number}.jpg"
        if not path.exists():
            image, _ = render_part(number, size=(size, size))
            cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        return path

    paths = []
    with bar(count, "Rendering washers") as step:
        for path in ordered_map(render, range(first, first + count)):
            paths.append(path)
            step("")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="of the photographs, pixels")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--kind", default="scratch")
    parser.add_argument("--folder", type=Path, help="keep what is rendered here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sample = render_sample(folder / "sample", size=(options.size, options.size), progress=True)
        model = AD("padim", sample, save_path=folder).train().model
        many = washers(folder / "truth", TRUTH, FIRST, options.size)
        others = washers(folder / "others", POOL, FIRST + TRUTH, options.size)
        kinds = [options.kind]
        found = detection_curve(model, many, kinds=kinds, seed=1_000_000, renders=(TRUTH, TRUTH))
        truth = found.curves[0].a90
        print(f"{found}\n")
        covered, widths = [], []
        for seed in range(options.seeds):
            some = np.random.default_rng(seed).choice(POOL, SERIES, replace=False)
            paths = [others[place] for place in some]
            curve = detection_curve(model, paths, kinds=kinds, seed=seed).curves[0]
            low, high = curve.a90_low or 0.0, curve.a90_high or np.inf
            covered.append(low <= truth <= high)
            widths.append(high / low if low else np.inf)
            print(
                f"seed {seed:2}  {len(curve.found)} renders  a90 {curve.a90 or np.nan:.1f} px "
                f"({low:.1f} to {high:.1f})  high/low {widths[-1]:.2f}  "
                f"{'covers' if covered[-1] else 'MISSES'}",
                flush=True,
            )
    print(f"a90 of {TRUTH} renders: {truth:.1f} px")
    print(f"covered in {sum(covered)} of {len(covered)} seeds")
    print(f"high/low: median {np.median(widths):.2f}, largest {max(widths):.2f}")


if __name__ == "__main__":
    main()
