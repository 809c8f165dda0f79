"""The report: written by Python, looked at in a browser."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
pytest.importorskip("jinja2", reason="needs the extra 'eval'")

from anomaly_ad import AD
from anomaly_ad.calibration import Limit
from anomaly_ad.errors import DataError, MissingExtraError, OptionError
from anomaly_ad.evaluation import evaluate
from anomaly_ad.intervals import wilson
from anomaly_ad.labelled import find_labelled
from anomaly_ad.report import album, probe


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("report_model")
    folder = write_parts(root / "good", 20)
    return AD("padim", folder, save_path=root, img_size=(64, 64)).train()


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Good parts, two kinds of defects, a torn file, and a name that is markup."""
    root = tmp_path_factory.mktemp("judged") / "line <3>"
    write_parts(root / "good", 12, first=100)
    write_parts(root / "bar", 6, first=200, defect=True)
    for n in range(3):
        image = draw_part(300 + n)
        image[30:32, 10:12] = 160  # hardly to be seen
        write_image(root / "speck" / f"{n}.png", image)
    write_image(root / "bar" / "</script><b>.png", draw_part(400, defect=True))
    (root / "bar" / "torn.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def page(model, judged, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "report.html"
    evaluation = model.evaluate(judged, report=target)
    return target, evaluation


def data_of(target):
    text = target.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def put_limit(browser, value):
    browser.execute_script(
        "const e = document.getElementById('limit'); e.value = arguments[0];"
        "for (const n of ['input', 'change']) e.dispatchEvent(new Event(n, { bubbles: true }));",
        value,
    )


def shown(browser, selector):
    return [e.text for e in browser.find_elements("css selector", selector)]


def cards(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('.card')].map(c => ["
        "c.querySelector('.name').title, c.querySelector('.tag').textContent])"
    )


def choose(browser, name, value):
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('change'));",
        name,
        value,
    )


def test_the_page_says_what_evaluate_says(model, judged, page, capsys):
    target, evaluation = page
    plain = evaluate(model.model, find_labelled(judged), threshold=0.8)
    assert evaluation == plain
    text = target.read_text(encoding="utf-8")
    for tile, count, total in (
        ("good", evaluation.rejected, 12),
        ("bad", evaluation.n_defective - evaluation.found, evaluation.n_defective),
    ):
        part = text.partition(f'data-tile="{tile}"')[2][:400]
        assert f"data-count>{count}<" in part and f"of {total} " in part
    assert f"{evaluation.auroc.value:.4f}" in text and model.model.digest in text
    assert "1 images could not be inspected" in text
    assert "One image, file to verdict" in text and "MB</dd>" in text
    for warning in evaluation.warnings[:1]:
        assert warning.partition(":")[0] in text
    data = data_of(target)
    by_name = {image["name"]: image for image in data["images"]}
    assert len(by_name) == len(data["images"]) == 23
    assert by_name["bar/torn.png"]["error"] and by_name["bar/torn.png"]["raw"] is None
    one = model.predict(judged / "bar" / "200.png", save=False)
    assert by_name["bar/200.png"]["raw"] == one.raw_score
    assert by_name["bar/200.png"]["boxes"] == one.boxes.tolist()


def test_the_page_needs_nothing_else(page):
    text = page[0].read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "<b>" not in text and "&lt;3&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "@import" not in text and "http-equiv" in text
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_slider_counts_what_python_counts(browser, model, judged, page):
    browser.get(page[0].as_uri())
    limit = model.model.manifest.calibration.image
    data = data_of(page[0])
    scores = sorted(i["score"] for i in data["images"] if i["error"] is None)
    for value in (0.0, 0.8, 0.999, round(scores[4], 3), round(scores[-3], 3)):
        put_limit(browser, value)
        expected = evaluate(model.model, find_labelled(judged), threshold=value)
        counts = [int(text) for text in shown(browser, "[data-count]")]
        assert counts == [expected.rejected, expected.n_defective - expected.found], value
        for row, kind in zip(
            browser.find_elements("css selector", "#kinds tbody tr"), expected.kinds, strict=True
        ):
            cells = [cell.text for cell in row.find_elements("css selector", "th, td")]
            rate = wilson(kind.found / kind.n_images, kind.n_images)
            assert cells[:5] == [
                kind.name,
                str(kind.n_images),
                str(kind.found),
                str(kind.n_images - kind.found),
                rate.text(100, 1),
            ]
        interval = shown(browser, "[data-interval]")[0]
        assert interval == wilson(expected.rejected / 12, 12).text(100, 1) + " %"
        raw = browser.find_element("id", "raw-value").text.rstrip(".").split()[-1]
        assert float(raw) == pytest.approx(limit.raw(value), rel=1e-5)
        wrong = [name for name, tag in cards(browser) if tag in ("MISSED", "FALSE ALARM")]
        assert len(wrong) == sum(counts)
    browser.find_element("id", "reset").click()
    assert browser.find_element("id", "limit-value").text == "0.80"


