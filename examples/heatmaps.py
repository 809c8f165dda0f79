"""Make the pictures of "Choose a method": what each method marks on the same five defects.

    python examples/heatmaps.py padim patchcore dfm

Trains each method at its defaults on the rendered sample set (80 good images, seed 0) and writes
docs/heatmaps/<method>.jpg, five heatmaps side by side, and docs/heatmaps/originals.jpg. Heatmaps
begin at the decision limit: what is left as it was lies below it.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad import AD
from anomaly_ad.data import render_sample

SHOWN = ("scratch/001", "dent/002", "stain/002", "missing_piece/003", "wrong_part/002")
SIDE = 128  # pixels
TARGET = Path("docs/heatmaps")


def strip(folder: str | Path, name: str) -> None:
    """Put the pictures of the five defects in a folder side by side."""
    pictures = [cv2.imread(str(Path(folder, f"{shown}.jpg"))) for shown in SHOWN]
    small = [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in pictures]
    target = str(TARGET / f"{name}.jpg")
    cv2.imwrite(target, np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, 85])


def main(*methods: str) -> None:
    """Train, predict and draw."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        sample = render_sample(Path(name) / "sample")
        strip(sample / "test", "originals")
        for method in methods:
            ad = AD(method, sample, save_path=name, name=method).train(review=False)
            ad.predict(sample / "test", Path(name) / "Output" / method)
            strip(Path(name) / "Output" / method, method)


if __name__ == "__main__":
    main(*sys.argv[1:])
