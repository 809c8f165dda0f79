"""Whether a defect among the good images is shown first: planted ones, by their unseen scores.

    python benchmarks/review.py $ANOMALY_AD_DATA/bottle
    python benchmarks/review.py --methods padim patchcore

Copies one defective image of each kind, drawn by chance, among the good images, trains, and counts
how many of them are among the first five that `review` shows; five times. Without a folder: the
rendered sample set. Prints the counts of each draw, the places of those that come later, and what
the line after the training says.
"""

import argparse
import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.evaluation.odd import odd_images
from anomaly_ad.images import find_training_images
from anomaly_ad.images.labelled import GOOD, find_labelled

DRAWS, FIRST = 5, 5
PLANTED = "zz"  # begins the names of planted images


def plant(data: Path, folder: Path, seed: int) -> int:
    """Good images and one defective one of each kind; returns how many of these."""
    for path in find_training_images(data).paths:
        (folder / path.name).symlink_to(path.absolute())
    random = np.random.default_rng(seed)
    kinds: dict[str, list[Path]] = {}
    for item in find_labelled(data).items:
        if item.kind != GOOD:
            kinds.setdefault(item.kind, []).append(item.path)
    for number, kind in enumerate(sorted(kinds)):
        path = kinds[kind][random.integers(len(kinds[kind]))]
        shutil.copyfile(path, folder / f"{PLANTED}{number}{path.suffix}")
    return len(kinds)


def measure(data: Path, method: str) -> None:
    shown = planted = 0
    for seed in range(DRAWS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "good"
            folder.mkdir()
            count = plant(data, folder, seed)
            with contextlib.redirect_stdout(io.StringIO()):
                model = AD(method, folder, save_path=name).train(review=False).model
            found = odd_images(model)
            places = [n for n, one in enumerate(found.images, 1) if one.name.startswith(PLANTED)]
        first = sum(place <= FIRST for place in places)
        shown, planted = shown + first, planted + count
        later = [place for place in places if place > FIRST]
        line = str(found).partition(" Look")[0] or "no line"
        print(f"  draw {seed}: {first} of {count}, later ones at {later}; {line}", flush=True)
    share = "holds" if 15 * shown >= 13 * planted else "DOES NOT HOLD"
    print(
        f"{data.name} {method}: {shown} of {planted} among the first {FIRST}: {share}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="*", help="folders of labelled sets")
    parser.add_argument("--methods", nargs="+", default=["padim", "patchcore"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sets = options.data or [render_sample(Path(name) / "washer")]
        for data in sets:
            for method in options.methods:
                measure(data, method)


if __name__ == "__main__":
    main()
