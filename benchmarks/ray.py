"""Many images and several processes: throughput with losses, equal fits, memory, a simulation.

    python benchmarks/ray.py throughput [--images 10000] [--workers 4]
    python benchmarks/ray.py fit $ANOMALY_AD_DATA/bottle
    python benchmarks/ray.py memory [--paths 1000000]
    python benchmarks/ray.py core $ANOMALY_AD_DATA/bottle
    python benchmarks/ray.py simulate [--images 1000000000]

`throughput`: JPEGs of 256 pixels by `AD.stream` and by `predict_dataset(engine="ray")`, while one
process that scores is killed at a random moment and, later, another one; images per second from the
first result on, the start apart; rows, repeated ones, and the largest difference of a score.
`fit`: padim and dfm on one process and on four: scores of unseen images, limit, and scores of test
images. `memory`: the driver's own memory where the list is of a million paths and scoring is
replaced by nothing. `core`: what one core does in a second, part by part, for a model and its
photographs. `simulate`: the figures of docs/scale.md for many images, from those of `core`.
"""

import sys

sys.path.pop(0)  # this folder, in which this file would be taken for the package ray

import argparse
import os
import pickle
import random
import resource
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.images import Photograph, find_images
from anomaly_ad.support import duration
from anomaly_ad.training.steps import build


def small_jpegs(folder: Path, count: int) -> None:
    """Rendered parts as JPEGs of 256 pixels, no two alike."""
    files = find_images(render_sample(folder.parent / "sample") / "train")
    images = [cv2.resize(cv2.imread(str(file)), (256, 256)) for file in files]
    rng = np.random.default_rng(0)
    for number in range(count):
        shift = rng.integers(-12, 13, 2)
        image = np.roll(images[number % len(images)], shift, (0, 1))
        target = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), image)


