"""Processes of Ray. Each test has a session of its own, as each job has."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from conftest import run_command, write_parts
from patience import until

from anomaly_ad import AD
from anomaly_ad.errors import EngineError, MissingExtraError, OptionError, OutputError
from anomaly_ad.scale import shards
from anomaly_ad.support import cpu_count
from anomaly_ad.workers import beat, on_ray, using, workers_of

os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # as the package does where it imports Ray first
cloudpickle = pytest.importorskip("ray.cloudpickle")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # processes cannot import it
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # those of Ray itself, and of processes that it leaves
]


def processes(pattern):
    """Numbers of the processes of Ray that have a name."""
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def kill_one(pattern, when):
    """Kill a process of that name, once `when()` holds; in a thread."""

    def run():
        while not when():
            time.sleep(0.05)
        while not (found := processes(pattern)):
            time.sleep(0.05)
        os.kill(random.choice(found), signal.SIGKILL)
        killed.append(True)

    killed = []
    threading.Thread(target=run, daemon=True).start()
    return killed


def test_every_image_has_one_row_also_where_a_process_is_killed(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_PER_SHARD", 4)
    parts = write_parts(tmp_path / "parts", 200, first=1000)
    (parts / "broken.png").write_bytes(b"none")
    output = tmp_path / "out"
    killed = kill_one("ray::.*MapWorker", lambda: len([*output.glob("part-*.parquet")]) > 5)
    ad = AD(trained)
    run = ad.predict_dataset(parts, output, engine="ray", workers=2, threads=1)
    assert killed
    assert run.counts.total() == 201 and run.counts["errors"] == 1
    found = pd.read_parquet(output)
    assert len(found) == 201 and found["path"].is_unique
    expected = {os.path.abspath(p.path): p.raw_score for p in ad.stream(parts)}
    for path, score in zip(found["path"], found["raw_score"], strict=True):
        assert (np.isnan(score) and expected[path] is None) or score == pytest.approx(
            expected[path], abs=1e-6
        )
    until(lambda: not processes("ray::"))


def test_a_fit_is_the_same_also_where_a_process_is_killed(dataset, tmp_path):
    options = {"img_size": (64, 64), "channels": 20, "save_path": tmp_path}
    one = AD("padim", dataset, name="one", **options).train(review=False).model
    begun = time.monotonic()
    killed = kill_one("ray::_Holder", lambda: time.monotonic() > begun)
    other = AD("padim", dataset, name="other", **options)
    other.train(review=False, engine="ray", workers=3, threads=1)
    assert killed
    np.testing.assert_allclose(
        one.good_scores().scores, other.model.good_scores().scores, rtol=1e-6
    )
    limits = [m.manifest.calibration.image.limit for m in (one, other.model)]
    assert limits[0] == pytest.approx(limits[1], rel=1e-6)


def test_the_command(trained, tmp_path):
    parts = write_parts(tmp_path / "parts", 3)
    options = ("--engine", "ray", "--workers", "1", "--worker-threads", "1", "--pictures")
    printed, said = run_command("predict", trained, parts, "--output", tmp_path / "out", *options)
    assert printed.splitlines() == [str(tmp_path / "out")]
    assert "Inspected 3 images" in said
    assert len(pd.read_parquet(tmp_path / "out")) == 3
    assert len([*(tmp_path / "out" / "_pictures").iterdir()]) == 3


@dataclass(frozen=True)
class Failing:
    """A job that cannot be done."""

    def start(self):
        def work(items):
            for _ in items:
                raise OutputError("The disk is full.")
            yield {}

        return work


@dataclass(frozen=True)
class Deadly:
    """A job that ends its process."""

    def start(self):
        def work(items):
            for _ in items:
                os.kill(os.getpid(), signal.SIGKILL)
            yield {}

        return work


class Object:
    """Lives in a process."""

    def answer(self):
        return 42


@dataclass(frozen=True)
class Slow:
    """A job of which each item takes longer than nothing may be heard of it, but says it works."""

    def start(self):
        def work(items):
            for item in items:
                for _ in range(24):
                    time.sleep(0.5)
                    beat()
                yield {"item": item}

        return work


def test_what_goes_wrong_there_is_said_here(monkeypatch):
    with using(workers_of("ray", workers=cpu_count(), threads=1)) as workers:
        with pytest.raises(OutputError, match=r"^The disk is full\.(\n|$)"):
            [*workers.each(Failing(), [1, 2])]
        with pytest.raises(OutputError, match=r"^The disk is full\.(\n|$)"):
            [*workers.map(Failing(), [1, 2])]
        with (
            pytest.raises(OptionError, match=r"call ray.shutdown\(\) first"),
            using(workers_of("ray")),
        ):
            pass
        # There is no room for a job while these objects live, so that nothing is done at all.
        helds = workers.hold(Object)
        assert [held.ask("answer")() for held in helds] == [42] * cpu_count()
        monkeypatch.setattr(on_ray, "PATIENCE", 3.0)
        with pytest.raises(EngineError, match="has done nothing for"):
            [*workers.each(Failing(), [1])]


def test_what_ends_every_process_is_given_up():
    with (
        using(workers_of("ray", workers=1, threads=1)) as workers,
        pytest.raises(EngineError, match="Part 7 of the work has ended 5 processes"),
    ):
        [*workers.each(Deadly(), [7])]


def test_a_job_that_takes_long_is_waited_for(monkeypatch):
    with using(workers_of("ray", workers=1, threads=1)) as workers:
        assert [*workers.each(Slow(), [0])] == [{"item": 0}]  # its process has been started
        monkeypatch.setattr(on_ray, "PATIENCE", 4.0)
        monkeypatch.setattr(on_ray, "_BEAT", 0.5)
        assert [*workers.each(Slow(), [1])] == [{"item": 1}]


def test_a_cluster_that_is_not_there():
    with (
        pytest.raises(EngineError, match=r"Ray cannot be started .*ray status"),
        using(workers_of("ray", address="auto")),
    ):
        pass


def test_a_start_that_takes_too_long():
    code = (
        "from anomaly_ad.workers import on_ray, using, workers_of\n"
        "from anomaly_ad.errors import EngineError\n"
        "on_ray.START = 0.01\n"
        "try:\n"
        "    with using(workers_of('ray')): pass\n"
        "except EngineError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert "Ray has not started within 0 s." in done.stdout


def test_without_ray(monkeypatch):
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"anomaly-ad\[ray\]"):
        workers_of("ray")
