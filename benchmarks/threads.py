"""Images a second of a process that may use one processor, by its own choice and by hand.

    python benchmarks/threads.py

Runs `AD.stream` over rendered washers in processes that are held to one processor (`taskset`): with
what the package chooses, and with each number of threads and streams that a person might set. Five
rounds by turns; printed are the medians and the share of the best that the package reaches.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.images import find_images

ROUNDS = 5
PROGRAM = """
import json, sys, time
import openvino as ov
from anomaly_ad import AD
threads, streams = json.loads(sys.argv[2])
if streams is not None:
    compile_model = ov.Core.compile_model
    def by_hand(self, model, device, properties):
        return compile_model(self, model, device, {**properties, "NUM_STREAMS": streams})
    ov.Core.compile_model = by_hand
ad = AD(sys.argv[1], threads=threads)
files = sys.argv[3:]
list(ad.stream(files[:10]))
begun = time.perf_counter()
for _ in ad.stream(files):
    pass
print(len(files) / (time.perf_counter() - begun))
"""
# (threads, streams); None: what the package chooses.
WAYS = {"chosen": (None, None), "1 thread, 1 stream": (1, 1), "2, 1": (2, 1), "2, 2": (2, 2)}


def rate(model: Path, way: tuple, files: list[Path]) -> float:
    command = ["taskset", "-c", "0", sys.executable, "-c", PROGRAM, model, json.dumps(way), *files]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with redirect_stdout(sys.stderr):
            sample = render_sample(work / "sample")
            AD("padim", sample, save_path=work, img_size=(256, 256)).train(review=False)
        files = (find_images(sample / "test") * 5)[:200]
        rates = {name: [] for name in WAYS}
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                rates[name].append(rate(work / "model", way, files))
    found = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in found.items():
        print(f"{name}: {value:.1f} images a second")
    best = max(value for name, value in found.items() if name != "chosen")
    print(f"chosen / best by hand: {found['chosen'] / best:.3f}")


if __name__ == "__main__":
    main()
