"""What looking at a data set costs compared with decoding it.

    python benchmarks/check.py $ANOMALY_AD_DATA/bottle

Makes 1,000 images of 512x512 pixels from the good ones, each a little brighter or darker and
encoded again, so that no two are copies. Then `check` and decoding alone are timed in turn:
decoding one image after the other, and in the same threads. Importing TensorFlow and building and
converting the backbone, which take the same time however many images there are, are printed apart.
The ratios are of the least times of seven rounds: other work on the machine slows down what wants
all its cores more than what wants one.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad.data import check as checking
from anomaly_ad.data import pictures
from anomaly_ad.images import find_training_images, read_image
from anomaly_ad.support.threads import ordered_map

COUNT = 1000
ROUNDS = 7
BAR = 2.0


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def many(data: Path, folder: Path) -> Path:
    """Different images of 512x512 pixels."""
    paths = find_training_images(data).paths
    for n in range(COUNT):
        picture = cv2.resize(cv2.imread(str(paths[n % len(paths)])), (512, 512))
        picture = np.clip(picture * (0.8 + 0.4 * n / COUNT), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{n:04d}.jpg"), picture)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    print(
        f"importing, building and converting the backbone: {seconds(pictures.feature_engine):.1f} s"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = many(options.data, Path(name))
        paths = find_training_images(folder).paths
        runs = {
            "check": lambda: checking.check(folder, progress=False),
            "check without outliers": lambda: checking.check(
                folder, outliers=False, progress=False
            ),
            "decoding one after the other": lambda: [read_image(path).size for path in paths],
            "decoding in threads": lambda: [*ordered_map(lambda p: read_image(p).size, paths)],
        }
        times: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(ROUNDS):
            for label, run in runs.items():
                times[label].append(seconds(run))
    for label, kept in times.items():
        print(f"{label:30} {min(kept):.2f} s, median {statistics.median(kept):.2f} s")
    for label in ("decoding one after the other", "decoding in threads"):
        print(f"check compared with {label}: ratio {min(times['check']) / min(times[label]):.2f}")
    print(f"(at most {BAR})")


if __name__ == "__main__":
    main()
