import asyncio
import copy
import csv
import os
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SIDE, draw_part, write_image, write_parts

from anomaly_ad import (
    AD,
    AnomalyADError,
    DataError,
    ImageError,
    NotTrainedError,
    OptionError,
    OutputError,
    PathError,
    Prediction,
)
from anomaly_ad.inspection.records import CSV, JSONL, read_records


@pytest.fixture
def ad(trained):
    return AD(trained)


def read(path):
    return cv2.imread(str(path))[..., ::-1]


# -------------------------------------------------------------------------- constructing


def test_documented_defaults():
    ad = AD("AD1")
    assert ad.gray_scale and ad.img_size == (200, 200) and ad.patch_size == 40
    assert not AD("AD0").gray_scale
    assert AD().train_path == "Dataset/"


def test_constructing_reads_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AD("AD1", "nowhere/", save_path="nowhere else/")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "AD9"}, "AD0, AD1"),
        ({"model_name": 7}, "AD0, AD1"),
        ({"img_sise": (64, 64)}, "img_size"),
        ({"backbone": "x"}, "code_channels"),
        ({"img_size": 64}, r"\(height, width\)"),
        ({"img_size": (64, "64")}, r"\(height, width\)"),
        ({"img_size": (64, float("nan"))}, r"\(height, width\)"),
        ({"patch_size": 2}, "patch_size"),
        ({"patch_size": 999}, "patch_size"),
        ({"patch_size": float("nan")}, "patch_size"),
        ({"gray_scale": "yes"}, "gray_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"fit": "crop"}, "fit"),
        ({"precision": "int4"}, "f32, bf16, f16"),
        ({"precision": "int8"}, "anomaly-ad optimize MODEL"),
        ({"false_alarm_rate": 1}, "false_alarm_rate"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(Exception, match=message) as error:
        AD(**options)
    assert isinstance(error.value, ValueError)
    assert type(error.value).__module__ == "anomaly_ad.errors"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("padim", {"prior": -1}, "prior is a number of images from 0 to 1e\\+06. Received: -1"),
        ("padim", {"blur": "much"}, "blur is a number of pixels from 0 to 100"),
        ("padim", {"layers": []}, "layers is a list of names, one at least"),
        ("padim", {"layers": "stage1"}, "layers is a list of names"),
        ("padim", {"layers": ["stage1", "stage1"]}, "a list of names, one at least and each once"),
        ("padim", {"channels": 0.5}, "channels is a whole number from 1 to 1024"),
        ("padim", {"channels": True}, "channels is a whole number"),
        ("padim", {"regularization": float("nan")}, "regularization is a number from"),
        ("padim", {"backbone": ""}, "backbone is a name"),
        ("patchcore", {"neighbours": 3}, "neighbours is a whole number from 10"),
        ("patchcore", {"pool": "all"}, "pool is a whole number"),
        ("dfm", {"variance": 1}, "variance is a number from 0.5"),
        ("dfkde", {"bandwidth": "wide"}, "bandwidth is one of scott, .*, or a number from 0.01"),
        ("AD0", {"code_channels": -4}, "code_channels is a whole number from 1 to 64"),
        ("AD1", {"hidden_share": 0.9}, "hidden_share is a number from 0 to 0.5"),
        ("vae", {"beta": None, "hidden_share": []}, "hidden_share is a number"),
        ("lake", {"layer_weight": -1}, "layer_weight is a number from 0 to 10"),
        ("padim", {"name": "a/b"}, "name is that of a folder in save_path"),
        ("padim", {"name": ""}, "name is that of a folder"),
    ],
)
def test_options_of_methods_are_checked_before_anything_is_loaded(
    method, options, message, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import would fail
    with pytest.raises(OptionError, match=message):
        AD(method, **options)


def test_numbers_of_numpy_are_options(monkeypatch):
    ad = AD("padim", prior=np.float32(3), channels=np.int64(7), layers=("stage1",))
    assert "padim" in repr(ad)


@pytest.mark.parametrize(
    "option",
    [
        {"gray_scale": True},
        {"img_size": (9, 9)},
        {"patch_size": 9},
        {"seed": 1},
        {"fit": "pad"},
        {"false_alarm_rate": 0.1},
    ],
)
def test_options_that_a_loaded_model_fixes(trained, option):
    with pytest.raises(OptionError, match=next(iter(option))):
        AD(trained, **option)


def test_a_method_name_wins_over_a_path(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "AD1")
    monkeypatch.chdir(tmp_path)
    assert AD("AD1").img_size == (200, 200)
    assert AD("./AD1").img_size == (SIDE, SIDE)


@pytest.mark.parametrize("call", [lambda a: a.predict("x.png"), lambda a: a.test_img("x.png")])
def test_without_a_model(call):
    with pytest.raises(NotTrainedError, match=r"train\(\)"):
        call(AD("AD1"))


# ------------------------------------------------------------------------------ training


def test_load_data_says_what_it_found(dataset, capsys):
    ad = AD("AD1").load_data(dataset)
    assert f"24 images of good parts from {dataset / 'train' / 'good'}" in capsys.readouterr().out
    assert isinstance(ad, AD)


def test_load_data_asks_about_a_file_that_is_named_like_a_defect(tmp_path, capsys):
    write_parts(tmp_path, 3)
    write_image(tmp_path / "scratch.png", draw_part(7))
    AD("padim").load_data(tmp_path)
    assert "Warning: scratch.png is named like a defect" in capsys.readouterr().out


def test_train_refuses_before_it_begins(tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    write_parts(tmp_path / "few", 9)
    with pytest.raises(DataError, match="at least 10"):
        AD("AD1", tmp_path / "few", save_path=tmp_path / "out").train(1)
    with pytest.raises(PathError):
        AD("AD1", tmp_path / "missing", save_path=tmp_path / "out").train(1)
    for epochs in (0, -1, 1.5, "3", float("nan"), True):
        with pytest.raises(OptionError, match="epochs"):
            AD("AD1", tmp_path / "few").train(epochs)
    write_parts(tmp_path / "few", 12)
    (tmp_path / "few" / "x.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"1 of 13 .*\n.*x\.jpg"):
        AD("AD1", tmp_path / "few", save_path=tmp_path / "out").train(1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_training_goes_on_from_a_loaded_model(trained, dataset, tmp_path, capsys):
    ad = AD(shutil.copytree(trained, tmp_path / "model"), dataset)
    before = ad.model
    ad.train(2)
    training = ad.model.manifest.training
    assert ad.model.directory == tmp_path / "model"
    losses = before.manifest.training["history"]["loss"]
    assert training["continued_from"] == before.digest
    assert training["epochs"] == len(losses) + 2 == len(training["history"]["loss"])
    assert training["history"]["loss"][: len(losses)] == losses
    assert training["history"]["loss"][-1] < losses[0]
    assert "at most 16.7% of good parts" in capsys.readouterr().out


@pytest.mark.slow
def test_with_other_images_training_begins_again(trained, tmp_path, capsys):
    """Else images that the old weights were fitted to could end up in the calibration part."""
    model = shutil.copytree(trained, tmp_path / "model")
    ad = AD(model, write_parts(tmp_path / "other", 12, first=500)).train(1)
    assert ad.model.manifest.training["continued_from"] is None
    assert "starts from scratch" in capsys.readouterr().err


@pytest.mark.slow
def test_with_the_network_of_another_version_training_begins_again(
    trained, dataset, tmp_path, capsys, monkeypatch
):
    from anomaly_ad.methods import autoencoder

    model = shutil.copytree(trained, tmp_path / "model")
    monkeypatch.setattr(autoencoder, "WIDTHS", [width // 2 for width in autoencoder.WIDTHS])
    ad = AD(model, dataset).train(3)
    assert ad.model.manifest.training["continued_from"] is None
    assert "another version of anomaly_ad: training starts from scratch" in capsys.readouterr().err


# ------------------------------------------------------------------------------- predict


def test_one_image_from_a_file(ad, dataset, tmp_path):
    file = dataset / "test" / "bar" / "200.png"
    prediction = ad.predict(file, tmp_path)
    assert isinstance(prediction, Prediction) and prediction.path == str(file)
    assert prediction.is_anomalous and prediction.score > 0.8 == prediction.threshold
    assert prediction.image_size == (SIDE, SIDE)
    assert prediction.anomaly_map.shape == (SIDE, SIDE)
    assert prediction.anomaly_map.dtype == np.float32
    # the map's peak lies on the bar, which is right of and below the middle, and in a box
    y, x = np.unravel_index(np.argmax(prediction.anomaly_map), (SIDE, SIDE))
    assert y > 32 and x > 32 and prediction.boxes.dtype == np.int32
    assert any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in prediction.boxes)
    assert (read(tmp_path / "200.png") != read(file)).any()


def test_a_folder(ad, dataset, tmp_path, capsys):
    predictions = ad.predict(dataset / "test", tmp_path / "out")
    assert [p.path for p in predictions] == sorted(p.path for p in predictions)
    verdicts = {p.path: p.is_anomalous for p in predictions}
    assert len(verdicts) == 8
    assert all(verdict for path, verdict in verdicts.items() if "bar" in path)
    # Five calibration images state a false alarm rate of one in six, so one alarm is no error.
    assert sum(verdict for path, verdict in verdicts.items() if "good" in path) <= 1
    bars = [p.raw_score for p in predictions if "bar" in p.path]
    assert min(bars) > max(p.raw_score for p in predictions if "good" in p.path)
    assert all(p.anomaly_map is None for p in predictions)
    for p in predictions:
        assert (tmp_path / "out" / p.path.removeprefix(f"{dataset}/test/")).is_file()
    with (tmp_path / "out" / CSV).open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(verdicts)
    lines = list(read_records(tmp_path / "out" / JSONL))
    assert {line["model"] for line in lines} == {ad.model.digest}
    flagged = sum(verdicts.values())
    assert f"8 images: {flagged} anomalous, {8 - flagged} good" in capsys.readouterr().out
    with_maps = ad.predict(dataset / "test", save=False, maps=True)
    assert all(p.anomaly_map is not None for p in with_maps)


def test_all_ways_in_give_the_same(ad, dataset, tmp_path):
    file = dataset / "test" / "bar" / "200.png"
    image = read(file)
    before = image.copy()
    ways = [
        ad.predict(file, save=False),
        ad.predict(str(file), save=False),
        ad.predict(image, save=False),
        ad.predict([file], save=False)[0],
        ad.predict([image, file], save=False)[1],
        ad.predict(np.stack([image, image]), save=False)[1],
        ad.predict(file.parent, save=False)[0],
        next(iter(ad.stream([file]))),
    ]
    np.testing.assert_array_equal(image, before)
    for way in ways[1:]:
        assert way.raw_score == pytest.approx(ways[0].raw_score, rel=1e-5)
        np.testing.assert_array_equal(way.boxes, ways[0].boxes)
    assert ad.predict(image, save=False).path is None


def test_pictures_of_arrays_and_of_lists(ad, dataset, tmp_path):
    bar, good = dataset / "test" / "bar" / "200.png", dataset / "test" / "good" / "100.png"
    ad.predict([read(bar), read(good)], tmp_path / "arrays")
    assert (tmp_path / "arrays" / "array_00000.png").is_file()
    assert (tmp_path / "arrays" / "array_00001.png").is_file()
    ad.predict([bar, good], tmp_path / "list")
    assert (tmp_path / "list" / "bar" / "200.png").is_file()
    assert (tmp_path / "list" / "good" / "100.png").is_file()


def test_hardcore_draws_boxes_and_patch_size_sets_their_side(ad, tmp_path):
    image = cv2.resize(draw_part(300, defect=True), (320, 192))
    file = write_image(tmp_path / "in" / "a.png", image)
    for patch_size, width, height in ((0, 80, 48), (8, 40, 24)):
        prediction = ad.predict(file, tmp_path / "out", patch_size=patch_size, hardcore=True)
        sides = prediction.boxes[:, 2:] - prediction.boxes[:, :2]
        assert (sides == (width, height)).all()
        picture = read(tmp_path / "out" / "a.png")
        assert picture.shape == image.shape
        x, y = prediction.boxes[0, :2]
        assert picture[y, x + 5].tolist() == [255, 0, 0]


def test_the_format_of_the_input_is_kept(ad, tmp_path):
    for name in ("a.jpg", "b.JPEG", "c.bmp", "d.png"):
        write_image(tmp_path / "in" / name, draw_part(1))
    ad.predict(tmp_path / "in", tmp_path / "out")
    kinds = {
        p.name: p.read_bytes()[:2] for p in (tmp_path / "out").iterdir() if p.stem != "predictions"
    }
    assert kinds["a.jpg"] == kinds["b.JPEG"] == b"\xff\xd8"
    assert kinds["c.bmp"] == b"BM" and kinds["d.png"] == b"\x89P"


def test_a_lower_threshold_inspects_more_strictly(ad, dataset):
    folder = dataset / "test"
    scores = np.array([p.score for p in ad.predict(folder, save=False)])
    between = (np.unique(scores)[1:] + np.unique(scores)[:-1]) / 2
    assert len(between) >= 2
    for thresh in (*between, 1.0):
        flagged = [p.is_anomalous for p in ad.predict(folder, save=False, thresh=thresh)]
        assert flagged == list(scores > thresh), thresh


def test_images_of_other_sizes_and_channels_are_no_errors(ad, tmp_path):
    part = draw_part(100)
    small = cv2.resize(part, (40, 30))
    for n, image in enumerate([small, cv2.resize(part, (999, 777)), part[..., 0], part[..., :1]]):
        prediction = ad.predict(image, save=False)
        assert prediction.image_size == image.shape[:2], n
        assert np.isfinite(prediction.raw_score)


def test_one_ad_in_many_threads(ad, dataset):
    """Each thread gets the verdict of its own image: from threads, asyncio and test_img."""
    images = [draw_part(500 + n, defect=bool(n % 2)) for n in range(8)]
    alone = [ad.predict(image, save=False) for image in images]
    shared = AD(ad.model.directory)  # nothing is compiled yet

    def work(n):
        if n % 5 == 0:
            assert shared.test_img(dataset / "test" / "good" / "100.png").shape[0] == SIDE
        if n % 7 == 0:
            several = shared.predict([images[n % 8], images[(n + 1) % 8]], save=False)
            assert several[1].raw_score == pytest.approx(alone[(n + 1) % 8].raw_score, rel=1e-5)
        return shared.predict(images[n % 8], save=False)

    async def gather():
        return await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(40)))

    with warnings.catch_warnings(), ThreadPoolExecutor(6) as threads:
        warnings.simplefilter("ignore")  # there is no display for test_img
        found = [*threads.map(work, range(120)), *asyncio.run(gather())]
    for n, prediction in enumerate(found):
        expected = alone[(n if n < 120 else n - 120) % 8]
        assert prediction.raw_score == pytest.approx(expected.raw_score, rel=1e-6)
        assert prediction.is_anomalous == expected.is_anomalous
        assert prediction.boxes.tolist() == expected.boxes.tolist()


def test_files_that_look_like_images_are_named(ad, tmp_path, capsys):
    folder = write_parts(tmp_path / "in", 2)
    (folder / "a.heic").write_bytes(b"x")
    ad.predict(folder, save=False)
    out, err = capsys.readouterr()
    assert "Inspected 2 images" in out
    assert "Skipped, not inspected: 1 file in unsupported formats (a.heic)" in err
    with pytest.warns(UserWarning, match=r"Skipped, not inspected: .*a\.heic"):
        assert len(list(ad.stream(folder))) == 2
    with pytest.raises(PathError, match=r"no images.*Found instead: 1 file .*a\.heic"):
        (folder / "000.png").unlink()
        (folder / "001.png").unlink()
        ad.predict(folder, save=False)


def test_pictures_of_formats_that_few_programs_show_are_png(ad, tmp_path):
    folder = tmp_path / "in"
    for suffix in (".tif", ".jp2", ".webp", ".jfif", ".dib"):
        kind = {".jfif": ".jpg", ".dib": ".bmp"}.get(suffix, suffix)
        folder.mkdir(exist_ok=True)
        (folder / f"a{suffix}").write_bytes(cv2.imencode(kind, draw_part(0))[1])
    ad.predict(folder, tmp_path / "out")
    for name in ("a.tif.png", "a.jp2.png", "a.webp", "a.jfif", "a.dib"):
        assert read(tmp_path / "out" / name).shape == (SIDE, SIDE, 3)


def test_one_broken_file_does_not_end_a_run(ad, tmp_path, capsys):
    write_parts(tmp_path / "in", 3)
    (tmp_path / "in" / "001x.jpg").write_text("no image")
    (tmp_path / "in" / "folder.jpg").mkdir()
    predictions = ad.predict(tmp_path / "in", tmp_path / "out")
    assert [p.error is None for p in predictions] == [True, True, False, True]
    assert "not an image that can be read" in predictions[2].error
    printed = capsys.readouterr()
    assert "1 could not be inspected" in printed.out and "001x.jpg" in printed.err
    assert len(list(read_records(tmp_path / "out" / JSONL))) == 4
    assert not (tmp_path / "out" / "001x.jpg").exists()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing.png", PathError),
        ("missing/", PathError),
        ([], OptionError),
        ([7], OptionError),
        (7, OptionError),
        (np.zeros((64, 64, 3)), ImageError),
    ],
)
def test_inputs_that_are_none(ad, tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        ad.predict(path)


def test_an_empty_folder_and_a_broken_single_file(ad, tmp_path):
    with pytest.raises(PathError, match="holds no images"):
        ad.predict(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match="is empty"):
        ad.predict(tmp_path / "a.png", tmp_path / "out")


def test_predict_never_writes_into_its_input(ad, tmp_path):
    folder = write_parts(tmp_path / "in", 2)
    write_parts(tmp_path / "in" / "deep", 1)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    (tmp_path / "link").symlink_to(folder)
    for save_path in (folder, folder / "out", tmp_path / "link", folder / "deep" / ".."):
        with pytest.raises(OptionError, match="save_path"):
            ad.predict(folder, save_path)
    for path, save_path in [
        (folder / "000.png", folder),
        ([folder / "000.png", folder / "001.png"], folder),
        ([folder / "000.png", folder / "deep" / "000.png"], folder),
        (folder / "deep" / "000.png", folder / "deep"),
    ]:
        with pytest.raises(OptionError, match="into the input"):
            ad.predict(path, save_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_links_do_not_lead_into_the_input(ad, tmp_path):
    """Neither links in the output folder nor links in the input make predict write there."""
    folder = write_parts(tmp_path / "in", 1)
    write_parts(folder / "deep", 1)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    out = tmp_path / "out"
    out.mkdir()
    (out / "deep").symlink_to(folder / "deep")
    with pytest.raises(OptionError, match="into the input"):
        ad.predict(folder, out)
    with pytest.raises(OptionError, match="into the input"):
        ad.predict([folder / "000.png", folder / "deep" / "000.png"], out)
    (out / "deep").unlink()
    (out / "000.png").symlink_to(folder / "000.png")  # the link is replaced, not what it leads to
    ad.predict(folder, out)
    assert not (out / "000.png").is_symlink()
    (out / JSONL).unlink()
    (out / JSONL).symlink_to(folder / "000.png")
    with pytest.raises(OutputError, match="cannot be written"):
        ad.predict(folder, out)
    elsewhere = write_parts(tmp_path / "elsewhere", 1)
    (folder / "linked").symlink_to(elsewhere)
    with pytest.raises(OptionError, match="inside, the input"):
        ad.predict(folder, elsewhere / "out")
    assert {path: path.read_bytes() for path in before} == before
    assert os.listdir(elsewhere) == ["000.png"]


def test_what_links_lead_to_is_input_too(ad, tmp_path):
    store, links = tmp_path / "store", tmp_path / "links"
    write_image(store / "c.png", draw_part(0))
    write_image(store / "deep" / "d.png", draw_part(1))
    links.mkdir()
    (links / "c.png").symlink_to(store / "c.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to(store / "deep" / "d.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "sub").symlink_to(store)
    before = {path: path.read_bytes() for path in store.rglob("*.png")}
    for path, save_path in (
        (links, store),
        (tmp_path / "in" / "a.png", tmp_path / "in"),
        ([tmp_path / "in" / "a.png"], tmp_path / "in"),
        (tmp_path / "root", store / "out"),
    ):
        with pytest.raises(OptionError, match=r"into the input|inside, the input"):
            ad.predict(path, save_path)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    assert (tmp_path / "in" / "a.png").is_symlink()


def test_resume_tells_files_of_the_same_name_apart(ad, tmp_path, monkeypatch):
    """The same relative path in two places, and a file that was replaced, are other images."""
    for place, defect in (("first", False), ("second", True)):
        write_image(tmp_path / place / "parts" / "a.png", draw_part(100, defect=defect))
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path / "first")
    assert not ad.predict("parts", out)[0].is_anomalous
    monkeypatch.chdir(tmp_path / "second")
    assert ad.predict("parts", out, resume=True)[0].is_anomalous
    monkeypatch.chdir(tmp_path / "first")
    write_image(Path("parts/a.png"), draw_part(101, defect=True))
    assert ad.predict("./parts", out, resume=True)[0].is_anomalous
    assert len(list(read_records(out / JSONL))) == 3
    assert ad.predict(tmp_path / "first" / "parts", out, resume=True)[0].is_anomalous
    assert len(list(read_records(out / JSONL))) == 3
    with (out / CSV).open(newline="") as file:  # each file once
        assert [row["is_anomalous"] for row in csv.DictReader(file)] == ["True", "True"]


def test_names_that_are_no_text(ad, tmp_path, capsys):
    folder = write_parts(tmp_path / "in", 1)
    (folder / "000.png").rename(folder / os.fsdecode(b"\xfc.png"))
    (prediction,) = ad.predict(folder, tmp_path / "out")
    assert prediction.error is None
    assert b"\xfc.png" in os.listdir(os.fsencode(tmp_path / "out"))
    assert b"\xfc.png" in (tmp_path / "out" / CSV).read_bytes()


def test_a_picture_too_wide_for_jpeg_is_shrunk(ad, tmp_path):
    wide = np.zeros((20, 70_000, 3), np.uint8)
    path = write_image(tmp_path / "in" / "wide.png", wide)
    path.rename(
        path.with_name("wide.jpg")
    )  # the content decides what is read, the name what is written
    write_image(path.with_name("z.png"), draw_part(0))
    predictions = ad.predict(tmp_path / "in", tmp_path / "out")
    assert [p.error for p in predictions] == [None, None]
    assert read(tmp_path / "out" / "wide.jpg").shape[1] == 65_500


def test_numbers_of_numpy_are_numbers(ad, dataset, tmp_path):
    options = {"patch_size": np.int64(16), "thresh": np.float32(0.5), "hardcore": np.bool_(True)}
    assert len(ad.predict(dataset / "test", tmp_path, **options)) == 8
    assert AD("AD0", patch_size=np.int64(24)).patch_size == 24
    assert type(AD("AD0", patch_size=np.int64(24)).patch_size) is int


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, "/proc/1/root/x.png"])
def test_paths_that_cannot_be_opened(ad, path, tmp_path):
    for call in (ad.predict, ad.test_img, ad.load_data, AD):
        with pytest.raises(AnomalyADError):
            call(path)
    (prediction,) = ad.predict([path], tmp_path)
    assert prediction.error is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda ad: AD("AD0", save_path=None),
        lambda ad: AD("AD0", fit=np.zeros(2)),
        lambda ad: ad.predict(draw_part(0), 5),
        lambda ad: ad.predict(draw_part(0), None),
        lambda ad: ad.test_img(5),
        lambda ad: AD("padim", layers={"stage1"}),
    ],
)
def test_arguments_of_another_kind(ad, call):
    with pytest.raises(OptionError, match="Received"):
        call(ad)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"thresh": 1.5}, "thresh is a score from 0 to 1"),
        ({"thresh": float("nan")}, "Received: nan"),
        ({"thresh": "x"}, "Received: 'x'"),
        ({"thresh": None}, "Received: None"),
        ({"patch_size": 3.5}, "patch_size is the side"),
        ({"patch_size": float("nan")}, "Received: nan"),
        ({"patch_size": 65}, "from 4 to 64"),
        ({"resume": True}, "needs save=True"),
    ],
)
def test_predict_options_that_cannot_be_used(ad, option, message):
    for call in (
        lambda: ad.predict(draw_part(0), save=False, **option),
        lambda: ad.stream(draw_part(0), **option),  # refused now, not when the first is drawn
    ):
        with pytest.raises(OptionError, match=message):
            call()


