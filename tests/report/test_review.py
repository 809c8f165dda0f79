"""The page of the good images that look odd, and training without some of them."""

import base64
import contextlib
import hashlib
import html
import io
import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_part, run_command, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.errors import DataError, ModelError, OptionError
from anomaly_ad.evaluation.odd import odd_images
from anomaly_ad.images.light import Light
from anomaly_ad.images.tiles import Tiles
from anomaly_ad.model import StoredModel
from anomaly_ad.report.review import after_training, command, page_of

SMALL = {"img_size": (64, 64), "patch_size": 16}
ODD = ['<b>&".png', os.fsdecode(b"\xff.png")]  # markup, and not UTF-8
LINES = ['<b>&".png', "\\udcff.png"]
FORMAT_1 = Path(__file__).parents[1] / "model" / "data" / "format1" / "model"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """22 good parts and two with a defect. Tests must not change them."""
    folder = write_parts(tmp_path_factory.mktemp("review") / "line 3", 22)
    for number, name in enumerate(ODD):
        made = write_image(folder / "made.png", draw_part(500 + number, defect=True))
        made.rename(folder / name)
    return folder


@pytest.fixture(scope="module")
def trained_on(parts, tmp_path_factory):
    """A model of them, and what its training printed. Tests must not change its directory."""
    home = tmp_path_factory.mktemp("Models")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        ad = AD("padim", parts, save_path=home, name="line", **SMALL).train()
    return ad, printed.getvalue()


@pytest.fixture
def ad(trained_on):
    return trained_on[0]


@pytest.fixture(scope="module")
def without_odd(parts, tmp_path_factory):
    """The directory of a model that was trained without them, by the command line."""
    home = tmp_path_factory.mktemp("Without")
    (home / "exclude.txt").write_text("\n".join(LINES), encoding="utf-8")
    options = ["--img-size", 64, 64, "--patch-size", 16, "--save-path", home, "--no-review"]
    out, err = run_command("train", parts, *options, "--exclude", home / "exclude.txt")
    return Path(out.strip()), err


def data_of(page):
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def elsewhere(ad, folder):
    """The model as if it had been trained on a copy of its images, which a test may change."""
    (own,) = ad.model.manifest.training["sets"]
    shutil.copytree(own["folder"], folder)
    training = {**ad.model.manifest.training, "sets": [{**own, "folder": str(folder)}]}
    return replace(ad.model, manifest=replace(ad.model.manifest, training=training))


def test_training_shows_what_is_odd(trained_on, parts):
    ad, printed = trained_on
    page = ad.model.directory.with_name("line-review.html")
    found = odd_images(ad.model)
    assert {image.name for image in found.images[:2]} == {*ODD}
    assert found.images[1].is_odd and not found.images[-1].is_odd
    assert found.n_odd == sum(image.is_odd for image in found.images)
    assert [image.raw_score for image in found.images] == sorted(found.good.scores)[::-1]
    rest = np.sort(found.good.scores)[: -found.n_odd]
    assert found.limit == found.good.scores.max() and found.limit_without == rest.max()
    assert found.images[0].limit_without == found.images[1].raw_score
    assert (
        f"{found.n_odd} of 24 good images look odd and set the limit. Without them it would fall "
        f"from {found.limit:.3g} to {found.limit_without:.3g}.\n" in printed
    )
    assert "anomaly-ad review" not in printed  # the page is there
    (line,) = filter(None, after_training(ad.model, page=False))
    assert line.endswith(f". Look: anomaly-ad review {ad.model.directory}")
    assert printed.endswith(f"to look at: {page}\n") and page.is_file()
    assert found.images[0].path == parts / found.images[0].name


def test_the_page_shows_and_names_all_and_needs_nothing_else(ad):
    page = page_of(ad.model.directory)
    text = page.read_text(encoding="utf-8")
    assert text.count('<li class="panel one') == 24
    assert text.count("data:image/jpeg;base64,") == 48 and text.count("data:image/webp") >= 2
    assert "<b>" not in text and html.escape(LINES[0]).replace("&quot;", "&#34;") in text
    assert LINES[1] in text
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    for part in (style, script):
        assert base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() in policy
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "it would fall from" in text and "are an estimate" in text


