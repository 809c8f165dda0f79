"""What a method costs compared with its backbone: its graph, its fit, and the memory of the fit.

    python benchmarks/cost.py $ANOMALY_AD_DATA/bottle padim patchcore

Input of 256x256 pixels; all else at its defaults.

graph   the compiled model on one prepared image, against the bare backbone, in turn; f32 and bf16
fit     the whole fit with cross-fitting on the good images, against decoding, preparing and the
        bare backbone over them; importing TensorFlow, building and converting networks and the
        proofs of parity are reported apart
calibration  the part of it that scores the good images as unseen, and with five folds instead
predict an image file end to end, a JPEG of 512 and a PNG of 900 pixels a side: `predict` in turn
        with decoding, preparing and running the graph alone, and with the former defaults
memory  the peak of a process that fits 200 and one that fits 2,000 images
"""

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from verdict import FORMER, five_folds

ROUNDS = 60
SIZE = (256, 256)
# At most: graph at f32 and bf16, fit, MB of memory, MB of .bin, MB of the directory.
BARS = {
    "padim": (1.35, 1.3, 2.5, 1500, 24, 50),
    "patchcore": (1.7, None, 6, None, None, None),
}

FIT = """
import re, sys
from pathlib import Path
from anomaly_ad import AD
AD(sys.argv[3], sys.argv[1], save_path=sys.argv[2], img_size=(256, 256)).train()
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
"""


class Stopwatch:
    """Adds up the seconds of the functions it wraps; calls within calls count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def wrap(self, module: object, name: str) -> None:
        """Put a timed function in the place of a module's."""
        function = getattr(module, name)

        def timed(*arguments: object, **options: object) -> object:
            start = time.perf_counter()
            self._depth += 1
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - start

        setattr(module, name, timed)


def show(label: str, figures: str, bar: float | None = None) -> None:
    print(f"{label:12}{figures}" + (f"   (at most {bar})" if bar else ""), flush=True)