def test_a_threshold_of_the_run_is_the_one_of_the_page(browser, model, judged, tmp_path):
    found = model.evaluate(judged, thresh=0.12345, report=tmp_path / "r.html")
    browser.get((tmp_path / "r.html").as_uri())
    assert browser.find_element("id", "limit-value").text == "0.12345"
    assert int(shown(browser, "[data-count]")[0]) == found.rejected


def test_the_gallery_sorts_and_filters(browser, page):
    browser.get(page[0].as_uri())
    data = data_of(page[0])
    names = {image["name"]: image for image in data["images"]}
    assert len(cards(browser)) == len(names)
    put_limit(browser, 0.5)
    wrong = [tag in ("MISSED", "FALSE ALARM") for _, tag in cards(browser)]
    assert wrong == sorted(wrong, reverse=True)  # worst first
    choose(browser, "order", "Highest score first")
    scores = [names[name]["score"] or -1 for name, _ in cards(browser)]
    assert scores == sorted(scores, reverse=True)
    choose(browser, "order", "Name")
    assert [name for name, _ in cards(browser)] == sorted(names)
    choose(browser, "show", "Good parts")
    assert {names[name]["kind"] for name, _ in cards(browser)} == {"good"}
    choose(browser, "show", "Not inspected")
    assert cards(browser) == [["bar/torn.png", "not inspected"]]
    choose(browser, "show", "All")
    choose(browser, "kind", "speck")
    assert len(cards(browser)) == 3
    browser.find_element("id", "name").send_keys("2.PNG")
    assert [name for name, _ in cards(browser)] == ["speck/2.png"]
    browser.find_element("id", "name").send_keys("x")
    assert browser.find_element("id", "shown").text == "No picture is like that."
    heads = browser.find_elements("css selector", "#kinds thead button")
    heads[1].click()
    assert shown(browser, "#kinds tbody th") == ["speck", "bar"]
    heads[1].click()
    assert shown(browser, "#kinds tbody th") == ["bar", "speck"]


