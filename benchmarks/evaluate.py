"""What evaluating costs compared with predicting the same images, in time and in memory.

    python benchmarks/evaluate.py $ANOMALY_AD_DATA/bottle

Trains padim, then inspects the labelled images with `evaluate` (pixel metrics at the size of the
masks included) and with `predict` (with its pictures and records, and without), in turn. Then two
new processes without TensorFlow evaluate and predict 2,000 images and print their peak memory.
"""

import argparse
import contextlib
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.images.labelled import find_labelled

ROUNDS = 7
MANY = 2000
RUN = """
import re, sys
from pathlib import Path
from anomaly_ad import AD
ad = AD(sys.argv[1])
if sys.argv[3] == "evaluate":
    ad.evaluate(sys.argv[2])
else:
    for _ in ad.stream(Path(sys.argv[2], "test")):
        pass
assert "tensorflow" not in sys.modules
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
"""


def many(data: Path, folder: Path, count: int = MANY) -> Path:
    """The labelled images again and again, as links."""
    items = find_labelled(data).items
    for n in range(count):
        item = items[n % len(items)]
        for kind, file, name in (
            ("test", item.path, f"{n:05d}{item.path.suffix}"),
            ("ground_truth", item.mask, f"{n:05d}_mask.png"),
        ):
            if file is not None:
                target = folder / kind / item.kind / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(file.resolve())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ad = AD("padim", options.data, save_path=folder).train()
        output = folder / "output"
        runs = {
            "evaluate": lambda: ad.evaluate(options.data),
            "predict": lambda: ad.predict(options.data / "test", output),
            "predict, nothing saved": lambda: ad.predict(options.data / "test", save=False),
        }
        seconds: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(ROUNDS + 1):
            for label, run in runs.items():
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    run()
                seconds[label].append(time.perf_counter() - start)
                shutil.rmtree(output, ignore_errors=True)
        evaluating = seconds.pop("evaluate")[1:]
        print(f"\nevaluate {statistics.median(evaluating):.2f} s, {ad.model.manifest.plan.framing}")
        for label, others in seconds.items():
            pairs = zip(evaluating, others[1:], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{label} {statistics.median(others[1:]):.2f} s   ratio {ratio:.2f}")
        large = many(options.data, folder / "many")
        for what in ("predict", "evaluate"):
            command = [sys.executable, "-c", RUN, str(ad.model.directory), str(large), what]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{what} {MANY} images: peak {float(done.stdout.splitlines()[-1]):.0f} MB")


if __name__ == "__main__":
    main()
