"""Models in tiles, from training to the verdict: one image is one image, however it is asked."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import run_command, write_image

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError
from anomaly_ad.errors import ImageError, OptionError
from anomaly_ad.images import Photograph
from anomaly_ad.images.dataset import SeenImage
from anomaly_ad.inspection import Inspector

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiles_in_numpy.py"
SIZE = (160, 240)


def board(seed, *, defect=None):
    """A row of three drawn parts at slightly other places; the defect is a small bright square."""
    random = np.random.default_rng(seed)
    image = np.full((*SIZE, 3), 60, np.uint8)
    for n in range(3):
        x, y = 40 + 80 * n + random.integers(-4, 5), 80 + random.integers(-8, 9)
        cv2.circle(image, (int(x), int(y)), 28, (150, 140, 130), -1, cv2.LINE_AA)
    if defect is not None:
        x, y = defect
        cv2.rectangle(image, (x - 4, y - 4), (x + 4, y + 4), (250, 250, 250), -1)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("boards")
    for n in range(14):
        write_image(path / f"train/{n:02}.png", board(n))
    for n in range(3):
        write_image(path / f"test/good/{n}.png", board(100 + n))
        write_image(path / f"test/spot/{n}.png", board(200 + n, defect=(40 + 80 * n, 90)))
    return path


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    options = {"tiles": (2, 3), "img_size": (64, 64), "patch_size": 16, "neighbours": 200}
    out = tmp_path_factory.mktemp("tiles")
    return AD("patchcore", folder / "train", save_path=out, **options).train(review=False)


def test_small_defects_are_found_and_boxed_where_they_are(trained, folder):
    found = trained.predict(folder / "test", save=False, hardcore=True)
    assert [one.is_anomalous for one in found] == [False] * 3 + [True] * 3
    framing = trained.model.manifest.plan.framing
    for n, one in enumerate(found[3:]):
        centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in one.boxes.tolist()]
        nearest = min(np.hypot(x - (40 + 80 * n), y - 90) for x, y in centres)
        assert nearest < 16
        assert one.image_size == SIZE
    single = trained.predict(folder / "test/spot/0.png", save=False)
    assert single.anomaly_map.shape == framing.map_size
    assert single.raw_score == found[3].raw_score


def test_one_image_has_one_score_however_it_is_asked(trained, folder):
    """Alone, in a folder, as an array, in a stream, in threads, and from the saved model."""
    files = sorted((folder / "test").rglob("*.png"))
    expected = [one.raw_score for one in trained.predict(files, save=False)]
    alone = [trained.predict(file, save=False).raw_score for file in files]
    streamed = [one.raw_score for one in trained.stream(files)]
    inspector = Inspector(trained.model)
    photos = [Photograph.read(file, inspector.framing) for file in files]
    with ThreadPoolExecutor(6) as pool:
        threads = [*pool.map(inspector.inspect, photos * 5)]
    again = AD(trained.model.directory).predict(files, save=False)
    assert alone == streamed == [one.raw_score for one in again] == expected
    assert [one.prediction.raw_score for one in threads] == expected * 5


def test_an_image_that_fails_leaves_no_request_behind(trained):
    """A view of another shape ends the call with an error, and others go on."""
    engine, framing = trained.model.engine, trained.model.manifest.plan.framing
    taken = framing.take(board(0))
    views = [*taken.views]
    expected = engine.inspect(taken, framing)["score"]

    broken = SeenImage([views[0], views[1], views[2][:10]], taken.tiles[:3])
    for _ in range(8):
        with pytest.raises((RuntimeError, ValueError)):
            engine.inspect_concurrently(broken, framing)
    assert engine.inspect_concurrently(taken, framing)["score"] == expected


def test_photographs_of_another_size_are_errors(trained, folder, tmp_path):
    with pytest.raises(ImageError, match="were laid for 160x240"):
        trained.predict(np.zeros((240, 160, 3), np.uint8), save=False)
    write_image(tmp_path / "in/a.png", board(0)[:100])
    write_image(tmp_path / "in/b.png", board(0))
    first, second = trained.predict(tmp_path / "in", save=False)
    assert "were laid for 160x240" in first.error and second.error is None
    # One among many, which no sample shows: named before anything is learnt.
    files = [write_image(tmp_path / f"many/{n:02}.png", board(n % 4)) for n in range(40)]
    write_image(files[1], board(1)[:150])
    with pytest.raises(DataError, match=r"1 of 40 training images(?s:.*)01\.png"):
        AD("patchcore", tmp_path / "many", tiles=(2, 3), img_size=(64, 64)).train()
    write_image(files[0], board(1)[:150])
    with pytest.raises(OptionError, match="of one size"):
        AD("patchcore", tmp_path / "many", tiles=(2, 3), img_size=(64, 64)).train()


def test_the_manifest_says_what_lies_outside_the_graph(trained):
    outside = json.loads((trained.model.directory / "manifest.json").read_text())[
        "outside_the_graph"
    ]
    text = " ".join(outside["before"] + outside["after"])
    for word in ("2 x 3 tiles", "INTER_AREA", "64x64", "RGB", "largest value of the merged map"):
        assert word in text
    assert outside["map_size"] == [*trained.model.manifest.plan.framing.map_size]


@pytest.mark.slow
def test_the_reference_scores_as_the_package(folder, tmp_path):
    options = {"tile_size": (64, 64), "img_size": (64, 64), "patch_size": 16, "neighbours": 100}
    ad = AD("patchcore", folder / "train", save_path=tmp_path, roi=(8, 4, 232, 156), **options)
    model = ad.train(review=False).model.directory
    for file in sorted((folder / "test").rglob("*.png"))[1:5:3]:
        command = [sys.executable, str(EXAMPLE), str(model), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        expected = ad.predict(file, save=False).raw_score
        assert float(done.stdout) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_command_line_takes_tiles(folder, tmp_path):
    common = ["train", folder / "train", "--detector", "dfkde", "--save-path", tmp_path]
    _, said = run_command(*common, "--tiles", "2,3", "--img-size", 64, 64)
    assert "Tiles: 2 x 3 tiles" in said
    plan = AD(tmp_path / "model").model.manifest.plan
    assert (plan.framing.tiles.rows, plan.framing.tiles.columns) == (2, 3)
    assert not plan.framing.tiles.by_map
    _, said = run_command(*common, "--tiles", "all", code=2)
    assert 'or "auto"' in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "precision"),
    [("patchcore", "bf16"), ("dfm", "f32"), ("dfkde", "bf16"), ("AD0", "f32")],
)
def test_limits_and_digests_are_those_of_images(method, precision, folder, tmp_path):
    options = {"tiles": (2, 3), "img_size": (64, 64), "patch_size": 16, "precision": precision}
    ad = AD(method, folder / "train", save_path=tmp_path, **options).train(2, review=False)
    manifest = ad.model.manifest
    assert len(manifest.training["sets"][0]["digests"]) == 14
    assert manifest.calibration.image.n_images == (3 if method == "AD0" else 14)
    if manifest.plan.framing.tiles.by_map:
        assert manifest.calibration.image.limit == manifest.calibration.map.limit
    if method in ("dfm", "dfkde"):
        more = [write_image(tmp_path / f"more/{n}.png", board(50 + n)) for n in range(3)]
        again = AD(ad.model.directory).add_images(more, review=False)
        assert again.model.manifest.calibration.image.n_images == 17
        assert again.model.manifest.training["n_fit"] == 17


def test_odd_views_of_an_image_cannot_hide(trained):
    """An image is as odd as its oddest tile, whichever that is."""
    model = trained.model
    framing = model.manifest.plan.framing
    good = model.engine.inspect(framing.take(board(300)), framing)["score"]
    for x in (20, 110, 220):
        for y in (12, 80, 150):
            photo = Photograph.of_array(board(300, defect=(x, y)), framing)
            bad = Inspector(replace(model)).inspect(photo).prediction
            assert bad.raw_score > 1.2 * good


@pytest.mark.slow
def test_other_tiles_of_an_image_tell_nothing_of_it(folder, tmp_path, monkeypatch):
    """A method with a formula for one vector left out gets folds, which leave out all tiles."""
    from anomaly_ad.methods.dfkde import DFKDE

    def formula(self, statistic):
        raise AssertionError("it would have seen the other tiles")

    monkeypatch.setattr(DFKDE, "unseen_scorer", formula)
    options = {"save_path": tmp_path, "tiles": (2, 3), "img_size": (64, 64)}
    ad = AD("dfkde", folder / "train", **options).train(review=False)
    assert ad.model.manifest.training["folds"] == 14
