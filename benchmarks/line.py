"""A watched folder that is killed, and what watching costs.

    python benchmarks/line.py kill      # 5,000 files, the watcher killed 20 times, the webhook 10
    python benchmarks/line.py steady    # images a second next to AD.stream, memory
    python benchmarks/line.py idle      # from a rename to the verdict

`kill` drops files into an inbox, by a second process, 1.5 times as fast as they can be inspected:
a third is written in pieces, a third is renamed into place, a third is copied. The watcher is
killed (SIGKILL) at random moments and started again; a webhook receiver is ended and started again,
and refuses one request in ten. Printed: rows, files without a row or with several, verdicts that
differ from AD.predict's, pictures, keys that the receiver never had or had with another verdict.

`steady` prints images a second of AD.stream with pictures and of a watcher with journal and
pictures over the same files, and the watcher's resident memory on the way. `idle` prints the time
from a rename into place to the verdict, with the default --settle of a second, next to that of
AD.predict for the same file.
"""

import argparse
import collections
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from anomaly_ad import AD
from anomaly_ad.data import render_sample
from anomaly_ad.images import find_images
from anomaly_ad.line.journal import read_rows

SIZE = (256, 256)


def model_and_images(work: Path) -> tuple[Path, list[Path]]:
    sample = render_sample(work / "sample", size=SIZE)
    AD("padim", sample, save_path=work, img_size=SIZE).train(review=False)
    return work / "model", find_images(sample / "test")


def watcher(model: Path, inbox: Path, output: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "anomaly_ad", "watch", model, inbox, "--output", output, *more]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)


def rate_of_stream(model: Path, files: list[Path], save_path: Path | None) -> float:
    ad = AD(f"{model}")
    list(ad.stream(files[:20]))  # compiles
    begun = time.perf_counter()
    for _ in ad.stream(files, save_path):
        pass
    return len(files) / (time.perf_counter() - begun)


DROPPER = """
import os, shutil, sys, time
from pathlib import Path
inbox, rate, count, *sources = sys.argv[1:]
begun = time.monotonic()
for number in range(int(count)):
    source = sources[number % len(sources)]
    target = os.path.join(inbox, f"{number:05d}{Path(source).suffix}")
    data = Path(source).read_bytes() + b"\\0" * (number % 7)  # what follows an image is ignored
    if number % 3 == 0:
        with open(target, "wb") as file:
            for start in range(0, len(data), 4096):
                file.write(data[start:start + 4096])
                file.flush()
    elif number % 3 == 1:
        Path(f"{target}.part").write_bytes(data)
        os.rename(f"{target}.part", target)
    else:
        Path(target).write_bytes(data)
    time.sleep(max(begun + number / float(rate) - time.monotonic(), 0))
"""


