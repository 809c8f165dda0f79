"""What comparing methods costs, and whether tuning keeps its word.

    python benchmarks/choosing.py compare $ANOMALY_AD_DATA/bottle
    python benchmarks/choosing.py tune --trials 30 --seeds 5
    python benchmarks/choosing.py tune $ANOMALY_AD_DATA/bottle --trials 30 --seeds 1
    python benchmarks/choosing.py kill --trials 30

`compare` prints the seconds of comparing padim, patchcore, dfm and dfkde, and of the slowest of
them alone, as whole processes in turns, and who is recommended. `tune` searches padim's options on
a folder or, without one, on the sample set in any rotation, and prints the merit of the default and
of what is recommended, on images that the search has not seen. `kill` does the same once and kills
the process at random moments: it prints the trials that were finished, lost and made twice.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

FOUR = "padim,patchcore,dfm,dfkde"
TUNE = """
import sys
from anomaly_ad.choosing import tune
found = tune(
    sys.argv[1], "padim", trials=int(sys.argv[2]), storage=sys.argv[3],
    options={"seed": int(sys.argv[4])},
)
print(found.to_json())
"""


def run(*command: str) -> tuple[float, str]:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - begun, done.stdout.decode()


def compare(folder: Path, rounds: int) -> None:
    seconds: dict[str, list[float]] = {}
    last = ""
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for some in (FOUR, *FOUR.split(",")):
                page = str(Path(name) / "page.html")
                command = ["-m", "anomaly_ad", "compare", str(folder), "--detectors", some]
                spent, out = run(*command, "--output", page)
                seconds.setdefault(some, []).append(spent)
                if some == FOUR:
                    last = out.splitlines()[-1]
    each = {some: statistics.median(values) for some, values in seconds.items()}
    for some, value in each.items():
        print(f"{some}: {value:.1f} s")
    together = each.pop(FOUR)
    print(f"together, compared with the slowest alone: {together / max(each.values()):.2f} times")
    print(last)


def tune(given: Path | None, trials: int, seeds: int) -> None:
    from anomaly_ad.data import render_sample

    gains = []
    with tempfile.TemporaryDirectory() as name:
        folder = given or render_sample(Path(name) / "washer", pose="any")
        for seed in range(seeds):
            storage = str(Path(name) / f"{seed}.db")
            _, out = run("-c", TUNE, str(folder), str(trials), storage, str(seed))
            found = json.loads(out)
            default = found["default"]["merit"]
            taken = found["best"]["merit"] if found["is_better"] else default
            gains.append(taken - default)
            print(
                f"seed {seed}: default {default:.3f}, best {found['best']['merit']:.3f}, taken "
                f"{taken:.3f}, {found['n_trials']} trials",
                flush=True,
            )
    print(f"taken less default, mean of {seeds} seeds: {statistics.mean(gains):+.3f}")


def kill(trials: int) -> None:
    import optuna

    from anomaly_ad.data import render_sample

    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = render_sample(Path(name) / "washer", pose="any", n_train=30, size=(256, 256))
        storage = Path(name) / "study.db"
        command = [sys.executable, "-c", TUNE, str(folder), str(trials), str(storage), "0"]
        kills, best = 0, 0.0
        while True:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(chance.uniform(20, 90))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            if storage.is_file():
                study = optuna.load_study(study_name="tune", storage=f"sqlite:///{storage}")
                values = [t.value for t in study.trials if t.state.name == "COMPLETE"]
                assert max(values, default=0.0) >= best, "the best value was lost"
                best = max(values, default=0.0)
        study = optuna.load_study(study_name="tune", storage=f"sqlite:///{storage}")
        states = Counter(trial.state.name for trial in study.trials)
        again = [t.user_attrs["again"] for t in study.trials if "again" in t.user_attrs]
        finished = states["COMPLETE"] + states["PRUNED"]
        print(
            f"killed {kills} times: {finished} finished trials, {states['RUNNING']} lost, "
            f"{len(again) - len(set(again))} made twice; best value {study.best_value:.3f}, "
            f"not below {best:.3f} recorded before"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("compare", "tune", "kill"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.what == "compare":
        compare(options.folder, options.rounds)
    elif options.what == "tune":
        tune(options.folder, options.trials, options.seeds)
    else:
        kill(options.trials)


if __name__ == "__main__":
    main()
