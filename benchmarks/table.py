"""A table of detectors on a data folder: accuracy, seconds, milliseconds, size and memory.

    python benchmarks/table.py $ANOMALY_AD_DATA/bottle padim patchcore dfm AD0
    python benchmarks/table.py $ANOMALY_AD_DATA/bottle patchcore --img-size 256 256
    python benchmarks/table.py $ANOMALY_AD_DATA/bottle padim --also $ANOMALY_AD_DATA/magnetic_tile

The folder is laid out as train/good, test/good, test/<defect> and ground_truth/<defect>/*_mask.png.
Each detector is trained at its defaults, but for --img-size where it is given. Pixel metrics are of
raw maps, at the size of the masks, also kind by kind. The milliseconds are medians over single
images, on all cores: decode and prepare, the bare backbone (for methods that have one), the whole
graph, and predict(save=False) from the file. Peak memory is that of a new process without
TensorFlow that inspects the test folder. With --also a short table is printed last: what is found
on both sets; milliseconds end to end, seconds of the fit and megabytes of the model are those of
the first.
"""

import argparse
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad import AD
from anomaly_ad.evaluation.figures import evaluate
from anomaly_ad.images import Photograph
from anomaly_ad.images.labelled import find_labelled
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.support.threads import cpu_count

COLUMNS = (
    "detector",
    "image AUROC",
    "pixel AUROC",
    "AUPRO",
    "good flagged",
    "defects found",
    "fit s",
    "decode+prepare ms",
    "bare backbone ms",
    "graph ms",
    "end to end ms",
    "detector .bin MB",
    "model MB",
    "peak MB",
)
PREDICT = """
import re, sys
from pathlib import Path
from anomaly_ad import AD
AD(sys.argv[1]).predict(sys.argv[2], save=False)
assert "tensorflow" not in sys.modules
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
"""


def milliseconds(run, items: list) -> float:
    """Median of single runs, after a warm-up."""
    run(items[0])
    times = []
    for item in items:
        start = time.perf_counter()
        run(item)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def bare_backbone(ad: AD) -> Engine | None:
    """The backbone alone, compiled; None for a method without one."""
    if "backbone" not in ad.model.manifest.plan.parameters:
        return None
    import keras

    from anomaly_ad.backbones.networks import feature_maps
    from anomaly_ad.runtime.convert import to_openvino

    plan = ad.model.manifest.plan
    images = keras.Input(plan.framing.shape, dtype="uint8")
    chosen = plan.parameters
    layers = [*chosen["layers"], *chosen.get("image_layers", ())]
    maps = feature_maps(images, plan.framing, chosen["backbone"], layers)
    named = {f"map{n}": features for n, features in enumerate(maps)}
    return Engine(to_openvino(keras.Model(images, named)), plan.precision)


def row(name: str, data: Path, folder: Path, size: list[int] | None) -> list[str]:
    """Train, inspect and measure one detector."""
    ad = AD(name, data, save_path=folder / name, img_size=size)
    start = time.perf_counter()
    ad.train()
    fit = time.perf_counter() - start
    framing, engine = ad.model.manifest.plan.framing, ad.model.engine
    labelled = find_labelled(data)
    files = [item.path for item in labelled.items]
    prepared = [Photograph.read(file, framing).views() for file in files]
    found = evaluate(ad.model, labelled, threshold=0.8)
    for kind in found.kinds:
        if kind.pixel_auroc is not None and len(found.kinds) > 1:
            others = tuple(item for item in labelled.items if item.kind != kind.name)
            rest = evaluate(ad.model, replace(labelled, items=others), threshold=0.8).pixel_auroc
            print(
                f"{name}, pixel AUROC: good and {kind.name} {kind.pixel_auroc:.3f}, "
                f"all but it {rest.value:.3f}"
            )
    bare = bare_backbone(ad)
    some = list(range(0, len(files), -(-len(files) // 60)))
    times = [
        milliseconds(lambda n: Photograph.read(files[n], framing).views(), some),
        milliseconds(lambda n: bare.run(prepared[n], ()), some) if bare else float("nan"),
        milliseconds(lambda n: engine.run(prepared[n], ()), some),
        milliseconds(lambda n: ad.predict(files[n], save=False), some),
    ]
    sizes = {path.suffix: path.stat().st_size / 1e6 for path in ad.model.directory.iterdir()}
    command = [sys.executable, "-c", PREDICT, str(ad.model.directory), str(data / "test")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [
        name,
        f"{found.auroc.value:.4f}",
        *("-" if e is None else f"{e.value:.4f}" for e in (found.pixel_auroc, found.aupro)),
        f"{found.rejected} of {found.n_good}",
        f"{found.found} of {found.n_defective}",
        f"{fit:.1f}",
        *("-" if np.isnan(value) else f"{value:.1f}" for value in times),
        f"{sizes['.bin']:.1f}",
        f"{sum(sizes.values()):.1f}",
        f"{float(done.stdout.splitlines()[-1]):.0f}",
    ]


def processor() -> str:
    """The processor's name and how many of its cores this process may use."""
    try:
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        name = platform.processor()
    return f"{name}, {cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("detectors", nargs="+")
    parser.add_argument("--img-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--also", type=Path, metavar="DATA", help="a second folder")
    options = parser.parse_args()
    cv2.setNumThreads(cpu_count())
    tables = []
    for data in filter(None, (options.data, options.also)):
        with tempfile.TemporaryDirectory() as folder:
            rows = [row(name, data, Path(folder), options.img_size) for name in options.detectors]
        show(f"{data.name}, {processor()}", COLUMNS, rows)
        tables.append([dict(zip(COLUMNS, cells, strict=True)) for cells in rows])
    if options.also:
        names = [options.data.name, options.also.name]
        heads = [f"{name}: found; rejected; AUROC" for name in names]
        short = [
            [
                f"`{one['detector']}`",
                *(found(each) for each in (one, other)),
                one["end to end ms"],
                one["fit s"],
                one["model MB"],
            ]
            for one, other in zip(*tables, strict=True)
        ]
        show(processor(), ("method", *heads, "ms per image", "fit s", "MB"), short)


def found(cells: dict[str, str]) -> str:
    """Share of the defects found, good images rejected, image AUROC."""
    some, total = map(int, cells["defects found"].split(" of "))
    return f"{some / total:.0%}; {cells['good flagged']}; {float(cells['image AUROC']):.3f}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
