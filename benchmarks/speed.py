"""What the way of an image costs compared with what it needs at least; ratios within one run.

    python benchmarks/speed.py
    python benchmarks/speed.py $ANOMALY_AD_DATA/bottle/test/good

Trains AD0 for one epoch on the rendered sample set and prints, for its 512x512 JPEG images or for
the first images of a folder:

help     `anomaly-ad --help` and `--version`, against Python alone
cold     a new process from its start to the verdict of one image, against a new process that only
         imports openvino, cv2 and numpy, compiles the IR and reads the image
one      AD.predict of one image (save=False), against decode, prepare and the compiled IR
folder   AD.predict of a folder per image, against the same images one by one
pictures AD.predict of a folder with pictures saved, against without
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import openvino as ov

from anomaly_ad import AD
from anomaly_ad.data.sample import render_sample
from anomaly_ad.images import Photograph, find_images

ROUNDS = 9

BARE = """
import sys, cv2, numpy, openvino
settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
openvino.Core().compile_model(sys.argv[1], "CPU", settings)
assert cv2.imread(sys.argv[2]) is not None
"""
VERDICT = """
import sys
from anomaly_ad import AD
assert AD(sys.argv[1]).predict(sys.argv[2], save=False).is_anomalous in (True, False)
"""


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], bar: str) -> None:
    """Run both in turn and print the medians and the median of the ratios of neighbours."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for run, kept in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            kept.append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    first, second = (1000 * statistics.median(kept) for kept in times)
    print(f"{name:9} {first:8.1f} ms against {second:8.1f} ms   ratio {ratio:.2f}   ({bar})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="?", type=Path, help="default: rendered, 512x512, JPEG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.redirect_stdout(sys.stderr):
            sample = render_sample(folder / "sample", n_train=12, n_test_good=8, n_per_defect=0)
            ad = AD("AD0", sample, save_path=folder).train(1)
        files = find_images(options.images or sample / "test" / "good")[:8]
        model = next((folder / "model").glob("*.xml"))

        def process(code: str, *arguments: object) -> Callable[[], object]:
            command = [sys.executable, "-c", code, *map(str, arguments)]
            return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        for option in ("--help", "--version"):
            start = process("import sys; from anomaly_ad.cli import main; main()", option)
            compare("help", start, process("pass"), "at most 300 ms more")
        compare(
            "cold",
            process(VERDICT, folder / "model", files[0]),
            process(BARE, model, files[0]),
            "at most 1.5",
        )

        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        framing = ad.model.manifest.plan.framing

        def bare() -> None:
            for file in files:
                request.infer([Photograph.read(file, framing).views()], share_inputs=True)

        def one_by_one() -> None:
            for file in files:
                ad.predict(file, save=False)

        bare(), one_by_one()
        compare("one", one_by_one, bare, f"at most 1.15; {len(files)} images")

        many = folder / "many"
        many.mkdir()
        for n in range(100):
            file = files[n % len(files)]
            (many / f"{n:03d}{file.suffix}").symlink_to(file.absolute())
        linked = sorted(many.iterdir())
        with contextlib.redirect_stdout(sys.stderr):
            ad.predict(many, save=False)

            def loop() -> None:
                for file in linked:
                    ad.predict(file, save=False)

        def run(**options: object) -> Callable[[], object]:
            def predict() -> None:
                with contextlib.redirect_stdout(sys.stderr):
                    ad.predict(many, folder / "out", **options)

            return predict

        compare("folder", loop, run(save=False), "at least 1.25; 100 images")
        compare("pictures", run(), run(save=False), "at most 2; 100 images")


if __name__ == "__main__":
    main()
