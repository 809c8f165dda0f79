"""Inspect what a camera shows, frame by frame, and keep pictures of what is anomalous.

    python examples/camera.py Models/model 0            (a device number)
    python examples/camera.py Models/model rtsp://...   (or a video file, or part_%03d.jpg)

`anomaly-ad camera` does the same with a journal, reconnecting and messages to other programs.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad import AD


def frames(source: str) -> Iterator[np.ndarray]:
    """Yield RGB frames until the source ends."""
    camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not camera.isOpened():
        sys.exit(f"{source} cannot be opened")
    try:
        while True:
            taken, frame = camera.read()
            if not taken:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # OpenCV reads BGR
    finally:
        camera.release()


def main(model: str, source: str, output: str = "Output/camera") -> None:
    """Print a verdict per frame; write heatmaps, and the record, to the output folder."""
    Path(output).mkdir(parents=True, exist_ok=True)
    for number, found in enumerate(AD(model).stream(frames(source), output)):
        print(f"frame {number}: {'STOP' if found.is_anomalous else 'good'}, {found.score:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
