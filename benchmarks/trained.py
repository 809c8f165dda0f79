"""Methods that are trained by gradient, and ensembles, next to those that learn in one pass.

    python benchmarks/trained.py $ANOMALY_AD_DATA rd simplenet cfa ensemble padim dfm --folds 1
    python benchmarks/trained.py $ANOMALY_AD_DATA simplenet --sets bottle --seeds 0 1 2

Trains each method at its defaults on each set and seed, in a process of its own, and prints: image
and pixel AUROC (raw maps at the size of the masks; - without masks), the share of defects found and
of good test images rejected at the limit for 1 %, minutes and peak memory of the training, the time
of the graph as a multiple of the bare backbone's (medians of single images, f32, alternating), the
size of the .bin, and the largest deviation of the converted graph. The sets are the folders of real
images and two rendered ones. Where the test folder has fewer than five good images, the good
training images are held out in five folds: the mean AUROC and the sums of found and rejected are
those of all folds, the other figures those of the first. `--folds 1` takes the first alone, which
is what a training of many minutes allows. No figure of a test image decides anything.

Of several sets a table of all methods follows: image AUROC, found and rejected on each set; minutes
of the training, milliseconds of the graph for one image, and megabytes, of the first set.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.evaluation.figures import evaluate
from anomaly_ad.images import Photograph, find_images, split
from anomaly_ad.images.labelled import find_labelled
from anomaly_ad.runtime.engine import Engine

COLUMNS = (
    "set",
    "method",
    "seed",
    "image AUROC",
    "pixel AUROC",
    "found",
    "rejected",
    "stated",
    "epochs",
    "fit min",
    "peak MB",
    "graph / backbone",
    ".bin MB",
    "parity",
)
RUNS = 60
FOLDS, FEWEST_GOOD = 5, 5


def splits(folder: Path, folds: int) -> Iterator[tuple[list[Path], list[Path]]]:
    """Files to train on and to test on, of so many folds at most."""
    good, tested = find_images(folder / "train"), find_images(folder / "test")
    if sum(file.parent.name == "good" for file in tested) >= FEWEST_GOOD:
        yield good, tested
        return
    bad = [file for file in tested if file.parent.name != "good"]
    for fold in split(len(good), [len(good) // FOLDS] * (FOLDS - 1), 0)[:folds]:
        held = {good[index] for index in fold}
        yield [file for file in good if file not in held], [*sorted(held), *bad]


def figures(method: str, folder: Path, seed: int, folds: int, target: str) -> dict[str, object]:
    aurocs, counts = [], np.zeros(4, int)
    first = None
    for fit, files in splits(folder, folds):
        begun = time.perf_counter()
        own = AD(method, fit, save_path=target, seed=seed, name=str(len(aurocs)))
        own.train(review=False)
        minutes = (time.perf_counter() - begun) / 60
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        first = first or (own, minutes, peak)
        bad = np.array([file.parent.name != "good" for file in files])
        scores = np.array([p.raw_score for p in own.stream(files)])
        above = scores > own.model.manifest.calibration.image.limit
        aurocs.append(roc_auc_score(bad, scores))
        counts += above[bad].sum(), bad.sum(), above[~bad].sum(), (~bad).sum()
    ad, minutes, peak = first
    pixel = evaluate(ad.model, find_labelled(folder), threshold=0.8).pixel_auroc
    training = ad.model.manifest.training
    best = training.get("best_epoch")
    return {
        "image AUROC": f"{statistics.mean(aurocs):.4f}",
        "pixel AUROC": "-" if pixel is None else f"{pixel.value:.4f}",
        "found": f"{counts[0]} of {counts[1]}",
        "rejected": f"{counts[2]} of {counts[3]}",
        "stated": f"{ad.model.manifest.calibration.image.stated_rate:.3f}",
        "epochs": "-" if best is None else f"{best} of {training['epochs']}",
        "fit min": f"{minutes:.1f}",
        "peak MB": f"{peak:.0f}",
        "graph / backbone": ratio(ad, find_images(folder / "test")[0]),
        ".bin MB": f"{sum(f.stat().st_size for f in ad.model.directory.glob('*.bin')) / 1e6:.1f}",
        "parity": f"{max(ad.model.manifest.parity['deviation'].values()):.0e}",
    }


def ratio(ad: AD, file: Path) -> str:
    """Milliseconds of the graph and of the backbone up to its deepest layer, in turns."""
    import keras

    from anomaly_ad.backbones.networks import feature_maps
    from anomaly_ad.runtime.convert import to_openvino

    framing = ad.model.manifest.plan.framing
    parameters = ad.model.manifest.plan.parameters
    layers = [*parameters.get("layers", ["stage5"]), *parameters.get("image_layers", [])]
    images = keras.Input(framing.shape, dtype="uint8", name="images")
    name = parameters.get("backbone", "efficientnet_lite0")
    bare = feature_maps(images, framing, name, [max(layers)])[0]
    engines = [ad.model.engine, Engine(to_openvino(keras.Model(images, {"features": bare})))]
    view = np.asarray(Photograph.read(file, framing).take().views[0])[None]
    times: list[list[float]] = [[], []]
    for _ in range(RUNS):
        for engine, some in zip(engines, times, strict=True):
            begun = time.perf_counter()
            engine.run(view)
            some.append(1000 * (time.perf_counter() - begun))
    own, backbone = (statistics.median(some[10:]) for some in times)
    return f"{own / backbone:.2f} ({own:.1f} ms)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the sets")
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--sets", nargs="+", help="names of folders; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help="of sets with few good test images"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as target, contextlib.redirect_stdout(sys.stderr):
            found = figures(
                options.methods[0], options.data, options.seeds[0], options.folds, target
            )
        print(json.dumps(found))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        sets = sorted(path.parent for path in options.data.glob("*/train"))
        for pose in ("small", "any"):
            if not options.sets or f"washer_{pose}" in options.sets:
                sets.append(render_sample(Path(name) / f"washer_{pose}", pose=pose))
        for folder in sets:
            if options.sets and folder.name not in options.sets:
                continue
            for method in options.methods:
                for seed in options.seeds:
                    command = [sys.executable, __file__, str(folder), method]
                    command += ["--seeds", str(seed), "--folds", str(options.folds), "--one"]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        print(f"| {folder.name} | {method} failed: {done.stderr[-300:]} |")
                        rows.append({"set": folder.name, "method": method})
                        continue
                    row = json.loads(done.stdout.splitlines()[-1])
                    cells = [folder.name, method, str(seed), *map(str, row.values())]
                    print(f"| {' | '.join(cells)} |", flush=True)
                    rows.append(dict(zip(COLUMNS, cells, strict=True)))
    print(together(rows))


def together(rows: list[dict[str, str]]) -> str:
    """One line for each method: what it finds on each set, and what it costs on the first."""
    sets = [*dict.fromkeys(row["set"] for row in rows)]
    lines = [["method", *sets, "fit min", "ms", ".bin MB"], ["---"] * (len(sets) + 4)]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["set"]: row for row in reversed(rows) if row["method"] == method}
        cells = [f"`{method}`"]
        for name in sets:
            row = own.get(name, {})
            found = [row.get(column, "-") for column in ("image AUROC", "found", "rejected")]
            cells.append("; ".join(found) if "found" in row else "-")
        first = own.get(sets[0], {})
        ms = first.get("graph / backbone", "-").partition("(")[2].removesuffix(" ms)") or "-"
        lines.append([*cells, first.get("fit min", "-"), ms, first.get(".bin MB", "-")])
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
