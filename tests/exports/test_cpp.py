"""The C++ example says what the package says."""

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
from conftest import draw_part, write_image

from anomaly_ad import AD
from anomaly_ad.exports import export
from anomaly_ad.images import find_images
from anomaly_ad.model import load

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if not shutil.which("cmake") or not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("cmake or a C++ compiler is not installed")
    build = tmp_path_factory.mktemp("cpp")
    wheel = Path(openvino.__file__).parent / "cmake"
    commands = (
        [
            "cmake",
            "-S",
            SOURCE,
            "-B",
            build,
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DOpenVINO_DIR={wheel}",
        ],
        ["cmake", "--build", build],
    )
    done = subprocess.run(commands[0], capture_output=True, text=True)
    if done.returncode and (
        "OpenCV" in done.stderr or "opencv" in done.stderr or "nlohmann" in done.stderr
    ):
        pytest.skip("cmake finds no OpenCV or nlohmann-json to build the C++ example with")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(commands[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return build / "inspect"


def said(program, *arguments, status):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(word == "ANOMALOUS", float(score), float(raw)) for word, score, raw, _ in rows], done


def compare(program, model, images, tmp_path):
    target = tmp_path / "part.xml"
    export(load(model), target)
    predictions = AD(model).predict(images, save=False)
    is_any = any(one.is_anomalous for one in predictions)
    found, _ = said(program, target, *images, status=3 if is_any else 0)
    assert [one[0] for one in found] == [one.is_anomalous for one in predictions]
    assert [one[1] for one in found] == pytest.approx([p.score for p in predictions], abs=1e-4)
    limit = load(model).manifest.calibration.image
    span = limit.limit - limit.median
    raw = [one.raw_score for one in predictions]
    assert [one[2] for one in found] == pytest.approx(raw, abs=1e-4 * max(span, np.ptp(raw)))


def test_ten_photographs(program, trained, tmp_path):
    images = []
    for n in range(10):  # of odd sizes, larger and smaller than the input
        image = draw_part(n, defect=n > 5, size=(64, 100, 131, 48, 64)[n % 5])
        images.append(write_image(tmp_path / f"{n}.png", image))
    compare(program, trained, images, tmp_path)


def test_washers(program, washer, tmp_path):
    model, sample = washer
    compare(program, model, find_images(sample / "test")[:10], tmp_path)


@pytest.mark.parametrize("method", ["AD0", "dfm"])
def test_tiles_in_a_rectangle(program, tmp_path, method):
    """The score of the tiles, and for autoencoders that of the merged map."""
    good = tmp_path / "good"
    for n in range(12):
        write_image(good / f"{n}.png", draw_part(n, size=160))
    ad = AD(
        method,
        good,
        save_path=tmp_path,
        img_size=(64, 64),
        tiles=(2, 2),
        roi=(3, 5, 155, 149),
    )
    ad.train(2 if method == "AD0" else None, review=False)
    images = [
        write_image(
            tmp_path / f"{n}.{'jpg' if n % 2 else 'png'}",
            draw_part(100 + n, defect=n > 5, size=160),
        )
        for n in range(10)
    ]
    compare(program, tmp_path / "model", images, tmp_path)


def test_what_it_does_not_cover_is_refused(program, dataset, trained, tmp_path):
    ad = AD("AD0", dataset, save_path=tmp_path, img_size=(32, 48), patch_size=8, fit="pad")
    ad.train(1, review=False).export(tmp_path / "part.xml")
    image = next((dataset / "test" / "bar").iterdir())
    _, done = said(program, tmp_path / "part.xml", image, status=1)
    assert "leaves out what the model needs: fit" in done.stderr
    _, done = said(program, next(trained.glob("*.xml")), image, status=1)
    assert "not exported by anomaly_ad" in done.stderr
    _, done = said(program, tmp_path / "part.xml", status=2)
    assert done.stderr.startswith("usage")
    export(load(trained), tmp_path / "small.xml")
    (tmp_path / "no.png").write_bytes(b"no image")
    _, done = said(program, tmp_path / "small.xml", tmp_path / "no.png", status=1)
    assert "cannot be read as an image" in done.stderr
    assert cv2.haveImageReader(os.fspath(image))
