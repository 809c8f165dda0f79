"""What a model in tiles does outside its graph, in plain numpy.

    python examples/tiles_in_numpy.py Models/model photo.png

For whoever runs the graph elsewhere. The manifest of a model says in words what lies outside its
graph (`outside_the_graph`); this is the same as code, for photographs of 8 bits in colour of which
a rectangle is inspected, in tiles or as a whole, not turned or padded. It gives what the package
gives bit for bit, which is tested; `tiles_in_numpy.json` has test vectors for other languages.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

# What this program does without; other values in a manifest are errors.
COVERED = {
    "channels": 3,
    "fit": "stretch",
    "value_range": [0, 255],
    "deep": False,
    "only_part": False,
    "pose": None,
    "light": None,
}


def views_of(photograph, manifest):
    """uint8 (H, W, 3), RGB -> what the graph takes, uint8 (T, height, width, 3)."""
    spec = manifest["plan"]["spec"]
    if beyond := [name for name, usual in COVERED.items() if spec.get(name, usual) != usual]:
        raise ValueError(f"This program leaves out what the model needs: {', '.join(beyond)}.")
    inspected = rectangle(photograph, manifest)
    return np.stack(
        [
            shrink(inspected[y1:y2, x1:x2], (spec["height"], spec["width"]))
            for x1, y1, x2, y2 in tile_boxes(inspected.shape[:2], spec.get("tiles"))
        ]
    )


def rectangle(photograph, manifest):
    """What is inspected of a photograph."""
    if "inside" in manifest["outside_the_graph"]["inputs"]:
        raise ValueError("This program covers regions that are rectangles.")
    box = manifest["outside_the_graph"]["rectangle"]
    x1, y1, x2, y2 = box or (0, 0, photograph.shape[1], photograph.shape[0])
    return photograph[y1:y2, x1:x2]


def tile_boxes(whole, tiles):
    """The tiles of what is inspected, (H, W), row by row: x1, y1, x2, y2."""
    if tiles is None:
        return [(0, 0, whole[1], whole[0])]

    def starts(side, tile, count):
        return [i * (side - tile) // max(count - 1, 1) for i in range(count)]

    return [
        (x, y, x + tiles["width"], y + tiles["height"])
        for y in starts(whole[0], tiles["height"], tiles["rows"])
        for x in starts(whole[1], tiles["width"], tiles["columns"])
    ]


def shrink(image, size):
    """OpenCV's INTER_AREA for uint8 (h, w, C), to (height, width); neither side may grow."""
    if image.shape[:2] == tuple(size):
        return image
    steps = [side / to for side, to in zip(image.shape[:2], size, strict=True)]
    if min(steps) < 1:
        raise ValueError(f"{image.shape[:2]} cannot shrink to {size}.")
    if all(step == int(step) for step in steps):
        down, across = (int(step) for step in steps)
        blocks = image.reshape(size[0], down, size[1], across, -1).astype(np.int32)
        sums = blocks.sum(axis=(1, 3))
        if (down, across) == (2, 2):
            return ((sums + 2) >> 2).astype(np.uint8)
        factor = np.float32(1 / (down * across))
        return np.rint(sums.astype(np.float32) * factor).astype(np.uint8)
    return np.clip(np.rint(averaged(image, size)), 0, 255).astype(np.uint8)


def averaged(image, size):
    """The same for float32, (h, w) or (h, w, C), without rounding.

    Summed in single precision and in this order, as OpenCV does.
    """
    across = np.zeros((image.shape[0], size[1], *image.shape[2:]), np.float32)
    for to, source, share in shares(image.shape[1], size[1]):
        across[:, to] += image[:, source].astype(np.float32) * share
    out = np.zeros((*size, *image.shape[2:]), np.float32)
    for to, source, share in shares(image.shape[0], size[0]):
        out[to] += across[source] * share
    return out


def shares(side, to):
    """Which pixels of an axis make up each pixel of a shorter one, and how much of it each."""
    step = side / to
    for pixel in range(to):
        begin, end = pixel * step, pixel * step + step
        covered = min(step, side - begin)
        first, last = math.ceil(begin), min(math.floor(end), side - 1)
        first = min(first, last)
        if first - begin > 1e-3:
            yield pixel, first - 1, np.float32((first - begin) / covered)
        for source in range(first, last):
            yield pixel, source, np.float32(1.0 / covered)
        if end - last > 1e-3:
            yield pixel, last, np.float32(min(min(end - last, 1.0), covered) / covered)


def merged(maps, whole, tiles, size):
    """The maps of the tiles, (T, height, width) -> the map of what is inspected, of `size`.

    `size` stands in `outside_the_graph`. Maps shrink to their places in it first, since the merged
    one has 2^20 pixels at most; there the last digits may differ from OpenCV's.
    """
    down, across = (to / side for to, side in zip(size, whole, strict=True))
    total, weights = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for anomaly_map, (x1, y1, x2, y2) in zip(maps, tile_boxes(whole, tiles), strict=True):
        top, bottom = round(y1 * down), round(y2 * down)
        left, right = round(x1 * across), round(x2 * across)
        if anomaly_map.shape != (bottom - top, right - left):
            anomaly_map = averaged(anomaly_map, (bottom - top, right - left))
        y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in anomaly_map.shape)
        weight = np.minimum.outer(y, x).astype(np.float32) + np.float32(0.5)
        total[top:bottom, left:right] += anomaly_map * weight
        weights[top:bottom, left:right] += weight
    return total / weights


def main():
    """The score of a photograph, by OpenVINO alone."""
    import cv2
    import openvino as ov

    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text())
    (xml,) = (name for name in manifest["files"] if name.endswith(".xml"))
    photograph = cv2.imread(sys.argv[2])[..., ::-1]
    precision = {"INFERENCE_PRECISION_HINT": manifest["plan"]["precision"]}
    model = ov.Core().compile_model(folder / xml, "CPU", precision)
    answers = [model(view[None]) for view in views_of(photograph, manifest)]
    tiles = manifest["plan"]["spec"].get("tiles")
    if tiles is not None and tiles["by_map"]:
        maps = np.concatenate([answer["anomaly_map"] for answer in answers])
        whole = rectangle(photograph, manifest).shape[:2]
        size = manifest["outside_the_graph"]["map_size"]
        print(merged(maps, whole, tiles, size).max())
    else:
        print(max(float(answer["score"][0]) for answer in answers))


if __name__ == "__main__":
    main()