def test_a_folder_with_a_file_that_may_not_be_read(ad, tmp_path, monkeypatch):
    write_parts(tmp_path / "in", 3)
    real = Path.read_bytes

    def refuse(path):  # root may read all, so it is made up
        if path.name == "001.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    predictions = ad.predict(tmp_path / "in", tmp_path / "out")
    assert [p.error is None for p in predictions] == [True, False, True]
    assert "may read it" in predictions[1].error
    assert len(list(read_records(tmp_path / "out" / JSONL))) == 3


def test_a_disk_that_is_full_in_the_middle_of_a_run(ad, dataset, tmp_path, monkeypatch):
    """The lines so far stay whole, no half picture is left, and a resumed run goes on."""
    real, count = os.write, 0

    def fail(file, data):
        nonlocal count
        count += 1
        if count == 4:
            return real(file, data[:10])
        return real(file, data)

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OutputError, match="Make room"):
        ad.predict(dataset / "test", tmp_path)
    monkeypatch.undo()
    text = (tmp_path / JSONL).read_text()
    assert text.count("\n") == 3 and text.endswith("\n")
    assert len(ad.predict(dataset / "test", tmp_path, resume=True)) == 8
    assert len(list(read_records(tmp_path / JSONL))) == 8
    assert not list(tmp_path.rglob(".*"))


