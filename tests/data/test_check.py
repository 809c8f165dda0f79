"""Every finding of a data set is made, and is found; nothing is found in one without."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts
from conftest import run_command as run
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad import OptionError, PathError
from anomaly_ad.data.check import check
from anomaly_ad.images import stored_as
from anomaly_ad.statistics.alike import nearest, oddness, same_pictures


@pytest.fixture
def folder(tmp_path):
    """A small data set in order: train/good (12), test/good (3), test/bar (3) with masks."""
    root = tmp_path / "set"
    write_parts(root / "train" / "good", 12)
    write_parts(root / "test" / "good", 3, first=100)
    write_parts(root / "test" / "bar", 3, first=200, defect=True)
    for seed in range(200, 203):
        write_mask(root, seed)
    return root


def write_mask(root, seed, *, size=64, marked=True):
    mask = np.zeros((size, size, 3), np.uint8)
    mask[20:30, 20:30] = 255 * marked
    return write_image(root / "ground_truth" / "bar" / f"{seed}_mask.png", mask)


def rename_good(root):
    (root / "train/good").rename(root / "train/parts")
    write_parts(root / "train" / "defects", 1)


def look(root, **options):
    return check(root, outliers=False, progress=False, **{"false_alarm_rate": 0.1, **options})


def finding(found, name):
    (one,) = [each for each in found.findings if each.name == name]
    return one


def names(found):
    return {each.name: each.severity for each in found.findings}


def re_encode(source, target):
    """As JPEG; of so small and noisy a picture a lower quality changes what it looks like."""
    image = cv2.imread(str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
    return target


def test_a_set_in_order(folder):
    found = look(folder)
    assert not found.findings and not found.errors
    assert found.n_train == found.n_distinct == 12 and found.labelled == {"good": 3, "bar": 3}
    assert found.n_masks == 3 and found.sizes == {"64x64": 18}
    assert found.modes == {"8 bit colour": 18} and found.supported_rate == 1 / 13
    lines = str(found).splitlines()
    assert lines[1].startswith("train   12 images of good parts from")
    assert lines[2].startswith("test    3 good, 3 bar; 3 masks (MVTec layout")
    assert lines[-1] == "Ready to train."
    assert json.loads(found.to_json()) == {**found.to_dict(), "findings": []}


def test_nothing_is_written(folder):
    before = sorted(folder.rglob("*"))
    look(folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda r: rename_good(r), "layout", "it is not clear which images"),
        (lambda r: (r / "Train").mkdir(), "layout", "which one is meant"),
        (lambda r: (r / "good").mkdir(), "labelled", "which one is meant"),
        (lambda r: write_mask(r, 999), "masks", "have no image"),
        (lambda r: write_mask(r, 200, size=32), "mask", "A mask has its image's size"),
        (
            lambda r: (r / "ground_truth/bar/200_mask.png").write_text("no image"),
            "mask",
            "is not an image that can be read",
        ),
        (lambda r: (r / "train/good/000.png").write_text("x"), "unreadable", "not an image"),
        (lambda r: (r / "test/bar/200.png").write_bytes(b""), "unreadable", "is empty"),
        (
            lambda r: shutil.copy(r / "train/good/000.png", r / "test/good/a.png"),
            "train_and_test",
            "flatters the model",
        ),
        (
            lambda r: re_encode(r / "train/good/001.png", r / "test/good/a.jpg"),
            "train_and_test",
            "flatters the model",
        ),
        (
            lambda r: shutil.copy(r / "test/good/100.png", r / "test/bar/a.png"),
            "labelled_both",
            "labelled both good and defective",
        ),
        (
            lambda r: re_encode(r / "train/good/001.png", r / "train/good/a.jpg"),
            "re_encoded",
            "count more than once",
        ),
        (
            lambda r: [(r / f"train/good/00{n}.png").unlink() for n in range(5)],
            "too_few",
            "7 different images",
        ),
    ],
)
def test_what_must_be_fixed(folder, change, name, words):
    change(folder)
    found = look(folder)
    assert names(found)[name] == "error" and found.findings[0].severity == "error"
    assert words in str(found) and str(found).splitlines()[-1].endswith("must be fixed.")
    assert sum(found.sizes.values()) >= 12  # the remaining checks still ran


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda r: shutil.rmtree(r / "test"), "no_test", "no folder 'test'"),
        (
            lambda r: write_parts(r / "train" / "other", 2, first=50),
            "unused",
            "2 images used neither",
        ),
        (lambda r: (r / "train/good/a.heic").write_text(""), "passed_over", "Only JPEG"),
        (
            lambda r: shutil.copy(r / "train/good/000.png", r / "train/good/a.png"),
            "copies",
            "Training counts each once",
        ),
        (
            lambda r: shutil.copy(r / "test/bar/200.png", r / "test/bar/a.png"),
            "labelled_twice",
            "more than once in every figure",
        ),
        (lambda r: write_mask(r, 200, marked=False), "empty_mask", "without a marked pixel"),
        (
            lambda r: (r / "ground_truth/bar/200_mask.png").unlink(),
            "no_mask",
            "1 of 3 defective images without a mask",
        ),
        (lambda r: shutil.rmtree(r / "test/good"), "one_sided", "no good images"),
        (
            lambda r: write_image(r / "train/good/a.png", draw_part(50)[:40]),
            "shapes",
            "of 2 sizes, whose shapes differ",
        ),
        (
            lambda r: write_image(r / "train/good/a.png", draw_part(50, size=128)),
            "sizes",
            "64x64 (12), 128x128 (1)",
        ),
        (
            lambda r: cv2.imwrite(str(r / "train/good/a.png"), draw_part(50)[..., 0]),
            "modes",
            "8 bit colour (12), 8 bit gray (1)",
        ),
        (
            lambda r: write_image(r / "test/bar/a.png", draw_part(50)[:40]),
            "other_kind",
            "1 labelled image of a shape",
        ),
    ],
)
def test_what_is_worth_a_look(folder, change, name, words):
    change(folder)
    found = look(folder)
    assert names(found)[name] == "warning" and not found.errors
    assert words in str(found) and "Ready to train, with " in str(found).splitlines()[-1]


def test_too_few_for_the_rate(folder):
    found = look(folder, false_alarm_rate=0.01)
    assert "12 good images support a false alarm rate of 0.077, not 0.01." in str(found)
    assert "99" in finding(found, "rate").advice and found.false_alarm_rate == 0.01
    copy = folder / "train" / "good" / "a.png"
    shutil.copy(folder / "train" / "good" / "000.png", copy)
    assert look(folder).n_distinct == 12  # a copy supports nothing


def test_images_that_are_all_the_same(tmp_path):
    for n in range(12):
        write_image(tmp_path / "train" / f"{n}.png", np.full((64, 64, 3), 90, np.uint8))
    assert names(look(tmp_path))["all_alike"] == "error"


def test_all_broken_files_are_listed_and_the_first_are_printed(folder):
    for n in range(8):
        (folder / "train" / "good" / f"x\n{n}.jpg").write_bytes(b"\xff\xd8")
    found = look(folder)
    assert len(finding(found, "unreadable").files) == 8
    assert str(found).count("is not an image") == 5 and "... and 3 more" in str(found)
    assert "train/good/x\\n0.jpg: the file" in str(found)


def test_a_turned_image_is_worth_a_look(folder):
    plain = re_encode(folder / "train/good/000.png", folder / "train/good/000.jpg").read_bytes()
    (folder / "train/good/000.png").unlink()
    note = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = plain[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + plain[2:]
    assert stored_as(plain).orientation == 1 and stored_as(turned).orientation == 6
    (folder / "train/good/000.jpg").write_bytes(turned)
    assert "1 of 12 training images carry a rotation" in finding(look(folder), "turned").text


@pytest.mark.parametrize(
    ("suffix", "array", "mode"),
    [
        (".jpg", np.zeros((20, 20), np.uint8), "8 bit gray"),
        (".jpg", np.zeros((20, 20, 3), np.uint8), "8 bit colour"),
        (".png", np.zeros((20, 20, 4), np.uint8), "8 bit colour with alpha"),
        (".png", np.zeros((20, 20), np.uint16), "16 bit gray"),
        (".bmp", np.zeros((20, 20, 3), np.uint8), "8 bit colour"),
        (".bmp", np.zeros((20, 20), np.uint8), "8 bit palette"),
    ],
)
def test_stored_mode(suffix, array, mode):
    data = cv2.imencode(suffix, array)[1].tobytes()
    assert stored_as(data).mode == mode
    for end in range(0, len(data), 7):  # cut off anywhere: a word or nothing, never an error
        header = stored_as(data[:end])
        assert header is None or (header.mode == mode and header.orientation == 1)


def test_bad_input(tmp_path):
    with pytest.raises(PathError, match="does not exist"):
        check(tmp_path / "none")
    with pytest.raises(PathError, match="is a file"):
        check(write_image(tmp_path / "a.png", draw_part(0)))
    with pytest.raises(OptionError, match="false_alarm_rate"):
        check(tmp_path, false_alarm_rate=0)
    with pytest.raises(OptionError, match="is a path"):
        check(3)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no images" in str(look(empty))


def test_the_command(folder, tmp_path):
    options = ["--false-alarm-rate", "0.1", "--no-outliers"]
    out, _ = run("check", folder, *options)
    assert out.splitlines()[-1] == "Ready to train."
    facts = json.loads(run("check", folder, *options, "--json")[0])
    assert facts["ready"] is True and facts["n_train"] == 12
    (folder / "train" / "good" / "000.png").write_text("x")
    out, _ = run("check", folder, *options, code=1)
    assert out.splitlines()[-1] == "1 problem must be fixed."
    _, err = run("check", tmp_path / "none", code=1)
    assert "does not exist" in err
    run("check", folder, "--false-alarm-rate", "2", code=2)


# ---------------------------------------------------------------------------- odd images


@pytest.mark.slow
def test_odd_images_and_a_folder_of_them(tmp_path):
    pytest.importorskip("tensorflow", reason="features need the extra 'train'")
    write_parts(tmp_path / "train" / "good" / "monday", 30)
    rng = np.random.default_rng(0)
    for n in range(3):
        line = tmp_path / "train" / "good" / "line"
        write_image(line / f"{n}.png", rng.integers(0, 255, (64, 64, 3), np.uint8))
        write_image(line / f"{n}b.png", draw_part(90 + n)[::-1] // (n + 2))
    found = check(tmp_path, false_alarm_rate=0.1, progress=False)
    odd = {file for (file,) in finding(found, "outliers").files}
    inside = {file for file in odd if "/line/" in file}
    assert len(inside) >= 4 and len(odd - inside) <= 2 and not found.errors
    assert "line looks like defects" in finding(found, "odd_folder").text
    assert set(found.oddness) == {str(p) for p in (tmp_path / "train").rglob("*.png")}


def test_without_keras_the_rest_is_done(folder, monkeypatch):
    from anomaly_ad.data import pictures as module

    write_parts(folder / "train" / "good", 12, first=20)
    module.feature_engine.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    found = check(folder, false_alarm_rate=0.1, progress=False)
    assert "anomaly-ad[train]" in found.omitted["outliers"] and found.n_train == 24
    assert "Not checked: outliers" in str(found)


# ---------------------------------------------------------------------------- near copies


def write_surfaces(folder, count, *, first=0, light=1.0, noise=1.0):
    """Parts with a surface of their own; another light or noise is another photograph."""
    for part in range(first, first + count):
        surface = np.random.default_rng(part).normal(0, 30, (16, 16, 3))
        image = (draw_part(0) + cv2.resize(surface, (64, 64))) * light
        image += np.random.default_rng([part, int(100 * light)]).normal(0, noise, image.shape)
        image = np.clip(image, 0, 255).astype(np.uint8)
        write_image(folder / f"part{part:02d}_{int(100 * light)}.png", image)
    return folder


def test_photographs_of_one_part_are_near_copies(tmp_path):
    good = write_surfaces(tmp_path / "train", 24)
    assert "near_copies" not in names(look(tmp_path))
    write_surfaces(good, 3, first=5, light=0.8)
    shutil.copy(good / "part05_80.png", good / "copy.png")  # counts once
    found = look(tmp_path)
    near = finding(found, "near_copies")
    assert near.severity == "warning" and not found.errors
    assert near.text == "6 of 28 training images are nearly the same as another."
    assert "groups=" in near.advice and "--groups" in near.advice
    pairs = {frozenset(file.rsplit("/", 1)[1] for file in pair) for pair in near.files}
    assert len(pairs) == 3 and {"part06_100.png", "part06_80.png"} in pairs
    assert "train/part06_100.png and train/part06_80.png" in str(found)


def test_near_copies_are_named_right_where_an_image_cannot_be_read(tmp_path):
    good = write_surfaces(tmp_path / "train", 24)
    write_surfaces(good, 1, first=5, light=0.8)
    (good / "a_broken.png").write_bytes(b"no image")  # the first in order
    (pair,) = finding(look(tmp_path), "near_copies").files
    assert {file.rsplit("/", 1)[1] for file in pair} == {"part05_100.png", "part05_80.png"}


def test_near_copies_are_found_where_every_part_has_some(tmp_path):
    for light in (1.0, 0.9, 0.8):
        write_surfaces(tmp_path / "train", 12, light=light)
    near = finding(look(tmp_path), "near_copies")
    assert near.text.startswith("36 of 36")
    for pair in near.files:
        one, other = (file.rsplit("/", 1)[1].partition("_")[0] for file in pair)
        assert one == other


def test_among_few_images_none_is_a_near_copy(tmp_path):
    write_surfaces(tmp_path / "train", 9)
    write_surfaces(tmp_path / "train", 9, light=0.9)
    assert "near_copies" not in names(look(tmp_path))


# ------------------------------------------------------------------------ pure functions


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_same_pictures_is_what_comparing_all_gives(count, seed):
    rng = np.random.default_rng(seed)
    base = rng.uniform(0, 255, (count // 2 + 1, 64))
    pixels = base[rng.integers(0, len(base), count)] + rng.normal(0, 0.2, (count, 64))
    thumbnails = np.round(256 * np.clip(pixels, 0, 255)).astype(np.uint16)
    gray = thumbnails / 256
    labels = list(range(count))
    for _ in range(count):  # along chains
        for i, j in np.ndindex(count, count):
            difference = np.sqrt(np.mean((gray[i] - gray[j]) ** 2))
            if difference <= min(0.3, 0.01 * gray[i].std(), 0.01 * gray[j].std()):
                labels[j] = min(labels[i], labels[j])
    assert same_pictures(thumbnails).tolist() == labels


def test_oddness_is_that_of_all_distances_in_blocks(monkeypatch):
    from anomaly_ad.statistics import alike

    vectors = np.random.default_rng(0).normal(3, 2, (70, 9)).astype(np.float32)
    vectors[5] += 9
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)
    distances = np.sqrt(((scaled[:, None] - scaled) ** 2).mean(-1))
    mean = np.log(np.sort(distances, axis=1)[:, 1:4].mean(axis=1))
    above = mean - np.median(mean)
    expected = above / (1.4826 * np.median(np.abs(above)))
    assert oddness(vectors) == pytest.approx(expected, abs=1e-3) and oddness(vectors).argmax() == 5
    monkeypatch.setattr(alike, "_ROWS", 16)
    monkeypatch.setattr(alike, "_COLUMNS", 11)
    assert oddness(vectors) == pytest.approx(expected, abs=1e-3)
    assert oddness(np.ones((9, 4), np.float32)).tolist() == [0] * 9


def test_nearest_is_what_comparing_all_gives(monkeypatch):
    from anomaly_ad.statistics import alike

    random = np.random.default_rng(0)
    gray = random.uniform(20, 200, (40, 64))
    gray[7] = 0.5 * gray[30] + 40 + random.normal(0, 0.5, 64)  # darker, with less contrast
    thumbnails = np.round(256 * gray).astype(np.uint16)
    scaled = (gray - gray.mean(1, keepdims=True)) / gray.std(1, keepdims=True)
    distances = np.sqrt(((scaled[:, None] - scaled) ** 2).mean(-1))
    np.fill_diagonal(distances, np.inf)
    ordered = np.sort(distances, axis=1)
    for rows, columns in ((512, 4096), (16, 11)):
        monkeypatch.setattr(alike, "_ROWS", rows)
        monkeypatch.setattr(alike, "_COLUMNS", columns)
        index, share = nearest(thumbnails)
        assert index.tolist() == distances.argmin(axis=1).tolist() and index[7] == 30
        np.testing.assert_allclose(share, ordered[:, 0] / ordered[:, 9], atol=1e-3)
    assert share[7] < 0.1 < 0.3 < np.delete(share, [7, 30]).min()
    _, same = nearest(np.full((12, 64), 900, np.uint16))
    assert same.tolist() == [1] * 12