class Receiver:
    """A webhook that keeps what it gets, refuses one request in ten, and can be ended."""

    def __init__(self) -> None:
        self.got: dict[str, list[dict]] = collections.defaultdict(list)
        self.random = random.Random(0)
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the same port each time."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                refused = outer.random.random() < 0.1
                if not refused:
                    outer.got[self.headers["idempotency-key"]].append(body)
                self.send_response(503 if refused else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        """Refuse connections."""
        self.server.shutdown()
        self.server.server_close()


def kill(work: Path, count: int, kills: int, restarts: int) -> None:
    model, images = model_and_images(work)
    rate = rate_of_stream(model, images * 6, work / "warm")
    print(f"AD.stream with pictures: {rate:.1f} images/s; files arrive at {1.5 * rate:.1f}/s")
    inbox, output = work / "inbox", work / "output"
    inbox.mkdir()
    receiver = Receiver()
    hook = ("--webhook", f"http://127.0.0.1:{receiver.port}/", "--settle", "0.5")
    process = watcher(model, inbox, output, *hook)
    dropper = subprocess.Popen(
        [sys.executable, "-c", DROPPER, str(inbox), str(1.5 * rate), str(count), *map(str, images)]
    )
    chance = random.Random(1)
    begun = time.monotonic()
    span = 1.1 * count / rate  # over which kills are spread; each costs a start on top
    for number in range(kills):
        time.sleep(chance.uniform(0.5, 1.5) * span / kills + 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if number % (kills // restarts) == 0:
            receiver.end()
            time.sleep(chance.uniform(0, 2))
            receiver.start()
        process = watcher(model, inbox, output, *hook)
    dropper.wait()
    waiting, last = -1, time.monotonic()
    while time.monotonic() - last < 30:
        done = len(read_rows(output)), len(receiver.got)
        if done == (count, count):
            break
        if done != waiting:
            waiting, last = done, time.monotonic()
        time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.wait()
    print(f"{time.monotonic() - begun:.0f} s, {kills} kills, {restarts} restarts of the receiver")
    compare(model, inbox, output, receiver)


def compare(model: Path, inbox: Path, output: Path, receiver: Receiver) -> None:
    files = {path.name for path in inbox.iterdir()}
    rows = read_rows(output)
    times = collections.Counter(row["path"] for row in rows)
    wrong = 0
    expected = {}
    for prediction in AD(f"{model}").stream(sorted(inbox.iterdir())):
        expected[Path(prediction.path).name] = prediction
    for row in rows:
        one = expected[row["path"]]
        same = row["verdict"] == ("anomalous" if one.is_anomalous else "good")
        wrong += not (same and abs(row["score"] - one.score) < 1e-6)
    keys = {row["key"]: row for row in rows}
    differing = sum(
        body["is_anomalous"] != (keys[key]["verdict"] == "anomalous")
        for key, bodies in receiver.got.items()
        if key in keys
        for body in bodies
    )
    pictures = [path for path in (output / "pictures").rglob("*") if path.is_file()]
    print(f"files: {len(files)}; rows: {len(rows)}")
    print(
        f"files without a row: {len(files - set(times))}; with several: "
        f"{sum(number > 1 for number in times.values())}"
    )
    print(f"verdicts or scores that differ from AD.stream's: {wrong}")
    print(f"pictures: {len(pictures)}, half-written: {sum(p.suffix == '.tmp' for p in pictures)}")
    print(
        f"keys at the receiver: {len(receiver.got)}; never there: "
        f"{len(set(keys) - set(receiver.got))}; unknown: {len(set(receiver.got) - set(keys))}; "
        f"more than once: {sum(len(b) > 1 for b in receiver.got.values())}; "
        f"with another verdict: {differing}"
    )


def resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def steady(work: Path, count: int) -> None:
    model, images = model_and_images(work)
    inbox = work / "inbox"
    inbox.mkdir()
    for number in range(count):
        source = images[number % len(images)]
        shutil.copy(source, inbox / f"{number:05d}{source.suffix}")
    files = sorted(inbox.iterdir())
    rates = collections.defaultdict(list)
    for turn in range(2):
        rates["AD.stream, pictures"].append(rate_of_stream(model, files[:1500], work / f"s{turn}"))
        rates["AD.stream, nothing saved"].append(rate_of_stream(model, files[:1500], None))
        output = work / f"output{turn}"
        process = watcher(model, inbox, output)
        memory, ends = [], []
        while len(ends) < count:
            time.sleep(0.5)
            if (output / "journal.sqlite").exists():
                ends = [row["ended"] for row in read_rows(output)] if len(memory) % 4 == 0 else ends
            memory.append((len(ends), resident(process.pid)))
        process.send_signal(signal.SIGTERM)
        process.wait()
        ends.sort()
        some = ends[100:]  # after the start
        rates["watch, journal and pictures"].append((len(some) - 1) / (some[-1] - some[0]))
        for reached in (1000, 2000, 3000, 4000, 5000):
            here = [mb for done, mb in memory if done >= min(reached, count)]
            print(f"memory at {reached} files: {here[0] if here else memory[-1][1]:.0f} MB")
        shutil.rmtree(output)
    best = {name: max(values) for name, values in rates.items()}
    for name, value in best.items():
        print(f"{name}: {value:.1f} images/s ({', '.join(f'{v:.1f}' for v in rates[name])})")
    ratio = best["watch, journal and pictures"] / best["AD.stream, pictures"]
    print(f"watch / AD.stream with pictures: {ratio:.2f}")


def idle(work: Path, count: int) -> None:
    model, images = model_and_images(work)
    inbox, outside, output = work / "inbox", work / "outside", work / "output"
    inbox.mkdir()
    outside.mkdir()
    process = watcher(model, inbox, output)
    ad = AD(f"{model}")
    delays: dict[str, list[float]] = {"within the inbox": [], "from outside it": []}
    alone = []
    try:
        time.sleep(10)
        ad.predict(images[0], work / "predicted")
        for number in range(count):
            source = images[number % len(images)]
            for place, name in ((inbox, "within the inbox"), (outside, "from outside it")):
                hidden = place / f".{number}"
                target = inbox / f"{number:05d}-{place.name}{source.suffix}"
                shutil.copy(source, hidden)
                time.sleep(1.2)  # a moment without work
                renamed = time.time()
                hidden.rename(target)
                rows = []
                while not rows or rows[-1]["path"] != target.name:
                    time.sleep(0.05)
                    rows = read_rows(output)
                delays[name].append(rows[-1]["ended"] - renamed)
            begun = time.perf_counter()
            ad.predict(source, work / "predicted")
            alone.append(time.perf_counter() - begun)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    for name, some in delays.items():
        print(
            f"from a rename {name} to the verdict: {1000 * statistics.median(some):.0f} ms "
            f"(median), {1000 * max(some):.0f} ms at most"
        )
    print(f"AD.predict of one image: {1000 * statistics.median(alone):.0f} ms (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kill", "steady", "idle"])
    parser.add_argument("--files", type=int)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.what == "kill":
            kill(work, options.files or 5000, options.kills, options.kills // 2)
        elif options.what == "steady":
            steady(work, options.files or 5000)
        else:
            idle(work, options.files or 20)


if __name__ == "__main__":
    main()