def test_resume_takes_from_the_record_what_it_has(ad, dataset, tmp_path, monkeypatch):
    folder = dataset / "test"
    first = ad.predict(folder / "bar", tmp_path)  # not the same folder, but the same paths
    inspected = []
    real = type(ad.model.engine).inspect_all

    def spy(engine, items, framing, names):
        for item, taken in items:
            inspected.append(item[0].name)
            yield from real(engine, [(item, taken)], framing, names)

    monkeypatch.setattr(type(ad.model.engine), "inspect_all", spy)
    again = ad.predict(folder, tmp_path, resume=True)
    assert len(inspected) == 4 and all("good" in name for name in inspected)
    assert [p.path for p in again] == [str(path) for path in sorted(folder.rglob("*.png"))]
    for before, after in zip(first, again[:4], strict=True):
        assert before.to_dict() == after.to_dict()
        assert after.boxes.dtype == np.int32 and after.anomaly_map is None
    assert ad.predict(first[0].path, tmp_path, resume=True).raw_score == first[0].raw_score
    assert len(inspected) == 4
    with (tmp_path / CSV).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    # other options are another run
    ad.predict(folder, tmp_path, resume=True, thresh=0.7)
    ad.predict(folder, tmp_path, resume=True, hardcore=True)
    ad.predict(folder, tmp_path)
    assert len(inspected) == 4 + 3 * 8
    assert len({line["run"] for line in read_records(tmp_path / JSONL)}) == 4
    with pytest.raises(OptionError, match="arrays have none"):
        ad.predict([draw_part(0)], tmp_path, resume=True)


