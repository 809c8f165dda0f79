"""Shared test material: a small drawn part, a model trained on it, and the real images."""

import json
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processors: one thread each
    for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(_name, "1")

import cv2
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from anomaly_ad import AD
from anomaly_ad.data.sample import render_sample
from anomaly_ad.errors import PathError

SIDE = 64  # pixels
# Nothing is timed: what else the machine does is not a failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Mark what drives a browser, and what asks the service."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("browser")
        if item.path.parent.name == "service":
            item.add_marker("service")


def draw_part(seed: int, *, defect: bool = False, size: int = SIDE) -> np.ndarray:
    """A gray disc on a dark table, RGB uint8 (size, size, 3); the defect is a bright bar."""
    random = np.random.default_rng(seed)
    image = np.full((size, size, 3), 40, np.uint8)
    shift = random.integers(-1, 2, 2) * size // SIDE
    centre = (int(size // 2 + shift[0]), int(size // 2 + shift[1]))
    cv2.circle(image, centre, size // 3, (150, 140, 130), -1, cv2.LINE_AA)
    cv2.circle(image, centre, size // 8, (60, 60, 70), -1, cv2.LINE_AA)
    if defect:
        corner = (centre[0] + size // 8, centre[1] + size // 10)
        cv2.rectangle(
            image, corner, (corner[0] + size // 8, corner[1] + size // 10), (250,) * 3, -1
        )
    noise = random.normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def taken(framing, size):
    """What a model of the framing takes of a black photograph of `size` (H, W)."""
    return framing.take(np.zeros((*size, 3), np.uint8))


def write_image(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data)
    return path


def write_parts(folder: Path, count: int, *, defect: bool = False, first: int = 0) -> Path:
    for seed in range(first, first + count):
        write_image(folder / f"{seed:03d}.png", draw_part(seed, defect=defect))
    return folder


def mutate(content: bytes, data: st.DataObject) -> bytes:
    """Change, cut out, repeat or append a few bytes, as hypothesis draws them."""
    out = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(out)))
        end = min(len(out), at + data.draw(st.integers(0, 40)))
        match data.draw(st.sampled_from(["set", "cut", "repeat", "insert", "truncate"])):
            case "set":
                out[at:end] = data.draw(st.binary(min_size=end - at, max_size=end - at))
            case "cut":
                del out[at:end]
            case "repeat":
                out[at:at] = out[at:end]
            case "insert":
                out[at:at] = data.draw(st.binary(max_size=20))
            case "truncate":
                del out[at:]
    return bytes(out)


def run_command(*arguments, code=0):
    """Run a command of the command line; return (stdout, stderr)."""
    from anomaly_ad.cli import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stderr
    return result.stdout, result.stderr


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """train/good (24), test/good (4), test/bar (4)."""
    root = tmp_path_factory.mktemp("dataset")
    write_parts(root / "train" / "good", 24)
    write_parts(root / "test" / "good", 4, first=100)
    write_parts(root / "test" / "bar", 4, first=200, defect=True)
    return root


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory) -> Path:
    """The directory of a model trained on the small part. Tests must not change it."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    save_path = tmp_path_factory.mktemp("models")
    ad = AD("AD0", dataset, save_path=save_path, img_size=(SIDE, SIDE), patch_size=16)
    ad.train(30)
    return save_path / "model"


@pytest.fixture(scope="session")
def washer(tmp_path_factory) -> tuple[Path, Path]:
    """A padim model of the rendered washers, and their folder. Tests must not change them."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    root = tmp_path_factory.mktemp("washer")
    sample = render_sample(
        root / "sample", n_train=24, n_test_good=3, n_per_defect=1, size=(256, 256)
    )
    AD("padim", sample, save_path=root, img_size=(96, 96)).train()
    return root / "model", sample


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images. Where the variable is set, a missing folder is a failure."""
    folder = os.environ.get("ANOMALY_AD_DATA")
    if not folder:
        pytest.skip("ANOMALY_AD_DATA is not set: no real images to test with")
    assert Path(folder).is_dir(), f"ANOMALY_AD_DATA names no folder: {folder}"
    return Path(folder)


def chromium(profile):
    """A headless Chromium that keeps its files in the folder `profile`; None if there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "headless=new",
        "no-sandbox",  # a container's root has none
        "disable-gpu",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "use-fake-device-for-media-stream",  # a camera that shows a test picture
        "use-fake-ui-for-media-stream",
        "window-size=1280,1000",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory):
    pytest.importorskip("selenium", reason="chromium is driven by selenium, which is not installed")
    started = chromium(tmp_path_factory.mktemp("chromium"))
    if started is None:
        pytest.skip("chromium or chromedriver is not installed: no browser to look with")
    started.get("about:blank")  # what it opens by itself is not the pages' doing
    yield started
    started.quit()


@pytest.fixture
def browser(_chromium):
    """Headless Chromium; after the test: no error on its console, no request to other machines."""
    for kind in ("browser", "performance"):
        _chromium.get_log(kind)
    yield _chromium
    logged = [entry["message"] for entry in _chromium.get_log("browser")]
    events = [json.loads(e["message"])["message"] for e in _chromium.get_log("performance")]
    _chromium.get("about:blank")
    assert logged == []
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    own = ("data:", "blob:", "file:", "about:", "chrome:", "http://127.0.0.1:")
    assert [url for url in asked if not url.startswith(own)] == []


@pytest.fixture(scope="session")
def stored(trained):
    from anomaly_ad.model import load

    return load(trained)


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def rows(output):
    """Reads the rows of the output; none where there is no journal yet."""

    from anomaly_ad.line.journal import read_rows

    def read():
        try:
            return read_rows(output)
        except PathError:  # it is just being made
            return []

    return read


@pytest.fixture
def watching(stored, inbox, output):
    """Watch the inbox meanwhile, in threads of this process."""
    pytest.importorskip("watchdog", reason="watching needs the extra 'line'")
    from anomaly_ad.line.line import Settings
    from anomaly_ad.line.watching import Inbox, watch

    @contextmanager
    def run(*, settle=0.1, give_up=0.3, poll=False, good=None, bad=None, transfer="move", **more):
        stop, failures = threading.Event(), []

        def work():
            try:
                own = Inbox(inbox, settle, give_up, poll, good, bad, transfer)
                watch(stored, own, Settings(output, **more), stop)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            while not ((output / "journal.sqlite").exists() or failures):
                time.sleep(0.02)
            yield stop
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
        if failures:
            raise failures[0]

    return run