def test_heatmap_and_frame_are_of_the_unseen_map(ad, tmp_path, monkeypatch):
    original = odd_images(ad.model).good
    peaked = np.full((32, 32), original.maxima.min(), np.float32)
    peaked[5, 25] = 10 * original.maxima.max()
    good = replace(original, maps=dict.fromkeys(range(24), peaked))
    monkeypatch.setattr(StoredModel, "good_scores", lambda self, **_: good)
    ad.review(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("data:image/webp") == 24
    frames = re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', text)
    for x, y, width, height in [map(int, frame) for frame in frames]:
        assert abs(x + width / 2 - 51) < 2 and abs(y + height / 2 - 11) < 2


def test_without_the_page_the_line_is_there(ad, tmp_path):
    directory = shutil.copytree(ad.model.directory, tmp_path / "copy")
    stored = AD(directory).model
    (line,) = after_training(stored, page=False)
    assert "look odd and set the limit" in line and not page_of(directory).exists()
    # The page cannot be written: a line says why, and how to try again.
    page_of(directory).mkdir()
    assert [*after_training(stored, page=True)] == [
        line.partition(" Look:")[0],
        "Warning: the model is saved, but its good images cannot be reviewed: A report is a file "
        f"that ends in .html. Received: {page_of(directory)} Try again with: anomaly-ad review "
        f"{directory}",
    ]


def test_images_that_are_gone_or_changed_are_named(ad, tmp_path, monkeypatch):
    stored = elsewhere(ad, tmp_path / "copy")
    (tmp_path / "copy" / ODD[0]).unlink()
    (tmp_path / "copy" / "000.png").write_bytes(b"torn")
    shutil.copyfile(tmp_path / "copy" / "001.png", tmp_path / "copy" / "002.png")
    monkeypatch.setattr(AD, "model", property(lambda self: stored))
    page = tmp_path / "page.html"
    written = ad.review(page)
    assert {*written.missing} == {ODD[0], "000.png"} and written.changed == ("002.png",)
    assert str(written).splitlines()[1:] == [
        f"Warning: 2 of them cannot be shown (moved, or damaged): {', '.join(written.missing)}.",
        "Warning: 1 of them have changed since the training: 002.png.",
    ]
    text = page.read_text(encoding="utf-8")
    assert text.count("Cannot be shown: ") == 2 and text.count("This file is another one") == 1
    assert text.count('<li class="panel one') == 24


def test_the_command_prints_the_page(ad, tmp_path):
    out, err = run_command("review", ad.model.directory)
    assert out == f"{ad.model.directory}-review.html\n" and "look odd and set the limit" in err
    out, _ = run_command("review", ad.model.directory, "--output", tmp_path / "own.html")
    assert out == f"{tmp_path / 'own.html'}\n" and (tmp_path / "own.html").is_file()


def test_where_the_page_must_not_be(ad, parts, tmp_path):
    with pytest.raises(OptionError, match="would lie in the folder that it is about"):
        ad.review(parts / "page.html")
    with pytest.raises(OptionError, match=r"ends in .html"):
        ad.review(tmp_path / "page.txt")
    assert page_of(Path("Models/nut.v2")) == Path("Models/nut.v2-review.html")
    assert page_of(Path()) == Path.cwd().with_name(f"{Path.cwd().name}-review.html")


def test_a_model_of_a_former_version_says_what_to_do():
    with pytest.raises(ModelError, match="Train it again"):
        AD(FORMAT_1).review()


@pytest.mark.slow
def test_training_without_them(ad, without_odd, parts, capsys):
    directory, said = without_odd
    stored = AD(directory).model
    assert "Excluded by the user: 2; 22 are left." in said
    training, calibration = stored.manifest.training, stored.manifest.calibration
    assert [one["name"] for one in training["excluded"]] == sorted(ODD)
    (own,) = ad.model.manifest.training["sets"]
    before = dict(zip(own["names"], own["digests"], strict=True))
    assert all(one["digest"] == before[one["name"]] for one in training["excluded"])
    assert not {*ODD} & {*training["sets"][0]["names"]} and training["n_fit"] == 22
    promise = "at most 4.3% of good parts like the 22 kept exceed it"
    assert calibration.promise == promise and f"{promise}." in said
    assert calibration.image.limit < 0.8 * ad.model.manifest.calibration.image.limit
    assert not page_of(directory).exists()
    out, _ = run_command("info", directory)
    assert f"excluded  2 by the user: {LINES[0]}, " in out and promise in out


@pytest.mark.slow
def test_what_is_excluded_stays_so(without_odd, parts, tmp_path, capsys):
    directory = shutil.copytree(without_odd[0], tmp_path / "copy")
    ad = AD(directory)
    ad.calibrate(false_alarm_rate=0.1, review=True)
    assert "of good parts like the 22 kept exceed it" in capsys.readouterr().out
    assert data_of(page_of(directory))["excluded"] == sorted(LINES)
    assert "2 images were excluded" in page_of(directory).read_text(encoding="utf-8")
    with pytest.raises(DataError, match="or they were excluded from its training"):
        ad.add_images(parts)
    more = write_parts(tmp_path / "more", 3, first=50)
    shutil.copyfile(parts / ODD[0], more / "again.png")
    ad.add_images(more)
    assert "like the 25 kept" in ad.model.manifest.calibration.promise
    found = odd_images(ad.model)
    assert len(found.good) == 25 and "again.png" not in {one.name for one in found.images}
    assert {one.path.parent for one in found.images} <= {parts, more}
    assert all(one.anomaly_map is not None for one in found.images)


@pytest.mark.slow
def test_copies_of_what_is_excluded_are_left_out_and_a_damaged_file_can_be(parts, tmp_path, capsys):
    folder = shutil.copytree(parts, tmp_path / "parts")
    shutil.copyfile(folder / ODD[0], folder / "twin.png")
    (folder / "torn.png").write_bytes(b"no image")
    ad = AD("padim", folder, save_path=tmp_path, **SMALL)
    ad.train(exclude=[ODD[0], "torn.png"], review=False)
    assert ad.model.manifest.excluded["torn.png"] is None
    assert "twin.png" not in ad.model.manifest.training["sets"][0]["names"]
    with pytest.raises(DataError, match="do not match exactly one of the 26 training images"):
        ad.train(exclude=["none.png"])
    with pytest.raises(DataError, match="at least 10 images of good parts; 9 were found"):
        ad.train(exclude=[f"{n:03d}.png" for n in range(17)])


def test_the_command_to_train_again(ad, parts, monkeypatch):
    words = shlex.split(command(ad.model))
    assert words[:3] == ["anomaly-ad", "train", str(parts)]
    assert words[-2:] == ["--exclude", "exclude.txt"]
    home = str(ad.model.directory.parent)
    given = " ".join(words[3:-2])
    assert (
        given == f"--detector padim --save-path {home} --name line --img-size 64 64 --patch-size 16"
    )
    monkeypatch.chdir(home)
    (own,) = ad.model.manifest.training["sets"]

    def told(**changed):
        plan = replace(ad.model.manifest.plan, **changed.pop("plan", {}))
        training = {"sets": [{**own, **changed}]}
        manifest = replace(ad.model.manifest, plan=plan, training=training)
        return command(replace(ad.model, manifest=manifest, directory=Path("Models/model")))

    assert "--save-path" not in told() and "--name" not in told()
    own_plan = ad.model.manifest.plan
    options = told(
        plan={"seed": 3, "parameters": {**own_plan.parameters, "blur": 2.0}}, grouped_by="p([0-9])"
    )
    assert "--seed 3 --option blur=2.0 --groups 'p([0-9])'" in options
    in_python = 'ad.train(exclude="exclude.txt")'
    assert told(grouped_by="labels") == told(listed=True) == in_python
    assert told(plan={"parameters": {**own_plan.parameters, "backbone": "own:1"}}) == in_python
    # A command that left these out would train another model.
    framing = own_plan.framing
    tiled = replace(framing, tiles=Tiles((128, 128), 64, 64, 2, 2))
    lit = replace(framing, light=Light(100.0, 50.0))
    assert told(plan={"framing": tiled}) == told(plan={"framing": lit}) == in_python
    deep = replace(framing, deep=True, value_range=(0, 4095))
    assert "--value-range 0 4095" in told(plan={"framing": deep})


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, np.arange(24) // 3])
def test_unticking_takes_the_limit_that_python_takes(groups, browser, ad, tmp_path, monkeypatch):
    original = ad.model.good_scores()
    good = replace(original, groups=groups)
    monkeypatch.setattr(StoredModel, "good_scores", lambda self, **_: good)
    found = ad.review(tmp_path / "page.html").found
    browser.get((tmp_path / "page.html").as_uri())
    boxes = browser.find_elements("css selector", "[data-n]")
    assert found.images[0].limit_without is not None
    out = set()
    for n in (0, 1, 5, 2, 17, 5, 0):
        boxes[n].send_keys(" ")  # the keyboard is enough
        out ^= {n}
        kept = np.delete(np.arange(24), [found.images[k].index for k in out])
        limit = good.subset(kept).calibration(found.rate).image.limit
        text = browser.find_element("id", "sum-text").text
        assert text.endswith(f"without the {len(out)} unticked: {limit:.4g} (estimate)")
        assert text.startswith(f"Limit with all 24 images: {found.limit:.4g}")
    listed = browser.find_element("id", "list").get_property("value").splitlines()
    assert listed == [data_of(tmp_path / "page.html")["images"][n]["line"] for n in sorted(out)]
    words = [box.find_element("xpath", "..").text for box in boxes]
    assert [n for n, word in enumerate(words) if word == "Leave out"] == sorted(out)
    assert words.count("Good part") == 24 - len(out)


@pytest.mark.slow
def test_the_images_of_a_method_that_learns_by_gradient(parts, tmp_path):
    """Those that were held back, each under its own name."""
    ad = AD("AD0", parts, save_path=tmp_path, **SMALL).train(1)
    found = odd_images(ad.model)
    assert len(found.good) == len(found.images) == ad.model.manifest.training["n_calibration"]
    for image in found.images:
        one = ad.predict(image.path, save=False)
        assert one.raw_score == pytest.approx(image.raw_score, rel=1e-4)
        assert image.anomaly_map is not None and image.anomaly_map.shape == (64, 64)
    assert page_of(ad.model.directory).is_file()


@pytest.mark.slow
def test_a_method_without_maps_has_photographs_only(parts, tmp_path):
    ad = AD("dfkde", parts, save_path=tmp_path, **SMALL).train()
    text = page_of(ad.model.directory).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 24 and "data:image/webp" not in text
    assert "<rect" not in text.partition("<main>")[2].partition("<script")[0]