def test_resume_tries_again_what_failed(ad, tmp_path):
    folder = write_parts(tmp_path / "in", 3)
    whole = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(whole[:-200])
    state = os.stat(folder / "001.png")
    first = ad.predict(folder, tmp_path / "out")
    assert [p.error is None for p in first] == [True, False, True]
    # As it was when a share was away: nothing of the file has changed since.
    (folder / "001.png").write_bytes(whole)
    lines = (tmp_path / "out" / JSONL).read_text()
    now = os.stat(folder / "001.png")
    lines = lines.replace(str(state.st_mtime_ns), str(now.st_mtime_ns))
    (tmp_path / "out" / JSONL).write_text(
        lines.replace(f'"bytes": {state.st_size}', f'"bytes": {now.st_size}')
    )
    again = ad.predict(folder, tmp_path / "out", resume=True)
    assert [p.error for p in again] == [None] * 3
    assert len((tmp_path / "out" / JSONL).read_text().splitlines()) == 4
    with (tmp_path / "out" / CSV).open(newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ["", "", ""]


IN_OTHER_PROCESSES = """
import multiprocessing, pickle, sys
import numpy as np
from anomaly_ad import AD
from conftest import draw_part

def work(some):
    return [p.raw_score for p in ad.predict(some, save=False)]

def work_on(pair):
    return [p.raw_score for p in pair[0].predict(pair[1], save=False)]

def one(image):
    return ad.predict(image, save=False).raw_score

if __name__ == "__main__":
    ad = AD(sys.argv[1])
    images = np.stack([draw_part(n, defect=n % 2 == 1) for n in range(4)])
    expected = [p.raw_score for p in ad.predict(images, save=False)]
    assert one(images[0]) == expected[0]
    stream = ad.stream(list(images) * 20)  # is under way while the processes are made
    next(stream)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert sum(pool.map_async(work, [images[:2], images[2:]]).get(60), []) == expected
        assert pool.map_async(one, list(images)).get(60) == expected
    assert len(list(stream)) == 79
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map_async(work_on, [(ad, images)]).get(60) == [expected]
    assert pickle.loads(pickle.dumps(ad)).predict(images[1], save=False).raw_score == expected[1]
"""


@pytest.mark.slow
def test_in_forked_and_spawned_processes(trained, tmp_path):
    (tmp_path / "work.py").write_text(IN_OTHER_PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(tmp_path / "work.py"), str(trained)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_an_ad_that_is_not_trained_is_copied(tmp_path):
    ad = AD("padim", tmp_path, prior=3, save_path=tmp_path / "M")
    assert repr(copy.deepcopy(ad)) == repr(ad)
    assert repr(pickle.loads(pickle.dumps(ad))) == repr(ad)  # noqa: S301 - our own


def test_resume_in_a_record_that_someone_edited(ad, dataset, tmp_path):
    ad.predict(dataset / "test", tmp_path)
    lines = (tmp_path / JSONL).read_text().splitlines()
    lines[2] = lines[2].replace('"score": ', '"score": "high", "x": ')
    lines[3] = lines[3].replace('"boxes": ', '"boxes": 7, "x": ')
    lines[4] = lines[4].replace('"path"', '"file"')
    (tmp_path / JSONL).write_text("\n".join([*lines, "[]", '"text"', "7"]) + "\n")
    predictions = ad.predict(dataset / "test", tmp_path, resume=True)
    assert len(predictions) == 8 and all(p.error is None for p in predictions)
    assert len(list(read_records(tmp_path / JSONL))) == 8 + 3


def test_a_stream_writes_as_predict_does(ad, dataset, tmp_path):
    stream = ad.stream(dataset / "test", tmp_path / "stream", hardcore=True)
    assert not (tmp_path / "stream").exists()
    streamed = list(stream)
    predicted = ad.predict(dataset / "test", tmp_path / "predict", hardcore=True, maps=True)
    for one, other in zip(streamed, predicted, strict=True):
        assert one.to_dict() == other.to_dict()
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    for made in ("bar/200.png", CSV):
        first, second = ((tmp_path / way / made).read_bytes() for way in ("stream", "predict"))
        assert first == second


def test_output_that_cannot_be_written(ad, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        ad.predict(draw_part(0), tmp_path / "file" / "out")


def test_unicode_and_long_names(ad, tmp_path):
    name = "ü 部品 " + "n" * 200 + ".png"
    write_image(tmp_path / "in" / name, draw_part(0))
    (prediction,) = ad.predict(tmp_path / "in", tmp_path / "out")
    assert prediction.error is None and (tmp_path / "out" / name).is_file()


def test_show_without_a_display_warns_and_goes_on(ad, dataset, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.warns(UserWarning, match="no display"):
        predictions = ad.predict(dataset / "test", show=True, save=False)
    assert len(predictions) == 8


def test_show_shows_at_most_twenty(ad, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot", reason="showing needs matplotlib")
    shown = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gca().get_title()))
    ad.predict(write_parts(tmp_path / "in", 23), show=True, save=False)
    assert len(shown) == 20 and "000.png" in shown[0]


def test_test_img_shows_original_and_reconstruction(ad, dataset, monkeypatch):
    monkeypatch.setattr("anomaly_ad.drawing.screen.show", lambda *_: True)
    file = dataset / "test" / "good" / "100.png"
    picture = ad.test_img(file)
    original = read(file)
    assert picture.shape[0] == SIDE and picture.shape[1] > 2 * SIDE and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :SIDE], original)
    error = np.abs(picture[:, -SIDE:].astype(int) - original).mean()
    assert error < 30  # it looks like the part; the table alone would differ by more
    # No pattern that the loss does not see: it is not rougher than the part itself.
    rough = [
        np.abs(np.diff(side.astype(int), axis=1)).mean() for side in (original, picture[:, -SIDE:])
    ]
    assert rough[1] < rough[0]


# ------------------------------------------------------------- runs that end unexpectedly


def test_an_interrupted_run_leaves_whole_lines(ad, dataset, tmp_path):
    stream = ad.stream(dataset / "test")
    next(stream)
    stream.close()  # threads end
    count = 0

    def interrupt(*_):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anomaly_ad.drawing.screen.show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ad.predict(dataset / "test", tmp_path, show=True)
    with (tmp_path / CSV).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert not list(tmp_path.rglob("*.tmp"))


KILLED = """
import sys
from anomaly_ad import AD
AD(sys.argv[1]).predict([sys.argv[2]] * 100000, sys.argv[3])
"""


@pytest.mark.slow
def test_a_killed_run_leaves_whole_lines(trained, dataset, tmp_path):
    image = dataset / "test" / "bar" / "200.png"
    command = [sys.executable, "-c", KILLED, str(trained), str(image), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / JSONL).exists() and (tmp_path / JSONL).stat().st_size > 60_000:
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    lines = (tmp_path / JSONL).read_text()
    assert lines.endswith("\n")
    assert len(list(read_records(tmp_path / JSONL))) == lines.count("\n") > 20


def test_methods_that_cannot_add_images_say_so(trained):
    with pytest.raises(OptionError, match=r"train it again.*padim"):
        AD(trained).add_images("missing")