def predicted(method: str, data: Path, folder: Path, framing: Any) -> None:
    """Milliseconds of image files, end to end."""
    from anomaly_ad import AD
    from anomaly_ad.images import Photograph, find_training_images
    from anomaly_ad.runtime.engine import Engine

    engine = Engine(next((folder / "model").glob("*.xml")))
    models = {"predict": AD(folder / "model")}
    if method in FORMER:
        former = AD(method, data, save_path=folder / "former", img_size=SIZE, **FORMER[method])
        models["former defaults"] = former.train()
    picture = cv2.imread(str(find_training_images(data).paths[0]))
    for name, side in (("512.jpg", 512), ("900.png", 900)):
        file = folder / name
        cv2.imwrite(str(file), cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC))
        times: dict[str, list[float]] = {label: [] for label in ("alone", *models)}
        for _ in range(ROUNDS):
            for label, kept in times.items():
                start = time.perf_counter()
                if label == "alone":
                    engine.run(Photograph.read(file, framing).views(), ())
                else:
                    with contextlib.redirect_stdout(io.StringIO()):
                        models[label].predict(file, save=False)
                kept.append(time.perf_counter() - start)
        figures = ", ".join(f"{1000 * statistics.median(t):.1f} ms {n}" for n, t in times.items())
        pairs = zip(times["predict"], times["alone"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        show("predict", f"{name}: {figures}   ratio {ratio:.2f}", 1.15)


def measure(method: str, data: Path, folder: Path) -> None:
    import keras

    from anomaly_ad import AD
    from anomaly_ad.backbones.networks import feature_maps
    from anomaly_ad.images import Photograph, find_training_images
    from anomaly_ad.methods import registry
    from anomaly_ad.runtime import convert
    from anomaly_ad.runtime.engine import Engine
    from anomaly_ad.support.threads import ordered_map
    from anomaly_ad.training import learning, steps, unseen

    bars = BARS.get(method, (None,) * 6)
    registry.detector_class(method)
    ad = AD(method, data, save_path=folder, img_size=SIZE)
    framing, chosen = ad._choice.plan.framing, ad._choice.plan.parameters
    images = keras.Input(framing.shape, dtype="uint8")
    layers = [*chosen["layers"], *chosen.get("image_layers", ())]
    maps = feature_maps(images, framing, chosen["backbone"], layers)
    bare = convert.to_openvino(
        keras.Model(images, {f"map{n}": features for n, features in enumerate(maps)})
    )
    paths = find_training_images(data).paths

    apart = Stopwatch()
    apart.wrap(steps, "build")
    apart.wrap(convert, "to_openvino")
    apart.wrap(convert, "prove_parity")
    apart.wrap(unseen, "_prove_formula")
    calibrating = Stopwatch()
    calibrating.wrap(learning, "cross_fit")
    fits, bares, totals, unseens, folds = [], [], [], [], []
    for _ in range(3):
        with five_folds(method):
            calibrating.seconds = 0.0
            ad.train()
            folds.append(calibrating.seconds)
        apart.seconds = calibrating.seconds = 0.0
        start = time.perf_counter()
        ad.train()
        totals.append(time.perf_counter() - start)
        fits.append(totals[-1] - apart.seconds)
        unseens.append(calibrating.seconds)
        engine = Engine(bare)
        start = time.perf_counter()
        prepared = ordered_map(lambda path: Photograph.read(path, framing).views(), paths)
        for _ in engine.stream((None, image) for image in prepared):
            pass
        bares.append(time.perf_counter() - start)

    print(f"\n{method}, {data.name}")
    for precision, bar in zip(("f32", "bf16"), bars, strict=False):
        engines = [Engine(next((folder / "model").glob("*.xml")), precision)]
        engines.append(Engine(bare, precision))
        image = Photograph.read(paths[0], framing).views()
        times: list[list[float]] = [[], []]
        for engine in engines:
            engine.run(image, ())
        for _ in range(ROUNDS):
            for engine, kept in zip(engines, times, strict=True):
                start = time.perf_counter()
                engine.run(image, ())
                kept.append(time.perf_counter() - start)
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        first, second = (1000 * statistics.median(kept) for kept in times)
        figures = f"{first:.2f} ms against {second:.2f} ms bare   ratio {ratio:.2f}"
        show(f"graph {precision}", figures, bar)
    ratio = statistics.median(a / b for a, b in zip(fits, bares, strict=True))
    fit, alone = statistics.median(fits), statistics.median(bares)
    figures = f"{fit:.2f} s against {alone:.2f} s bare, {len(paths)} images   ratio {ratio:.2f}"
    show("fit", figures, bars[2])
    show("apart", f"{statistics.median(totals) - fit:.1f} s building, converting, proving")
    ratio = statistics.median(a / b for a, b in zip(unseens, folds, strict=True))
    first, second = statistics.median(unseens), statistics.median(folds)
    show("calibration", f"{first:.2f} s against {second:.2f} s with five folds   ratio {ratio:.2f}")
    sizes = {path.suffix: path.stat().st_size / 1e6 for path in (folder / "model").iterdir()}
    show("size", f".bin {sizes['.bin']:.1f} MB", bars[4])
    show("", f"whole directory {sum(sizes.values()):.1f} MB", bars[5])
    predicted(method, data, folder, framing)
    for count in (200, 2000):
        many = folder / f"many-{count}"
        many.mkdir()
        for n in range(count):  # no two alike: copies would be left out
            picture = cv2.imread(str(paths[n % len(paths)]))
            picture = np.clip(picture * (0.9 + 0.2 * n / count), 0, 255).astype(np.uint8)
            cv2.imwrite(str(many / f"{n:04d}.jpg"), picture)
        command = [sys.executable, "-c", FIT, str(many), str(folder / "other"), method]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak = float(done.stdout.splitlines()[-1])
        show("memory", f"{peak:.0f} MB fitting {count} images", bars[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("methods", nargs="+")
    options = parser.parse_args()

    start = time.perf_counter()
    from anomaly_ad.methods import registry

    registry.detector_class(options.methods[0])
    print(f"importing TensorFlow: {time.perf_counter() - start:.1f} s")
    for method in options.methods:
        with tempfile.TemporaryDirectory() as folder:
            measure(method, options.data, Path(folder))


if __name__ == "__main__":
    main()
