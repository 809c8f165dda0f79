"""Methods compared: on labelled images, and on rendered defects where there are none."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import draw_part, write_image

from anomaly_ad import AD, DataError, OptionError
from anomaly_ad.choosing import comparing
from anomaly_ad.choosing.comparing import Comparison
from anomaly_ad.choosing.material import find_material
from anomaly_ad.cli.base import seconds
from anomaly_ad.evaluation.intervals import Estimate

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    for n in range(24):
        write_image(root / "train" / "good" / f"{n:02d}.png", draw_part(n))
    for n in range(6):
        write_image(root / "test" / "good" / f"{n:02d}.png", draw_part(100 + n))
        write_image(root / "test" / "bar" / f"{n:02d}.png", draw_part(200 + n, defect=True))
    return root


@pytest.fixture(scope="module")
def compared(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    found = AD.compare(
        parts,
        ["padim", "dfkde", "cflow"],
        budget=60,
        img_size=(64, 64),
        save=True,
        save_path=folder,
        report=folder / "page.html",
    )
    return found, folder


def test_labelled_images_are_tested_on(compared, parts):
    found, _ = compared
    assert {each.name for each in found.methods} == {"padim", "dfkde"}
    assert not found.is_rendered and found.n_training == 24
    assert [kind for _, kind in found.images] == ["good"] * 6 + ["bar"] * 6
    for each in found.methods:
        assert (each.n_good, each.n_defective) == (6, 6)
        assert each.kinds.get("bar", 0) == each.found == sum(each.above[6:])
        assert each.rejected == sum(each.above[:6])
        assert each.model_mb > 1 and each.fit_s > 0 and each.image_ms > 0 and each.peak_mb > 50


def test_figures_are_those_of_a_training_by_itself(compared, parts, tmp_path):
    found, _ = compared
    own = AD("padim", parts, img_size=(64, 64), save_path=tmp_path).train(review=False)
    predicted = own.predict(parts / "test", save=False)
    by_path = {str(each.path): each.is_anomalous for each in predicted}
    (padim,) = (each for each in found.methods if each.name == "padim")
    assert [by_path[name] for name, _ in found.images] == list(padim.above)


def test_what_the_budget_does_not_allow_is_left_out_and_said(compared):
    found, _ = compared
    assert "budget" in found.left_out["cflow"] and "cflow" not in found.recommended
    assert "Left out, since they take longer than the budget: cflow (about" in str(found)


def test_the_last_line_names_the_method(compared):
    found, _ = compared
    last = str(found).splitlines()[-1]
    assert last == found.recommendation and last.startswith(f"Recommended: {found.recommended}, ")


def test_the_model_that_is_saved_says_why(compared, parts):
    found, folder = compared
    loaded = AD(folder / "model")
    assert loaded.model.manifest.plan.method == found.recommended
    reason = loaded.model.manifest.training["chosen"]
    assert reason["by"] == "compare" and reason["why"] == found.recommendation
    assert set(reason["methods"]) == {"padim", "dfkde"}
    assert loaded.model.manifest.training["n_fit"] == 24


def test_the_page_shows_the_table(compared):
    found, folder = compared
    page = (folder / "page.html").read_text()
    for each in found.methods:
        assert each.auroc.text(1, 3) in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_plain_values_are_json(compared):
    found, _ = compared
    plain = json.loads(found.to_json())
    assert plain["recommended"] == found.recommended
    assert [each["name"] for each in plain["methods"]] == [each.name for each in found.methods]


@pytest.mark.slow
def test_without_labels_good_images_are_held_out_and_defects_rendered(parts):
    found = AD.compare(parts / "train", "dfkde", img_size=(64, 64))
    assert found.is_rendered and found.n_training == 19
    counts = [kind for _, kind in found.images].count("good")
    assert counts == 5 and len(found.images) == 5 + 96
    assert "RENDERED" in str(found) and found.recommended == "dfkde"


def test_held_out_images_are_not_learnt_and_stay_the_same(parts):
    first, again = (find_material(parts / "train", seed=3) for _ in range(2))
    assert [source.path for source, _ in first.tests] == [source.path for source, _ in again.tests]
    held = {source.path for source, kind in first.tests if kind == "good"}
    assert len(held) == 5 and not held & set(first.training.paths)
    assert held | set(first.training.paths) == set(first.whole.paths)
    other = find_material(parts / "train", seed=4)
    assert {s.path for s, k in other.tests if k == "good"} != held


def test_groups_are_held_out_together(tmp_path):
    for n in range(24):
        write_image(tmp_path / "good" / f"part{n // 2:02d}_{n % 2}.png", draw_part(n))
    found = find_material(tmp_path, groups="part([0-9]+)_")
    held = {s.path.name[:6] for s, kind in found.tests if kind == "good"}
    assert held and not held & {path.name[:6] for path in found.training.paths}
    assert len(found.training.groups) == len(found.training.paths)


def test_labelled_good_images_that_are_learnt_from_are_not_tested_on(tmp_path):
    for n in range(12):
        write_image(tmp_path / "good" / f"{n:02d}.png", draw_part(n))
        write_image(tmp_path / "scratch" / f"{n:02d}.png", draw_part(n, defect=True))
    found = find_material(tmp_path)
    tested = {source.path for source, kind in found.tests if kind == "good"}
    assert len(tested) == 5 and not tested & set(found.training.paths)
    assert sum(kind == "scratch" for _, kind in found.tests) == 12 and not found.is_rendered


def test_a_defect_among_the_good_is_refused(tmp_path):
    for n in range(12):
        write_image(tmp_path / "a" / f"{n:02d}.png", draw_part(n))
    files = sorted((tmp_path / "a").iterdir())
    listed = tmp_path / "labels.csv"
    listed.write_text("path,label\n" + "".join(f"{f},scratch\n" for f in files[:2]))
    with pytest.raises(
        DataError, match="labelled defective, but is among the images of good parts"
    ):
        find_material(files, listed)


def test_copies_of_what_is_learnt_from_do_not_count(parts, tmp_path):
    shutil.copytree(parts, tmp_path / "parts")
    folder = tmp_path / "parts"
    shutil.copy(folder / "train" / "good" / "03.png", folder / "test" / "good" / "copy.png")
    found = find_material(folder)
    assert "copy.png" not in {source.path.name for source, _ in found.tests}
    assert any("among those to test on: 1." in note for note in found.notes)


def test_only_copies_to_test_on_are_refused(parts, tmp_path):
    labelled = tmp_path / "labelled"
    shutil.copytree(parts / "train" / "good", labelled / "good")
    shutil.copytree(parts / "test" / "bar", labelled / "bar")
    with pytest.raises(DataError, match="All good images to test on are copies"):
        find_material(parts / "train", labelled)


def test_defects_without_good_ones_next_to_them_are_tested_on(tmp_path):
    for n in range(12):
        write_image(tmp_path / "train" / f"{n:02d}.png", draw_part(n))
        write_image(tmp_path / "test" / "scratch" / f"{n:02d}.png", draw_part(n, defect=True))
    found = find_material(tmp_path)
    assert not found.is_rendered and sum(kind == "scratch" for _, kind in found.tests) == 12


def test_labelled_images_that_are_not_clear_are_refused(tmp_path):
    for n in range(12):
        write_image(tmp_path / "good" / f"{n:02d}.png", draw_part(n))
        write_image(tmp_path / "test" / "scratch" / f"{n:02d}.png", draw_part(n, defect=True))
    with pytest.raises(DataError, match="which one is meant"):
        find_material(tmp_path)


@pytest.mark.parametrize("extra", [(), ("extra/1.png",)])
def test_a_folder_without_labels_has_none(extra, tmp_path):
    for n in range(12):
        write_image(tmp_path / f"{n:02d}.png", draw_part(n))
    for name in extra:
        write_image(tmp_path / name, draw_part(50))
    found = find_material(tmp_path)
    assert found.is_rendered and len(found.whole.paths) == 12


def test_too_few_images_are_refused(tmp_path):
    for n in range(7):
        write_image(tmp_path / f"{n:02d}.png", draw_part(n))
    with pytest.raises(DataError, match="too few"):
        find_material(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"detectors": "padim,nosuch"}, "no detector named 'nosuch'"),
        ({"detectors": []}, "names no method"),
        ({"budget": 0}, "budget is a time in seconds"),
        ({"budget": "10m"}, "budget is a time in seconds"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_work(parts, given, told):
    with pytest.raises(OptionError, match=told):
        AD.compare(parts, **given)


def test_the_page_is_never_written_into_the_input(parts):
    with pytest.raises(OptionError, match="nothing is ever written into the input"):
        AD.compare(parts, "padim", report=parts / "page.html")


def test_efficientad_is_taken_only_where_it_is_named():
    assert "efficientad" not in comparing._names(None)
    assert comparing._names("efficientad,padim") == ["padim", "efficientad"]


def test_a_method_that_cannot_take_the_images_is_left_out(parts):
    found = AD.compare(parts, "padim,dfkde", tiles=(2, 2), img_size=(32, 32))
    assert [each.name for each in found.methods] == ["dfkde"]
    assert "tiles" in found.left_out["padim"]


def made(name, **other):
    given = {
        "name": name,
        "merit": 1.0,
        "behind": Estimate(0, 0, 0),
        "is_equal": True,
        "auroc": Estimate(1, 1, 1),
        "found": 10,
        "n_defective": 10,
        "rejected": 0,
        "n_good": 20,
        "stated_rate": 0.01,
        "rejects_more": False,
        "other_rate": "",
        "image_ms": 20.0,
        "start_s": 1.0,
        "peak_mb": 200.0,
        "model_mb": 10.0,
        "fit_s": 10.0,
        "has_map": True,
        "img_size": (64, 64),
        "kinds": {},
        "above": (),
    }
    return comparing.Compared(**{**given, **other})


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ([made("a"), made("b", image_ms=10.0)], "b"),
        ([made("a"), made("b", image_ms=10.0, is_equal=False)], "a"),
        ([made("a"), made("b", image_ms=10.0, rejects_more=True)], "a"),
        ([made("a", rejects_more=True)], "a"),
        ([made("a", image_ms=20.0), made("b", image_ms=19.5, has_map=False)], "a"),
        ([made("a", image_ms=20.0), made("b", image_ms=10.0, has_map=False)], "b"),
        ([made("a", fit_s=9.0), made("b", fit_s=5.0)], "b"),
        ([made("a", image_ms=None), made("b", image_ms=None, fit_s=1.0)], "b"),
    ],
)
def test_the_cheapest_of_equals_is_recommended(methods, expected):
    assert comparing._cheapest(methods).name == expected


def test_it_says_which_others_cannot_be_told_apart_and_where_there_is_no_map():
    methods = (made("a"), made("b", image_ms=9.0, has_map=False), made("c", is_equal=False))
    found = Comparison("parts", False, 10, (), methods, "b", {}, (), ())
    assert "the cheapest of 2 that cannot be told apart on these images (also: a)" in str(found)
    assert "whether, not where (a is the cheapest of them that does)" in str(found)
    alone = replace(found, methods=methods[:1], recommended="a")
    assert "the only one that was compared" in alone.recommendation


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["10", "m", "-1m", "1d", ""])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(OptionError, match="such as 10m"):
        seconds(text)


def test_an_image_that_cannot_be_read_does_not_count(parts, tmp_path, monkeypatch):
    shutil.copytree(parts, tmp_path / "parts")
    broken = tmp_path / "parts" / "test" / "bar" / "00.png"
    broken.write_bytes(broken.read_bytes()[:100])
    found = AD.compare(tmp_path / "parts", "dfkde", img_size=(64, 64))
    assert found.methods[0].n_defective == 5 and found.n_errors == 1
    assert any("could not be inspected" in note and "00.png" in note for note in found.notes)


def test_pictures_of_missed_defects_are_on_the_page(parts, tmp_path):
    image = draw_part(1)
    faint = image.copy()
    cv2.circle(faint, (20, 20), 1, (44, 44, 44), -1)
    for n in range(3):
        write_image(tmp_path / "bad" / "faint" / f"{n}.png", np.roll(faint, n, axis=0))
        write_image(tmp_path / "bad" / "good" / f"{n}.png", draw_part(300 + n))
    page = tmp_path / "page.html"
    found = AD.compare(
        parts / "train", "dfkde", labelled=tmp_path / "bad", img_size=(64, 64), report=page
    )
    missed = found.methods[0].n_defective - found.methods[0].found
    assert page.read_text().count("<figure>") == missed
