"""What depth and scale of images cost and change: 12 bits against 8, JPEGs reduced against full.

    python benchmarks/images.py
    python benchmarks/images.py --before CHECKOUT

Prints, on rendered images:

read     a TIFF of 12 bits in 16, 2000x3000 pixels, in colour and in gray: file to model input,
         against OpenCV's decoding and resizing alone
jpeg     a JPEG of 12 megapixels: file to model input, against the same in full; with --before
         against that of another checkout of this project, in processes that take turns
bits     image AUROC and verdicts of the sample set of 12 bits in TIFF, against that of 8 bits
reduced  the same of a set of 2000x3000 JPEGs decoded at a reduced scale, against full
pose     an elongated part in any rotation as it lies and with align="auto"; what "auto" decides of
         other sets, real ones among them; washers in any rotation, registered; what a pose costs
region   washers on tables that differ, with and without a region of interest
tiles    small defects in photographs of 2000x3000, as a whole and in tiles; a photograph of
         3000x4096 in tiles against its decoding and the bare inference of its tiles; the peak
         memory beyond decoding, of 2 tiles and of 200

    python benchmarks/images.py --only pose region --data $ANOMALY_AD_DATA
    python benchmarks/images.py --only tiles
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from anomaly_ad import AD
from anomaly_ad.data.sample import render_part, render_sample
from anomaly_ad.images import (
    Framing,
    Photograph,
    find_training_images,
    read_image,
    read_mask,
    survey,
)
from anomaly_ad.images.labelled import find_labelled
from anomaly_ad.images.part import shrunk
from anomaly_ad.images.pose import learn_pose
from anomaly_ad.images.sources import file_sources
from anomaly_ad.inspection import Inspected, Inspector
from anomaly_ad.model import Plan
from anomaly_ad.training import steps

PARTS = ["depth", "pose", "region", "tiles"]
ROUNDS = 15
NEAR = 24  # pixels from a defect within which a peak lies on it: a cell and a half
FRAMING = Framing.new(256, 256, 3)
DEEP = Framing.new(256, 256, 3, value_range=(0, 4095), deep=True)
LARGE = (2000, 3000)

# Peak memory of an inspection beyond the decoded photograph, in MB.
PEAK = """
import re, sys
from dataclasses import replace
from pathlib import Path
from anomaly_ad.images import Photograph
from anomaly_ad.images.tiles import Tiles
from anomaly_ad.inspection import Inspector
from anomaly_ad.model import load

def memory(what):
    status = Path("/proc/self/status").read_text()
    return int(re.search(what + r":\\s+(\\d+)", status).group(1)) / 1024

