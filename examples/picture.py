"""Make the README's picture from what Example.py has written: original, heatmap, hardcore.

python Example.py && python examples/picture.py docs/washer.jpg
"""

import sys
from pathlib import Path

import cv2
import numpy as np

SHOWN = ("good/001", "scratch/001", "dent/002", "stain/002", "missing_piece/003", "wrong_part/002")
SIDE = 200  # pixels


def main(target: str) -> None:
    """Put three rows of pictures into one file."""
    rows = []
    for folder in ("Dataset/Washer/test", "Output/heatmap", "Output/hardcore"):
        pictures = [cv2.imread(str(Path(folder, f"{name}.jpg"))) for name in SHOWN]
        if any(picture is None for picture in pictures):
            sys.exit(f"There are no pictures in {folder}. Run Example.py first.")
        small = [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in pictures]
        rows.append(np.hstack(small))
    cv2.imwrite(target, np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "docs/washer.jpg")
