"""Probability of detection by rendered defects: what is inspected, said and refused."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import run_command, write_image

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
pytest.importorskip("scipy", reason="needs the extra 'eval'")

from anomaly_ad import AD
from anomaly_ad.data.sample import render_part
from anomaly_ad.errors import DataError, MissingExtraError, OptionError
from anomaly_ad.evaluation import detection, detection_curve
from anomaly_ad.evaluation.detection import DetectionCurve
from anomaly_ad.images import find_images


@pytest.fixture(scope="module")
def ad(washer):
    return AD(washer[0])


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Good washers that the model has not learnt from."""
    folder = tmp_path_factory.mktemp("more") / "good"
    for seed in range(8):
        write_image(folder / f"{seed}.png", render_part(7000 + seed, size=(256, 256))[0])
    return folder


def few(ad, path, **options):
    """A series of one kind that is as short as can be."""
    options = {"kinds": ["spot"], "renders": (40, 40), **options}
    return detection_curve(ad.model, path, **options)


def curve(sizes, found, images=None):
    images = range(len(sizes)) if images is None else images
    return detection._curve("spot", sizes, found, images)


@pytest.fixture
def short(monkeypatch):
    """Series of 80 defects of a kind."""
    monkeypatch.setitem(detection_curve.__kwdefaults__, "renders", (80, 80))


def test_it_is_said_in_a_table_that_the_defects_are_rendered(ad, good, capsys, short):
    found = ad.detection_curve(good, kinds=["spot", "missing"], mm_per_pixel=0.1, contrast=90)
    printed = capsys.readouterr().out
    assert printed == f"{found}\n"
    lines = printed.splitlines()
    assert lines[0].startswith("RENDERED defects of 90 gray levels on ")
    assert "Real ones may be easier or harder to find" in lines[0]
    assert [line.split()[0] for line in lines[1:4]] == ["kind", "spot", "missing"]
    assert "a90 mm" in lines[1]
    plain = json.loads(found.to_json())
    for one, said in zip(found.curves, plain["curves"], strict=True):
        assert 70 <= len(one.sizes) == len(one.found) <= 80
        assert one.n_images == found.n_images == 8 - found.n_rejected
        assert said["a90"] == one.a90
        for name in ("a90", "a90_low", "a90_high", "a90_95"):
            value = said[name]
            assert said[f"{name}_mm"] == (None if value is None else pytest.approx(0.1 * value))
        if one.a90 is not None:
            assert one.probability(one.a90) == pytest.approx(0.9)
    # Larger defects are found more often.
    for one in found.curves:
        order = np.argsort(one.sizes)
        hits = np.array(one.found)[order]
        assert hits[-20:].mean() > hits[:20].mean()


def test_the_same_seed_gives_the_same_and_images_are_used_equally_often(ad, good):
    first, second, other = (few(ad, good, seed=seed) for seed in (1, 1, 2))
    assert first.to_dict() == second.to_dict()
    assert first.curves[0].sizes != other.curves[0].sizes
    assert first.curves[0].n_images == first.n_images
    # 1 and 25 % of 256 pixels.
    assert 2 <= min(first.curves[0].sizes) < 5 and 60 < max(first.curves[0].sizes) < 68


def test_sizes_and_threshold_are_those_asked_for(ad, good):
    found = few(ad, good, sizes=(10, 20))
    assert min(found.curves[0].sizes) > 8 and max(found.curves[0].sizes) < 23
    strict, lax = (few(ad, good, threshold=thresh) for thresh in (0.6, 0.99))
    assert sum(strict.curves[0].found) > sum(lax.curves[0].found)


def test_images_of_the_training_and_copies_are_left_out(ad, washer, good, tmp_path):
    trained_on = find_images(washer[1] / "train")[:3]
    paths = [*trained_on, *find_images(good)]
    copy = shutil.copy(paths[-1], tmp_path / "copy.png")
    found = few(ad, [*paths, copy])
    assert found.n_learnt == 4 and found.n_images + found.n_rejected == 8
    assert "4 images were left out: seen in training, or copies" in str(found)
    with pytest.raises(DataError, match=r"learnt from all 24 good images .* new photographs"):
        few(ad, washer[1] / "train")


def test_labelled_images_give_their_good_ones(ad, washer):
    found = few(ad, washer[1], threshold=0.9)
    assert found.n_images + found.n_rejected == 3 and found.n_learnt == 0
    assert found.labelled is None  # of 5 defects nothing is said


def test_real_defects_are_shown_next_to_rendered_ones(ad, washer, good, monkeypatch):
    monkeypatch.setattr(detection, "_LEAST_LABELLED", 5)
    found = few(ad, washer[1], threshold=0.9)
    assert found.labelled.kind == "labelled" and len(found.labelled.sizes) == 5
    assert min(found.labelled.sizes) > 10
    assert "labelled: the real defects of the images with masks" in str(found)