def scorers() -> list[int]:
    """Process numbers of those that score."""
    found = subprocess.run(
        ["pgrep", "-f", r"ray::.*(_Each|MapWorker)"], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


class Killer(threading.Thread):
    """Kills two scoring processes at random moments once results have come."""

    def __init__(self, output: Path, expected: float) -> None:
        super().__init__(daemon=True)
        self.output, self.expected = output, expected
        self.first: float | None = None
        self.killed: list[float] = []

    def run(self) -> None:
        """Wait for results, then kill."""
        while not [*self.output.glob("part-*.parquet")]:
            time.sleep(0.05)
        self.first = time.perf_counter()
        self.before = len([*self.output.glob("part-*.parquet")])
        moments = sorted(random.Random(time.time()).uniform(0.1, 0.7) for _ in range(2))
        for moment in moments:
            time.sleep(max(self.first + moment * self.expected - time.perf_counter(), 0))
            if found := scorers():
                os.kill(random.choice(found), signal.SIGKILL)
                self.killed.append(time.perf_counter() - self.first)


def throughput(count: int, workers: int) -> None:
    import pandas as pd

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        small_jpegs(folder, count)
        train = sorted(folder.rglob("*.jpg"))[:: max(count // 200, 1)][:200]
        ad = AD("padim", train, save_path=Path(name, "Models")).train(review=False)
        expected: dict[str, float] = {}
        rates = []
        for part in range(2):  # before and after, since the machine is not ours alone
            begun = time.perf_counter()
            for found in ad.stream(folder):
                expected[os.path.abspath(found.path)] = found.raw_score
            rates.append(count / (time.perf_counter() - begun))
            print(f"AD.stream: {rates[-1]:.0f} images/s", flush=True)
            if part == 0:
                output = Path(name, "out")
                killer = Killer(output, count / rates[0])
                killer.start()
                begun = time.perf_counter()
                run = ad.predict_dataset(folder, output, engine="ray", workers=workers, threads=1)
                end = time.perf_counter()
                start = killer.first - begun
                table = pd.read_parquet(output)
                # What was done when the first result was seen is not counted.
                rows = len(table) * (1 - killer.before / len([*output.glob("part-*.parquet")]))
                rate = rows / (end - killer.first)
                print(f"Ray, {workers} processes: {rate:.0f} images/s, start {start:.0f} s")
                moments = ", ".join(f"{m:.1f} s" for m in killer.killed)
                print(f"killed after {moments} of {end - killer.first:.1f} s", flush=True)
        off = max(abs(expected[p] - s) for p, s in zip(table.path, table.raw_score, strict=True))
        print(f"rows {len(table)}, different paths {table.path.nunique()}, {run.counts}")
        print(f"largest difference of a score {off:.1e}")
        print(f"ratio {rate / np.mean(rates):.2f}")


def fit(folder: Path) -> None:
    for method in ("padim", "dfm"):
        with tempfile.TemporaryDirectory() as name:
            found = []
            for engine, options in (("local", {}), ("ray", {"workers": 4, "threads": 1})):
                ad = AD(method, folder / "train", save_path=name, name=engine)
                begun = time.perf_counter()
                ad.train(review=False, engine=engine, **options)
                seconds = time.perf_counter() - begun
                manifest = ad.model.manifest
                limits = [manifest.calibration.image.limit, manifest.calibration.map.limit]
                good = ad.model.good_scores().scores
                tested = [p.raw_score for p in ad.predict(folder / "test", save=False)]
                found.append(np.array([*limits, *good, *tested]))
                print(f"{method} {engine}: {seconds:.0f} s", flush=True)
            off = np.abs(found[0] / found[1] - 1).max()
            print(f"{method}: largest relative difference of limits and scores {off:.1e}")


def memory(count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as name:
        sample = render_sample(Path(name, "sample"))
        ad = AD("dfkde", sample / "train", save_path=name, name="m").train(review=False)
        directory = ad.model.directory
        listed = Path(name, "list.parquet")
        schema = pa.schema([("path", pa.string())])
        with pq.ParquetWriter(listed, schema) as writer:
            for start in range(0, count, 100_000):
                numbers = range(start, min(start + 100_000, count))
                some = [f"/srv/line_{n % 10}/2026-11-{n % 28 + 1}/p_{n:09d}.jpg" for n in numbers]
                writer.write_table(pa.table({"path": some}, schema))
        # In a process of its own: training has had its memory in this one.
        command = [sys.executable, __file__, "driver", str(directory), str(listed), name]
        subprocess.run(command, check=True)


def driver(directory: str, listed: str, target: str) -> None:
    from anomaly_ad.scale import dataset, scoring

    class Stub(scoring.Scoring):
        """Reads the paths of a shard and says that all is good."""

        def start(self):
            def count(numbers):
                for number in numbers:
                    verdicts = {"good": len(self.paths.shard(number, self.n_shards))}
                    yield {"shard": number, "known": 0, "verdicts": verdicts}

            return count

    dataset.Scoring = Stub
    begun = time.perf_counter()
    run = AD(directory).predict_dataset(listed, f"{target}/out", engine="ray", workers=2, threads=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - begun
    print(f"{run.counts.total()} paths: driver's peak {peak:.0f} MB, {seconds:.0f} s")


def core(folder: Path) -> None:
    """Seconds of one core for each part of an image's way."""
    from anomaly_ad.runtime import Device

    files = find_images(folder / "test")
    with tempfile.TemporaryDirectory() as name:
        ad = AD("padim", folder / "train", save_path=name).train(review=False)
        model = ad.model.on(Device(threads=1))
        framing = model.manifest.plan.framing
        parts: dict[str, list[float]] = {"read": [], "decode": [], "frame": [], "model": []}
        cv2.setNumThreads(1)
        for _ in range(3):
            for file in files:
                marks = [time.perf_counter()]
                data = file.read_bytes()
                marks.append(time.perf_counter())
                photo = Photograph.decode(data, file, framing)
                marks.append(time.perf_counter())
                taken = photo.take()
                marks.append(time.perf_counter())
                model.engine.inspect(taken, framing, ("score", "anomaly_map"))
                marks.append(time.perf_counter())
                for times, first, second in zip(parts.values(), marks, marks[1:], strict=False):
                    times.append(second - first)
        median = {part: 1000 * float(np.median(times)) for part, times in parts.items()}
        kilobytes = np.mean([file.stat().st_size for file in files]) / 1000
        detector = build(model.manifest.plan).restore(model.detector_state())
        state = len(pickle.dumps(detector.statistic)) / 1e6
        print(" ".join(f"{part} {ms:.2f} ms" for part, ms in median.items()))
        pngs, waits = [], []
        for file in files[:20]:
            pngs.append(cv2.imencode(".png", cv2.imread(str(file)))[1].tobytes())
            begun = time.perf_counter()
            Photograph.decode(pngs[-1], file, framing)
            waits.append(time.perf_counter() - begun)
        print(
            f"as PNG: decode {1000 * np.median(waits):.1f} ms, "
            f"{np.mean([*map(len, pngs)]) / 1000:.0f} kB"
        )
        print(f"a file {kilobytes:.0f} kB; {1000 / sum(median.values()):.0f} images/s and core")
        print(f"statistics of padim {state:.0f} MB")


def simulate(
    images: int, kilobytes: float, decode: float, rest: float, megabytes: float, gigabit: float
) -> None:
    """How long it takes by cores; what the network and a storage must give; how merges grow.

    Every machine of 16 cores draws shards from one list; a core takes `decode` + `rest` ms for an
    image with 5 % of scatter, the storage gives what it can, and whichever is slower counts.
    """
    rng = np.random.default_rng(0)
    print("| cores | images/s | time | read MB/s | machines | what limits |")
    print("|---|---|---|---|---|---|")
    per_machine = 16
    for cores in (2, 16, 64, 256, 1024, 4096):
        shards = min(-(-images // 256), 16384)
        size = images / shards
        finish = np.zeros(cores)
        # Shards go to whoever is free first.
        each = size * (decode + rest) / 1000
        for took in each * rng.normal(1, 0.05, shards).clip(0.8, 1.2):
            place = int(finish.argmin())
            finish[place] += took
        machines = -(-cores // per_machine)
        network = images * kilobytes * 1000 / (machines * gigabit * 1e9 / 8)
        seconds = max(finish.max(), network)
        limit = "cores" if finish.max() >= network else "network"
        if cores > shards / 4:
            limit += ", shards too few"
        rate = images / seconds
        print(
            f"| {cores} | {rate:,.0f} | {duration(seconds)} | {rate * kilobytes / 1000:.0f} | "
            f"{machines} | {limit} |"
        )
    print("\n| workers | learning 10,000 images, s | merge in a tree, s | one after the other, s |")
    print("|---|---|---|---|")
    transfer = megabytes * 8e6 / (gigabit * 1e9)
    add = megabytes / 1000  # a GB/s through memory
    for workers in (4, 16, 64, 256, 1024):
        tree = np.ceil(np.log2(workers)) * (transfer + add)
        row = workers * (transfer + add)
        learning = 10_000 * (decode + 2 * rest) / 1000 / workers
        print(f"| {workers} | {learning:.1f} | {tree:.1f} | {row:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("throughput")
    one.add_argument("--images", type=int, default=10_000)
    one.add_argument("--workers", type=int, default=4)
    for name in ("fit", "core"):
        commands.add_parser(name).add_argument("folder", type=Path)
    commands.add_parser("memory").add_argument("--paths", type=int, default=1_000_000)
    inner = commands.add_parser("driver")
    for name in ("directory", "listed", "target"):
        inner.add_argument(name)
    some = commands.add_parser("simulate")
    some.add_argument("--images", type=int, default=1_000_000)
    some.add_argument("--kilobytes", type=float, default=700)
    some.add_argument("--decode", type=float, default=30, help="ms of a core")
    some.add_argument("--rest", type=float, default=10, help="ms of a core")
    some.add_argument("--megabytes", type=float, default=52, help="of statistics")
    some.add_argument("--gigabit", type=float, default=10, help="network of a machine of 16 cores")
    options = vars(parser.parse_args())
    command = options.pop("command")
    if command == "throughput":
        throughput(options["images"], options["workers"])
    elif command == "memory":
        memory(options["paths"])
    else:
        {"fit": fit, "core": core, "simulate": simulate, "driver": driver}[command](**options)


if __name__ == "__main__":
    main()