def test_pictures_have_heat_and_boxes_and_open_by_key(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.get(page[0].as_uri())
    choose(browser, "show", "Defective parts")
    choose(browser, "order", "Highest score first")
    first = browser.find_element("css selector", ".card")
    assert first.find_elements("css selector", "img.heat, svg rect")
    complete = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert browser.execute_script(complete)
    first.send_keys(Keys.ENTER)
    title = browser.find_element("id", "large-name").text
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element("id", "large-name").text != title
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert browser.find_element("id", "large-name").text == title
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.find_element("id", "large").is_displayed()
    browser.find_element("id", "boxes").send_keys(Keys.SPACE)
    visible = browser.find_elements("css selector", ".card svg")
    assert visible and not any(svg.is_displayed() for svg in visible)
    browser.find_element("id", "limit").send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element("id", "limit-value").text == "0.801"


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(browser, page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(page[0].as_uri())
        wide = "return document.documentElement.scrollWidth"
        assert browser.execute_script(wide) <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_images_that_nobody_has_judged(browser, model, judged, tmp_path, capsys):
    folder = tmp_path / "today"
    shutil.copytree(judged / "bar", folder)
    counts = model.report(folder, tmp_path / "r.html")
    printed = capsys.readouterr().out
    assert counts["errors"] == 1 and f"Wrote {tmp_path / 'r.html'}" in printed
    browser.get((tmp_path / "r.html").as_uri())
    anomalous = counts["anomalous"]
    assert shown(browser, "[data-count]") == [str(anomalous)]
    assert "parts are anomalous" in browser.find_element("css selector", ".tile-count").text
    assert not browser.find_elements("id", "roc")
    put_limit(browser, 0)
    limit = model.model.manifest.calibration.image
    above = sum((i["raw"] or -1) > limit.raw(0) for i in data_of(tmp_path / "r.html")["images"])
    assert shown(browser, "[data-count]") == [str(above)]


def test_what_predict_has_written_is_inspected_again(model, judged, tmp_path):
    model.predict(judged / "speck", tmp_path / "out")
    model.predict(judged / "bar", tmp_path / "out")
    counts = model.report(tmp_path / "out", tmp_path / "out" / "report.html")
    assert counts.total() == 8
    names = {image["name"] for image in data_of(tmp_path / "out" / "report.html")["images"]}
    assert "torn.png" in names and "0.png" not in names
    model.predict(np.stack([draw_part(1)]), tmp_path / "arrays")
    with pytest.raises(DataError, match="names no files"):
        model.report(tmp_path / "arrays", tmp_path / "r.html")


def test_images_of_the_training_are_told(model, tmp_path):
    folder = write_parts(tmp_path / "mixed" / "good", 3)
    write_parts(folder.parent / "bar", 2, first=200, defect=True)
    model.evaluate(folder.parent, report=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "3 of these images were in the training" in text


def test_a_method_without_maps_has_photographs_only(browser, tmp_path):
    folder = write_parts(tmp_path / "good", 16)
    ad = AD("dfkde", folder, save_path=tmp_path, img_size=(64, 64)).train()
    write_parts(tmp_path / "new", 3, first=200, defect=True)
    ad.report(tmp_path / "new", tmp_path / "r.html")
    browser.get((tmp_path / "r.html").as_uri())
    assert len(browser.find_elements("css selector", ".card img.photo")) == 3
    assert not browser.find_elements("css selector", ".card img.heat, .card svg")


def test_where_a_report_may_not_go(model, judged, tmp_path, monkeypatch):
    for target in (judged / "report.html", judged / "deeper" / "report.html"):
        with pytest.raises(OptionError, match="in the folder that it is about"):
            model.report(judged, target)
    (tmp_path / "link").symlink_to(judged)
    with pytest.raises(OptionError, match="in the folder that it is about"):
        model.report(judged, tmp_path / "link" / "report.html")
    with pytest.raises(OptionError, match=r"ends in \.html"):
        model.report(judged, tmp_path / "report.png")
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(probe, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.report(judged, tmp_path / "report.html")
    assert sorted(os.listdir(tmp_path)) == before
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"anomaly-ad\[eval\]"):
        model.report(judged, tmp_path / "report.html")


def test_the_command(model, judged, tmp_path):
    from test_cli import run

    out, err = run("report", model.model.directory, judged, "--output", tmp_path / "r.html", code=1)
    assert out == f"{tmp_path / 'r.html'}\n" and "good parts" in err
    target = tmp_path / "e.html"
    run("evaluate", model.model.directory, judged, "--report", target, code=1)
    assert data_of(target)["images"] == data_of(tmp_path / "r.html")["images"]


def test_speed_that_cannot_be_measured_is_none(tmp_path):
    assert probe.measure(tmp_path / "none", []) is None


def entry(kind, raw, threshold=0.8):
    from pathlib import Path

    from anomaly_ad.prediction import Prediction

    limit = Limit(0, 1, 100, 0.01, 0.01)
    no_boxes = np.empty((0, 4), np.int32)
    said = Prediction("x", (8, 8), float(limit.score(raw)), raw, threshold, raw > 1, None, no_boxes)
    return album.Entry(Path("x"), kind, said, 0, (0, 0))


def test_of_too_many_the_wrong_ones_are_shown_first():
    entries = [entry("good", 0.1), entry("good", 3), entry("bar", 0.5), entry("bar", 5)]
    assert album.chosen(entries, 2) == {1, 2}
    assert album.chosen(entries, 3) == {1, 2, 3}
    assert album.chosen(entries) == {0, 1, 2, 3}


def test_pictures_of_many_images_are_small(model):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (512, 512, 3), np.uint8)
    many = album.Album(model.model, 5000)
    photo = many._photo(noise, many._size(noise.shape[:2]))
    assert len(photo) < 60e6 / 5000 / 4 * 3
    assert max(album.Album(model.model, 10)._size((300, 600))) == 400
    assert album.Album(model.model, 10)._size((30, 60)) == (30, 60)