def test_rejected_images_are_left_out_and_counted(ad, good, tmp_path):
    bright = np.full((256, 256, 3), 250, np.uint8)
    odd = write_image(tmp_path / "odd.png", bright)
    found = few(ad, [*find_images(good), odd])
    assert found.n_rejected >= 1
    assert f"As they are, {found.n_rejected} of 9 good images are rejected" in str(found)
    with pytest.raises(DataError, match=r"All 1 good images .* Raise thresh"):
        few(ad, [odd])


def test_images_that_cannot_be_read_are_named(ad, good, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    found = few(ad, [*find_images(good), broken])
    assert list(found.errors) == [str(broken)] and "1 images could not" in str(found)
    with pytest.raises(DataError, match="None of the 1 images"):
        few(ad, [broken])


def test_pictures_are_written_and_never_into_the_input(ad, good, tmp_path):
    few(ad, good, save_path=tmp_path / "look")
    pictures = sorted((tmp_path / "look" / "spot").iterdir())
    assert 4 <= len(pictures) <= 6
    assert all(p.stem.endswith(("px_found", "px_missed")) for p in pictures)
    assert list((tmp_path / "look").iterdir()) == [tmp_path / "look" / "spot"]
    before = sorted(os.listdir(good))
    with pytest.raises(OptionError, match="inside, the input folder"):
        few(ad, good, save_path=good / "look")
    assert sorted(os.listdir(good)) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kinds": ["hole"]}, "kinds are some of scratch"),
        ({"kinds": []}, "kinds are some of scratch"),
        ({"sizes": (20, 10)}, "smallest and the largest"),
        ({"sizes": 5}, "smallest and the largest"),
        ({"sizes": (1, 10)}, "from 2 on"),
        ({"contrast": -3}, "gray levels"),
        ({"mm_per_pixel": 0}, "above 0"),
        ({"mm_per_pixel": "fine"}, "above 0"),
        ({"seed": -1}, "seed is a whole number"),
        ({"thresh": 2}, "thresh"),
    ],
)
def test_wrong_arguments_are_refused(ad, good, given, message):
    with pytest.raises(OptionError, match=message):
        ad.detection_curve(good, **given)


def test_sizes_that_fit_nowhere_are_an_error(ad, good):
    with pytest.raises(DataError, match="No spot fits on the part"):
        few(ad, find_images(good)[:1], sizes=(130, 140))


@pytest.mark.parametrize(
    ("sizes", "found", "note"),
    [
        ([4, 8, 16], [1, 1, 1], "all were found, from 4.0 px on: a90 is smaller"),
        ([4, 8, 16], [0, 0, 0], "none was found, up to 16 px: a90 is larger"),
        ([4, 8, 16, 32], [1, 1, 0, 0], "not found more often from 4.0 to 32 px"),
        (np.tile([4, 8, 16, 32], 10), np.arange(40) % 8 > 5, "a90 is larger"),
        ([5, 6, 7, 8], [0, 0, 1, 1], "all found are larger than all missed"),
    ],
)
def test_what_cannot_be_told_is_said_in_words(sizes, found, note):
    one = curve(np.asarray(sizes, float), np.asarray(found, bool))
    assert any(note in text for text in one.notes)
    assert "nan" not in " ".join(one.row(None)) and "inf" not in " ".join(one.row(0.1))
    json.dumps([one.a90, one.a90_low, one.a90_high, one.a90_95], allow_nan=False)


def test_an_interval_that_leaves_the_sizes_has_no_end_there():
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(np.log(4), np.log(40), 60))
    one = curve(sizes, random.random(60) < 1 / (1 + (10 / sizes) ** 3))
    assert one.a90 is not None and one.a90_high is None
    assert "beyond the largest" in one.notes[-1]
    assert one.row(None)[4].endswith("to -")
    assert isinstance(one, DetectionCurve)


def test_without_scipy_the_extra_is_named(ad, good, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"anomaly-ad\[eval\]"):
        ad.detection_curve(good)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(washer, good, tmp_path, short):
    arguments = ("pod", washer[0], good, "--kind", "spot", "--kind", "dent", "--mm-per-pixel", 0.1)
    out, _ = run_command(*arguments, "--pictures", tmp_path / "look")
    assert "RENDERED" in out and "dent" in out and "a90 mm" in out and "blotch" not in out
    assert (tmp_path / "look" / "dent").is_dir()
    plain = json.loads(run_command(*arguments, "--json")[0])
    assert [one["kind"] for one in plain["curves"]] == ["spot", "dent"]
    run_command("pod", washer[0], good, "--kind", "hole", code=2)