stored = load(Path(sys.argv[1]))
plan = stored.manifest.plan
rows, columns = int(sys.argv[3]), int(sys.argv[4])
size = Photograph.read(sys.argv[2], plan.framing).size
side = [max(plan.framing.height, -(-s // n)) for s, n in zip(size, (rows, columns))]
framing = replace(plan.framing, tiles=Tiles(size, *side, rows, columns, True))
manifest = replace(stored.manifest, plan=replace(plan, framing=framing))
inspector = Inspector(replace(stored, manifest=manifest))
photo = Photograph.read(sys.argv[2], framing)
few = Tiles(size, *size, 1, 2, True)
warm = replace(framing, tiles=few)
stored.engine.inspect(replace(photo, framing=warm).take(), warm)
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
inspector.inspect(photo)
print(memory("VmHWM") - before)
"""

# What another version does with a file, once a line that comes in; prints seconds.
WORKER = """
import sys, time
from anomaly_ad.images import Framing, read_image
try:
    from anomaly_ad.images import Photograph
    framing = Framing.new(256, 256, 3)
    prepare = lambda path: Photograph.read(path, framing).views()
except ImportError:
    framing = Framing(256, 256, 3)
    prepare = lambda path: framing.views(read_image(path))
for line in sys.stdin:
    start = time.perf_counter()
    prepare(sys.argv[1])
    print(time.perf_counter() - start, flush=True)
"""


def ratio(
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    bar: str,
    rounds: int = ROUNDS,
) -> None:
    """Run both in turn; print the medians and the median of the ratios of neighbours."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    first, second = (1000 * statistics.median(some) for some in zip(*pairs, strict=True))
    share = statistics.median(a / b for a, b in pairs)
    print(f"{name:28} {first:7.1f} ms against {second:7.1f} ms   ratio {share:.2f}   ({bar})")


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """A call that gives the seconds of the work."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


def prepared(path: Path, framing: Framing = FRAMING) -> Callable[[], float]:
    """Seconds from a file to a model's input."""
    return timed(lambda: Photograph.read(path, framing).views())


def bare(path: Path) -> Callable[[], float]:
    """Seconds that OpenCV takes to decode a file as it is and to resize it."""

    def work() -> None:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.resize(image, FRAMING.size[::-1], interpolation=cv2.INTER_AREA)

    return timed(work)


@contextlib.contextmanager
def worker(checkout: Path, path: Path):
    """Seconds of another checkout, in a process of its own."""
    command = [sys.executable, "-c", WORKER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with subprocess.Popen(command, env=environment, cwd="/", **pipes) as process:

        def run() -> float:
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield run
        process.stdin.close()


def reading(folder: Path, before: Path | None) -> None:
    """Print what files cost."""
    scene, _ = render_part(1, size=LARGE, depth=12)
    for name, image in {"colour": scene[..., ::-1], "gray": scene[..., 1]}.items():
        path = folder / f"{name}.tif"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
        ratio(f"read: TIFF, 12 bits, {name}", prepared(path, DEEP), bare(path), "at most 1.2")
    levels = (scene >> 4).astype(np.uint8)[..., ::-1]
    path = folder / "large.jpg"
    cv2.imwrite(str(path), cv2.resize(levels, (4000, 3000)), [cv2.IMWRITE_JPEG_QUALITY, 95])
    full = replace(FRAMING, reduces=False)
    ratio("jpeg: reduced, full", prepared(path), prepared(path, full), "at most 0.5")
    if before is not None:
        here = Path(__file__).resolve().parents[1]
        with worker(here, path) as ours, worker(before, path) as theirs:
            ratio("jpeg: now, before", ours, theirs, "at most 0.5")


def accuracy(name: str, data: Path, method: str, *, reduces: bool = True) -> None:
    """Train, inspect the test images and print what is found."""
    good = find_training_images(data)
    found = survey(good.paths)
    plan = Plan.from_options(method, {}, found.sizes, found.value_range, deep=bool(found.depth))
    plan = replace(plan, framing=replace(plan.framing, reduces=reduces))
    with tempfile.TemporaryDirectory() as models, contextlib.redirect_stderr(io.StringIO()):
        stored = steps.train(plan, good, Path(models, "model"), epochs=1)
        items = find_labelled(data).items
        inspector = Inspector(stored, keep_maps=False)
        sources = file_sources([item.path for item in items])
        said = [found for found, _ in inspector.scan(sources, lambda one: None)]
    bad = np.array([item.is_defective for item in items])
    flagged = np.array([one.is_anomalous for one in said])
    area = roc_auc_score(bad, [one.raw_score for one in said])
    print(
        f"{name:28} {method:10} AUROC {area:.4f}   found {flagged[bad].sum()} of {bad.sum()}, "
        f"rejected {flagged[~bad].sum()} of {(~bad).sum()}",
        flush=True,
    )


def trained(name: str, data: Path, method: str, **options: object) -> None:
    """Train as users do, inspect the test images and print what is found."""
    said, errors = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as models:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            ad = AD(method, data, save_path=models, **options).train(review=False)
            items = find_labelled(data).items
            found = ad.predict([item.path for item in items], save=False)
        del ad
    bad = np.array([item.is_defective for item in items])
    flagged = np.array([one.is_anomalous for one in found])
    area = roc_auc_score(bad, [one.raw_score for one in found])
    given = ", ".join(f"{key}={value!r:.24}" for key, value in options.items())
    print(
        f"{name:24} {method:10} {given:28} AUROC {area:.4f}   found {flagged[bad].mean():.3f} of "
        f"{bad.sum()}, rejected {flagged[~bad].sum()} of {(~bad).sum()}",
        flush=True,
    )


def decision(name: str, folder: Path) -> None:
    """Print what align="auto" decides of the good images of a folder."""
    paths = find_training_images(folder).paths[:64]
    pose, why = learn_pose("auto", [shrunk(read_image(path)) for path in paths])
    print(f"pose: {name:18} {'turned' if pose else 'left':7} {why}", flush=True)


def poses(folder: Path, real: Path | None) -> None:
    """Print what poses do."""
    counts = {"n_train": 120, "n_test_good": 60, "n_per_defect": 15, "size": (256, 256)}
    link = render_sample(folder / "link", part="link", pose="any", **counts)
    for align in ("none", "auto"):
        trained("pose: link, any", link, "padim", align=align)
    images = [read_image(path) for path in find_training_images(link).paths]
    pose, _ = learn_pose("auto", [shrunk(image) for image in images])
    posed = Framing.new(256, 256, 3, pose=pose)
    for name, framing in {"as it lies": FRAMING, "in pose": posed}.items():
        times = [timed(lambda one=image, way=framing: way.views(one))() for image in images]
        print(f"pose: 256x256, {name:13} {1000 * statistics.median(times):6.2f} ms")
    lying = render_sample(folder / "washers", **counts)
    turned = render_sample(folder / "turned", pose="any", **counts)
    decision("washers", lying)
    decision("washers, any", turned)
    if real is not None:
        for data in sorted(path for path in real.iterdir() if path.is_dir()):
            decision(data.name, data)
    trained("pose: washers, any", turned, "padim")
    trained("pose: washers, any", turned, "padim", align="rigid")
    trained("pose: washers, any", turned, "patchcore")


def regions(folder: Path) -> None:
    """Print what a region of interest does where the background changes."""
    counts = {"n_train": 80, "n_test_good": 40, "n_per_defect": 8, "size": (256, 256)}
    mat = render_sample(folder / "mat", **counts)
    tables = render_sample(folder / "tables", table="any", **counts)
    mask = cv2.circle(np.zeros((256, 256), np.uint8), (128, 128), 105, 255, -1)
    for method in ("padim", "patchcore"):
        trained("region: one table", mat, method)
        trained("region: other tables", tables, method)
        trained("region: other tables", tables, method, roi=mask)
        trained("region: other tables", tables, method, roi="part")


def tiles(folder: Path) -> None:
    """Print what tiles find, and what they cost."""
    counts = {"n_train": 60, "n_test_good": 20, "n_per_defect": 5}
    data = render_sample(folder / "small", size=LARGE, defect_px=(12, 20), progress=True, **counts)
    peaks(data, "patchcore")
    peaks(data, "patchcore", tiles="auto", smallest_defect=12)
    counts = {"n_train": 12, "n_test_good": 1, "n_per_defect": 0}
    data = render_sample(folder / "largest", size=(3000, 4096), progress=True, **counts)
    photograph = data / "test" / "good" / "000.jpg"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ad = AD("patchcore", data, save_path=folder, name="tiles", tiles="auto").train(review=False)
    framing, engine = ad.model.manifest.plan.framing, ad.model.engine
    views = [(None, view[None]) for view in Photograph.read(photograph, framing).views()]
    inspector = Inspector(ad.model)

    def alone() -> None:
        Photograph.read(photograph, framing)
        for _ in engine.stream(views, ()):
            pass

    def whole() -> None:
        list(inspector.scan(file_sources([photograph]), lambda one: None))

    name = f"tiles: {framing.tiles.count} of 3000x4096"
    ratio(name, timed(whole), timed(alone), "at most 1.30", rounds=5)
    for rows, columns in ((1, 2), (5, 6), (10, 20), (25, 32)):
        arguments = [ad.model.directory, photograph, rows, columns]
        command = [sys.executable, "-c", PEAK, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"tiles: {rows * columns:3} tiles, peak beyond decoding {float(done.stdout):.0f} MB")


def peaks(data: Path, method: str, **options: object) -> None:
    """Train, and print what is found and where the maps peak."""
    with tempfile.TemporaryDirectory() as models:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ad = AD(method, data, save_path=models, **options).train(review=False)
        items = find_labelled(data).items

        def peak(one: Inspected) -> np.ndarray:
            raw = one.taken.where_counted(one.outputs["anomaly_map"])
            y, x = np.unravel_index(raw.argmax(), raw.shape)
            return one.taken.points_to_original(np.array([[x + 0.5, y + 0.5]]))[0]

        sources = file_sources([item.path for item in items])
        found = [*Inspector(ad.model).scan(sources, peak)]
        del ad
    bad = np.array([item.is_defective for item in items])
    scores = np.array([one.raw_score for one, _ in found])
    flagged = np.array([one.is_anomalous for one, _ in found])
    hits = []
    for item, (_, (x, y)) in zip(items, found, strict=True):
        if item.mask is not None:
            ys, xs = np.nonzero(read_mask(item.mask))
            hits.append(np.hypot(xs - x, ys - y).min() <= NEAR)
    given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "as a whole"
    print(
        f"tiles: {method}, {given}: AUROC {roc_auc_score(bad, scores):.4f}   found "
        f"{flagged[bad].sum()} of {bad.sum()}, rejected {flagged[~bad].sum()} of {(~bad).sum()}, "
        f"peak on the defect in {sum(hits)} of {len(hits)}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="checkout of another version")
    parser.add_argument("--methods", nargs="+", default=["padim", "patchcore"])
    parser.add_argument("--data", type=Path, help="folder of real sets, for their poses")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    options = parser.parse_args()
    wanted = options.only or PARTS
    with tempfile.TemporaryDirectory() as folder:
        if "pose" in wanted:
            poses(Path(folder), options.data)
        if "region" in wanted:
            regions(Path(folder))
        if "tiles" in wanted:
            tiles(Path(folder))
        if "depth" not in wanted:
            return
        reading(Path(folder), options.before)
        for depth in (8, 12):
            data = render_sample(Path(folder, f"bits{depth}"), depth=depth)
            for method in options.methods:
                accuracy(f"bits: {depth}", data, method)
        counts = {"n_train": 60, "n_test_good": 40, "n_per_defect": 10}
        data = render_sample(Path(folder, "large"), size=LARGE, progress=True, **counts)
        for method in options.methods:
            for reduces in (True, False):
                name = "reduced" if reduces else "full"
                accuracy(f"reduced: {name}", data, method, reduces=reduces)


if __name__ == "__main__":
    main()
