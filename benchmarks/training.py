"""The patch autoencoder's training: its time and what the model finds, next to another commit's.

    git worktree add ../before COMMIT
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/training.py $ANOMALY_AD_DATA/bottle --before ../before

Trains AD0 and AD1 for at most 75 epochs with each seed, each time in a process of its own and in
turn with the other commit, and inspects test/. Prints the seconds of an epoch (the median, without
the first, which compiles) and of the whole `train`, the epochs that ran, the image AUROC, the share
of defects found and of good images flagged at an asked false alarm rate of 1 %, and the parity of
the conversion; then the means over the seeds. The environment variable limits TensorFlow's kernels
to the instructions that most processors have; without a folder it is the sample set.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from sklearn.metrics import roc_auc_score

FIGURES = ("epoch s", "train s", "epochs", "AUROC", "found", "flagged", "parity")


def measure(method: str, data: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train and inspect with the package that this process imports."""
    from anomaly_ad import AD
    from anomaly_ad.methods.gradient import GradientDetector

    ends: list[float] = []
    fit = GradientDetector.fit

    def timed(self: Any, images: Any, *, progress: Any, **options: Any) -> Any:
        def told(note: str) -> None:
            ends.append(time.perf_counter())
            progress(note)

        return fit(self, images, progress=told, **options)

    with tempfile.TemporaryDirectory() as target, contextlib.redirect_stdout(io.StringIO()):
        ad = AD(method, data, save_path=target, seed=seed, false_alarm_rate=0.01)
        start = time.perf_counter()
        with mock.patch.object(GradientDetector, "fit", timed):
            ad.train(epochs)
        seconds = time.perf_counter() - start
        predictions = ad.predict(data / "test", save=False)
        parity = max(ad.model.manifest.parity["deviation"].values())
    bad = [Path(p.path).parent.name != "good" for p in predictions]
    pairs = list(zip(bad, (p.is_anomalous for p in predictions), strict=True))
    values = (
        statistics.median(b - a for a, b in itertools.pairwise(ends)),
        seconds,
        len(ends),
        roc_auc_score(bad, [p.raw_score for p in predictions]),
        sum(flagged for is_bad, flagged in pairs if is_bad) / sum(bad),
        sum(flagged for is_bad, flagged in pairs if not is_bad) / (len(bad) - sum(bad)),
        parity,
    )
    return dict(zip(FIGURES, map(float, values), strict=True))


def measured(tree: Path, method: str, data: Path, seed: int, epochs: int) -> dict[str, float]:
    """The same in a new process, with the package of a checkout."""
    one = json.dumps([method, str(data), seed, epochs])
    command = [sys.executable, __file__, "--one", one]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def line(name: str, figures: dict[str, float]) -> None:
    values = [
        f"{value:>9.1e}" if name == "parity" else f"{value:9.4g}" for name, value in figures.items()
    ]
    print(f"{name:24s}", *values, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="default: the sample set, rendered")
    parser.add_argument("--before", type=Path, help="a checkout of another commit")
    parser.add_argument("--methods", nargs="+", default=["AD0", "AD1"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=75)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, data, seed, epochs = json.loads(options.one)
        print(json.dumps(measure(method, Path(data), seed, epochs)))
        return
    from anomaly_ad.data.sample import render_sample

    trees = {"now": Path(__file__).parents[1]}
    if options.before:
        trees = {"before": options.before, **trees}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or render_sample(Path(folder, "sample"), progress=True)
        print(f"{data.name}; ONEDNN_MAX_CPU_ISA={os.environ.get('ONEDNN_MAX_CPU_ISA', 'unset')}")
        print(f"{'':24s}", *(f"{name:>9}" for name in FIGURES))
        for method in options.methods:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
            for seed in range(options.seeds):
                for name, tree in trees.items():
                    found[name].append(measured(tree, method, data, seed, options.epochs))
                    line(f"{method}, seed {seed}, {name}", found[name][-1])
            means = {
                name: {figure: statistics.mean(one[figure] for one in runs) for figure in FIGURES}
                for name, runs in found.items()
            }
            for name, mean in means.items():
                line(f"{method}, mean, {name}", mean)
            if options.before:
                for figure in ("epoch s", "train s"):
                    ratio = means["now"][figure] / means["before"][figure]
                    print(f"{method}, {figure}: {ratio:.2f} of what it was")


if __name__ == "__main__":
    main()
