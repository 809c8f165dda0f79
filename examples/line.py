"""Inspect what a camera delivers, image by image, and act on the verdict.

    python examples/line.py Models/model Dataset/Washer/test/scratch

Here a folder stands in for the camera. Replace `camera` by what your camera's library gives: RGB
arrays of uint8, shape (height, width, 3). Needs only the lean runtime.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad import AD


def camera(folder: str) -> Iterator[np.ndarray]:
    """Yield RGB images."""
    for path in sorted(Path(folder).glob("*.jpg")):
        yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # OpenCV reads BGR


def main(model: str, folder: str) -> None:
    """Print a verdict per image."""
    ad = AD(model)
    for number, image in enumerate(camera(folder)):
        prediction = ad.predict(image, save=False)
        if prediction.is_anomalous:
            print(f"part {number}: STOP, score {prediction.score:.2f}, look at")
            for x1, y1, x2, y2 in prediction.boxes:
                print(f"    x {x1}..{x2}, y {y1}..{y2}")
        else:
            print(f"part {number}: good, score {prediction.score:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
