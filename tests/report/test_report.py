"""The report: written by Python, looked at in a browser."""

import base64
import dataclasses
import hashlib
import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts
from sklearn.metrics import auc

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.drawing import colours
from anomaly_ad.errors import DataError, OptionError, OutputError
from anomaly_ad.evaluation.figures import evaluate
from anomaly_ad.evaluation.intervals import wilson
from anomaly_ad.images.labelled import find_labelled
from anomaly_ad.inspection import probe
from anomaly_ad.inspection.prediction import Prediction
from anomaly_ad.model.calibration import Limit
from anomaly_ad.report import thumbnails


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("report_model")
    folder = write_parts(root / "good", 20)
    return AD("padim", folder, save_path=root, img_size=(64, 64)).train()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Good parts, two kinds of defects, a torn file, and a name that is markup."""
    root = tmp_path_factory.mktemp("labelled") / "line <3>"
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
def page(model, labelled, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "report.html"
    evaluation = model.evaluate(labelled, report=target)
    return target, evaluation


def data_of(target):
    text = target.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def numbered(target):
    return [{**image, "n": n} for n, image in enumerate(data_of(target)["images"])]


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


def wait_for(browser, what):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: what())


MARKED = """
const marked = (card) => {
  const canvas = card.querySelector("canvas.heat");
  if (!canvas || !canvas.width) return null;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const coloured = data.some((value, n) => n % 4 === 3 && value > 0);
  return coloured === Boolean(card.querySelector("svg rect")) ? coloured : "colours without a box";
};
return [...document.querySelectorAll(".card")].map((card) =>
  [card.querySelector(".name").title, card.querySelector(".tag").textContent, marked(card)]);
"""


def move_limit(browser, value, kinds=("input", "change")):
    browser.execute_script(
        "const e = document.getElementById('limit'); e.value = arguments[0];"
        "for (const kind of arguments[1]) e.dispatchEvent(new Event(kind));",
        value,
        kinds,
    )


def test_marks_follow_the_limit(browser, page, model, labelled):
    """In the page, and alike in what predict says: what is rejected has a mark, no other."""
    browser.get(page[0].as_uri())
    for threshold in (0.3, 0.8, 0.95):
        move_limit(browser, threshold)
        inspected = [name for name, *_ in cards(browser) if not name.endswith("torn.png")]
        wait_for(
            browser,
            lambda names=inspected: all(
                mark is not None
                for name, _, mark in browser.execute_script(MARKED)
                if name in names
            ),
        )
        for name, tag, mark in browser.execute_script(MARKED):
            if name not in inspected:
                continue
            expected = model.predict(labelled / name, save=False, thresh=threshold)
            assert (tag in ("FALSE ALARM", "found")) == expected.is_anomalous == mark, name
            assert bool(expected.regions) == bool(len(expected.boxes)) == expected.is_anomalous
    # While the slider still moves, too, of what is seen.
    browser.execute_script("document.getElementById('gallery').scrollIntoView()")
    move_limit(browser, 0.0, ["input"])
    seen = browser.execute_script(
        "return [...document.querySelectorAll('.card')].map((card) => card.getBoundingClientRect())"
        ".map(({ top, bottom }) => bottom > 0 && top < innerHeight)"
    )
    told = [
        one for one, is_seen in zip(browser.execute_script(MARKED), seen, strict=True) if is_seen
    ]
    assert len(told) > 3
    for name, tag, mark in told:
        assert mark in (None, tag in ("FALSE ALARM", "found")), name


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.8, 0.95])
def test_the_page_colours_as_pictures_do(browser, page, threshold):
    browser.get(page[0].as_uri())
    table = np.array(browser.execute_script("return heatTable(arguments[0])", threshold))
    scores = np.linspace(0, 1, 192)[None, :-1].astype(np.float32)  # of the levels from 64 on
    marks = np.ones(scores.shape, np.bool_)
    expected = colours(scores, marks, threshold)[0]
    assert np.abs(table[64:-1] - expected).max() <= 6  # of 255, by steps of 1,025 values
    assert np.ptp(expected[..., 1]) > 200


def test_a_limit_can_be_taken_over(browser, page, model):
    """As a command with the raw score at the slider; the best one is marked and one press away."""
    browser.get(page[0].as_uri())
    assert not browser.find_element("id", "set-it").is_displayed()
    browser.find_element("id", "best").click()
    best = data_of(page[0])["best"]
    raw = model.model.manifest.calibration.image.raw(best)
    command = browser.find_element("id", "command").text
    assert command == f"anomaly-ad calibrate {model.model.directory} --limit {raw}"
    assert browser.find_elements("css selector", "#histogram .best")


def test_curves_of_detection_are_drawn(browser, model, labelled, tmp_path):
    from anomaly_ad.evaluation import detection_curve

    found = detection_curve(
        model.model, labelled, kinds=["spot", "patch"], mm_per_pixel=0.5, renders=(40, 40)
    )
    target = tmp_path / "report.html"
    model.report(labelled, target, detection=found)
    browser.get(target.as_uri())
    names = [e.text for e in browser.find_elements("css selector", "#pod figcaption")]
    assert names == ["spot", "patch"]
    ticks = browser.find_elements("css selector", "#pod figure:first-child .tick")
    assert len(ticks) == 40
    text = browser.find_element("id", "pod-title").find_element("xpath", "..").text
    for line in (*found.curves[0].row(0.5), "RENDERED", "a90, mm"):
        assert line in text
    other = dataclasses.replace(found, model="0" * 64)
    with pytest.raises(OptionError, match="of another model"):
        model.report(labelled, target, detection=other)


def test_masks_are_drawn(browser, model, tmp_path):
    write_parts(tmp_path / "test" / "good", 2, first=100)
    write_parts(tmp_path / "test" / "bar", 1, first=200, defect=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:32, 8:40] = 255
    write_image(tmp_path / "ground_truth" / "bar" / "200_mask.png", mask)
    target = tmp_path.with_name(f"{tmp_path.name}-report") / "report.html"
    model.evaluate(tmp_path, report=target)
    (outline,) = (image["mask"] for image in data_of(target)["images"] if image["mask"])
    (corners,) = np.array(outline).reshape(len(outline), -1, 2)
    assert corners.min(axis=0).tolist() == [8, 16] and corners.max(axis=0).tolist() == [40, 32]
    browser.get(target.as_uri())
    assert len(browser.find_elements("css selector", ".card .mask")) == 1


def test_the_page_says_what_evaluate_says(model, labelled, page):
    """Before any script runs, too."""
    target, evaluation = page
    plain = evaluate(model.model, find_labelled(labelled), threshold=0.8)
    assert evaluation == plain
    text = target.read_text(encoding="utf-8")
    missed = evaluation.n_defective - evaluation.found
    for tile, count, total in (
        ("good", evaluation.rejected, 12),
        ("bad", missed, evaluation.n_defective),
    ):
        part = text.partition(f'data-tile="{tile}"')[2][:600]
        assert f"data-count>{count}<" in part and f"of {total} " in part
        assert f"data-interval>{wilson(count / total, total).text(100, 1)} %<" in part
    for name in ("auroc", "average_precision", "f1", "best_f1"):
        found = getattr(evaluation, name)
        assert f"{found.value:.4f}</td>" in text
        assert f"{found.low:.4f} to {found.high:.4f}</td>" in text
    assert text.count("not computed: there are no masks") == 2
    for kind in evaluation.kinds:
        assert f">{kind.auroc.value:.4f}<" in text
        assert f">{kind.detection_rate.text(100, 1)}<" in text
    assert "1 image could not be inspected and is not counted" in text
    assert "The run was made at 0.8." in text
    for warning in evaluation.warnings:
        assert warning.split(" (")[0][:40] in text.replace("&lt;", "<")
    data = data_of(target)
    by_name = {image["name"]: image for image in data["images"]}
    assert len(by_name) == len(data["images"]) == 23
    assert by_name["bar/torn.png"]["error"] and by_name["bar/torn.png"]["raw"] is None
    one = model.predict(labelled / "bar" / "200.png", save=False)
    assert by_name["bar/200.png"]["raw"] == one.raw_score
    assert data["best"] == evaluation.best_f1_threshold


def rates_of(target):
    """Headings and rows of the table of limits for other false alarm rates, as texts."""
    text = target.read_text(encoding="utf-8")
    table = text.partition('<table id="rates">')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in table.split("</tr>")[:-1]]
    return [[html.unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in rows]


def test_limits_for_other_rates_are_shown_with_what_they_do(model, labelled, page, tmp_path):
    heads, *rows = rates_of(page[0])
    assert heads[1:] == [
        "Limit, raw score",
        "Good images it needs",
        "Good rejected",
        "Defective found",
    ]
    assert rows == [
        [
            f"{row.rate:.1%}".replace("%", " %") + (" this model" if row.is_present else ""),
            f"{row.limit:.6g}",
            f"{row.images_needed}" + (", too few so far" if row.stated_rate > row.rate else ""),
            f"{row.rejected} of 12",
            f"{row.found} of {page[1].n_defective}",
        ]
        for row in page[1].rates
    ]
    assert rows[0][2] == "199, too few so far" and rows[1][0] == "1.0 % this model"
    command = f"anomaly-ad calibrate {model.model.directory} --false-alarm-rate RATE"
    text = html.unescape(page[0].read_text(encoding="utf-8"))
    assert command in text
    # Without labels: how many lie beyond. The model's own limit rejects what it calls anomalous.
    target = tmp_path / "plain.html"
    counts = model.report(labelled / "bar", target)
    heads, *rows = rates_of(target)
    assert heads[3:] == ["Anomalous"]
    assert rows[1][3] == f"{counts['anomalous']} of {counts['anomalous'] + counts['good']}"


@pytest.mark.slow
def test_the_command_for_a_better_limit_is_on_the_page(model, labelled, tmp_path):
    own = AD(model.model.directory, save_path=tmp_path / "own")
    own.calibrate(limit=1e6)
    found = own.evaluate(labelled, report=tmp_path / "r.html")
    assert found.found == 0 and found.next_step is not None
    text = html.unescape((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert found.next_step in text and "this model" not in text


def fact(target, name):
    text = target.read_text(encoding="utf-8")
    return re.findall(rf"<dt>{re.escape(name)}</dt><dd>(.*?)</dd>", text)[0]


@pytest.mark.slow
def test_what_was_measured_is_told(model, labelled, page, tmp_path):
    stored = model.model
    size = sum(file.stat().st_size for file in stored.directory.iterdir())
    assert float(fact(page[0], "Size").removesuffix(" MB")) == pytest.approx(size / 1e6, rel=0.1)
    assert fact(page[0], "Digest") == stored.digest
    assert fact(page[0], "Fingerprint of these") == stored.manifest.training["images"][:16]
    assert fact(page[0], "openvino") == stored.manifest.versions["openvino"]
    assert fact(page[0], "Decision limit (0.8)").startswith(
        f"raw score {stored.manifest.calibration.image.limit:.6g}, from 20 good images of the "
    )
    assert 0.5 < float(fact(page[0], "One image, file to verdict").split()[0]) < 1000
    assert 0.1 < float(fact(page[0], "New process to first verdict").split()[0]) < 60
    assert 60 < float(fact(page[0], "Peak memory of inspecting").split()[0]) < 2000
    same = labelled.parent / "copy"
    shutil.copytree(labelled, same)
    model.evaluate(same, report=tmp_path / "same.html")
    assert fact(tmp_path / "same.html", "Fingerprint") == fact(page[0], "Fingerprint")
    (same / "speck" / "0.png").rename(same / "good" / "0.png")  # labelled otherwise
    model.evaluate(same, report=tmp_path / "other.html")
    assert fact(tmp_path / "other.html", "Fingerprint") != fact(page[0], "Fingerprint")


def test_the_page_needs_nothing_else_and_runs_nothing_else(page):
    text = page[0].read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digests = [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (style, script)
    ]
    assert html.unescape(policy) == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    assert "<b>" not in text and "&lt;3&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.mark.slow
def test_the_slider_counts_what_python_counts(browser, model, labelled, page):
    browser.get(page[0].as_uri())
    limit = model.model.manifest.calibration.image
    data = data_of(page[0])
    scores = sorted(i["score"] for i in data["images"] if i["error"] is None)
    for value in (0.0, 0.8, 0.999, round(scores[4], 3), round(scores[-3], 3)):
        put_limit(browser, value)
        expected = evaluate(model.model, find_labelled(labelled), threshold=value)
        missed = expected.n_defective - expected.found
        counts = [int(text) for text in shown(browser, "[data-count]")]
        assert counts == [expected.rejected, missed], value
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
        assert shown(browser, "[data-interval]") == [
            wilson(count / total, total).text(100, 1) + " %"
            for count, total in ((expected.rejected, 12), (missed, expected.n_defective))
        ]
        raw = browser.find_element("id", "raw-value").text.rstrip(".").split()[-1]
        assert float(raw) == pytest.approx(limit.raw(value), rel=1e-5)
        wrong = [name for name, tag in cards(browser) if tag in ("MISSED", "FALSE ALARM")]
        assert len(wrong) == sum(counts)
        told = browser.find_element("id", "live").get_attribute("textContent")
        assert all(f"{count} of " in told for count in counts)
        # The line in the histogram stands where the slider does.
        mark, first = (
            float(browser.find_element("css selector", f"#histogram .{name}").get_attribute("x1"))
            for name in ("mark", "grid")
        )
        width = browser.execute_script("return document.getElementById('histogram').clientWidth")
        assert mark == pytest.approx(first + value * (width - 16), abs=0.01)
    browser.find_element("id", "reset").click()
    assert browser.find_element("id", "limit-value").text == "0.80"


def test_a_score_at_the_limit_is_not_rejected(browser, page, tmp_path):
    """As in Python, where raw scores are compared by >."""
    text = page[0].read_text(encoding="utf-8")
    data = data_of(page[0])
    one = next(i for i in data["images"] if i["kind"] == "bar" and i["raw"] is not None)
    moved = text.replace(
        f'"limit":{json.dumps(data["limit"])}', f'"limit":{json.dumps(one["raw"])}'
    )
    assert moved != text
    (tmp_path / "r.html").write_text(moved, encoding="utf-8")
    browser.get((tmp_path / "r.html").as_uri())
    raws = [i["raw"] for i in data["images"] if i["error"] is None and i["kind"] != "good"]
    missed = sum(raw <= one["raw"] for raw in raws)
    assert int(shown(browser, "[data-count]")[1]) == missed


def test_shares_are_rounded_as_python_rounds_them(browser, page):
    """Halves go to the even digit: 1 of 16 is 6.2 %."""
    text = page[0].read_text(encoding="utf-8")
    function = re.findall(r"function perCent\(share\) \{.*?\n  \}", text, re.DOTALL)[0]
    pairs = [(k, n) for n in (8, 12, 16, 32, 48, 63, 80, 400) for k in range(n + 1)]
    browser.get("about:blank")
    said = browser.execute_script(
        f"{function}; return arguments[0].map(([k, n]) => perCent(k / n));", pairs
    )
    assert said == [f"{100 * (k / n):.1f}" for k, n in pairs]


def points(browser, home):
    path = browser.find_element("css selector", f"#{home} .curve").get_attribute("d")
    svg = browser.find_element("css selector", f"#{home} svg")
    label = svg.get_attribute("aria-label")
    pairs = np.array([[float(x) for x in pair.split()] for pair in re.split("[ML]", path)[1:]])
    return (pairs - [46, 258]) / [300 - 46 - 8, -(300 - 34 - 8) + 8], label


def test_the_curves_are_those_of_the_figures(browser, page):
    browser.get(page[0].as_uri())
    evaluation = page[1]
    roc, label = points(browser, "roc")
    assert auc(roc[:, 0], roc[:, 1]) == pytest.approx(evaluation.auroc.value, abs=2e-3)
    assert f"{100 * evaluation.rejection_rate.value:.1f} %" in label
    precision, _ = points(browser, "pr")
    area = auc(precision[:, 0], precision[:, 1])
    assert area == pytest.approx(evaluation.average_precision.value, abs=2e-3)
    dot = browser.find_element("css selector", "#roc .dot")
    assert float(dot.get_attribute("cx")) == pytest.approx(
        46 + 246 * evaluation.rejection_rate.value, abs=0.1
    )
    bars = {
        name: browser.find_elements("css selector", f"#histogram rect.{name}")
        for name in ("good", "bad")
    }
    for name, count in (("good", 12), ("bad", evaluation.n_defective)):
        titles = [bar.get_attribute("textContent") for bar in bars[name]]
        assert sum(int(title.split()[0]) for title in titles) == count
        kind = {"good": "good images", "bad": "defective images"}[name]
        assert all(kind in title for title in titles)


def test_a_threshold_of_the_run_is_the_one_of_the_page(browser, model, labelled, tmp_path):
    found = model.evaluate(labelled, thresh=0.12345, report=tmp_path / "r.html")
    browser.get((tmp_path / "r.html").as_uri())
    assert browser.find_element("id", "limit-value").text == "0.12345"
    assert int(shown(browser, "[data-count]")[0]) == found.rejected


def test_the_gallery_sorts_and_filters(browser, page):
    browser.get(page[0].as_uri())
    data = data_of(page[0])
    names = {image["name"]: image for image in data["images"]}
    assert len(cards(browser)) == len(names)
    put_limit(browser, 0.5)

    def wrong(name):
        one = names[name]
        return one["error"] is None and (one["score"] > 0.5) != (one["kind"] != "good")

    def distance(name):
        return abs((names[name]["score"] or -1) - 0.5)

    in_order = [name for name, _ in cards(browser)]
    n_wrong = sum(map(wrong, names))
    assert set(in_order[:n_wrong]) == set(filter(wrong, names))
    assert in_order[:n_wrong] == sorted(in_order[:n_wrong], key=distance, reverse=True)
    assert in_order[n_wrong:] == sorted(in_order[n_wrong:], key=distance)
    scores = {name: names[name]["score"] if names[name]["error"] is None else -1 for name in names}
    for order, sign in (("Highest score first", -1), ("Lowest score first", 1)):
        choose(browser, "order", order)
        said = [sign * scores[name] for name, _ in cards(browser)]
        assert said == sorted(said)
    choose(browser, "order", "Name")
    assert [name for name, _ in cards(browser)] == sorted(names)
    labelled = {n: i for n, i in names.items() if i["error"] is None}
    expected = {
        "False alarms and misses": {n for n in labelled if wrong(n)},
        "False alarms": {n for n in labelled if wrong(n) and labelled[n]["kind"] == "good"},
        "Misses": {n for n in labelled if wrong(n) and labelled[n]["kind"] != "good"},
        "Good parts": {n for n in names if names[n]["kind"] == "good"},
        "Defective parts": {n for n in names if names[n]["kind"] != "good"},
        "Rejected": {n for n in labelled if labelled[n]["score"] > 0.5},
        "Passed": {n for n in labelled if labelled[n]["score"] <= 0.5},
        "Not inspected": {"bar/torn.png"},
        "All": set(names),
    }
    options = shown(browser, "#show option")
    assert sorted(options) == sorted(expected)
    for which, some in expected.items():
        choose(browser, "show", which)
        assert {name for name, _ in cards(browser)} == some, which
    choose(browser, "kind", str(data["kinds"].index("speck")))
    assert len(cards(browser)) == 3
    browser.find_element("id", "name").send_keys("2.PNG")
    assert [name for name, _ in cards(browser)] == ["speck/2.png"]
    browser.find_element("id", "name").send_keys("x")
    assert browser.find_element("id", "shown").text == "No pictures match."
    heads = browser.find_elements("css selector", "#kinds thead button")
    heads[1].click()
    assert shown(browser, "#kinds tbody th") == ["speck", "bar"]
    heads[1].click()
    assert shown(browser, "#kinds tbody th") == ["bar", "speck"]


def test_tags_follow_the_slider_while_it_is_dragged(browser, page):
    browser.get(page[0].as_uri())
    browser.execute_script(
        "const e = document.getElementById('limit'); e.value = 0;"
        "e.dispatchEvent(new Event('input', { bubbles: true }));"
    )
    images = {image["name"]: image for image in data_of(page[0])["images"]}
    for name, tag in cards(browser):
        one = images[name]
        if one["error"] is None and one["score"] > 0:
            assert tag == ("FALSE ALARM" if one["kind"] == "good" else "found")


def test_many_pictures_come_as_one_scrolls(browser, page, tmp_path):
    """Also where the end of the gallery stays near the window all the time."""
    text = page[0].read_text(encoding="utf-8")
    data = data_of(page[0])
    copies = [
        {**image, "name": f"{n}/{image['name']}"} for n in range(9) for image in data["images"]
    ]
    count = len(data["images"])
    spare = "".join(
        f'<script type="text/plain" id="p{n + count * k}">|</script>'
        for k in range(1, 9)
        for n in range(count)
    )
    old = re.findall(r'(<script type="application/json" id="data">)(.*?)(</script>)', text)[0]
    new = json.dumps({**data, "images": copies}).replace("<", "\\u003c")
    text = text.replace("".join(old), spare + old[0] + new + old[2])
    (tmp_path / "r.html").write_text(text, encoding="utf-8")
    browser.get((tmp_path / "r.html").as_uri())
    first = len(cards(browser))
    assert 48 <= first < len(copies)
    choose(browser, "show", "Misses")
    choose(browser, "show", "All")
    for _ in range(40):
        browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        if len(cards(browser)) == len(copies):
            break
        browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 20))")
    assert len(cards(browser)) == len(copies)
    assert not browser.find_element("id", "more").is_displayed()


@pytest.mark.slow
def test_pictures_have_heat_and_boxes_and_open_by_key(browser, page, model, labelled):
    from selenium.webdriver.common.keys import Keys

    browser.get(page[0].as_uri())
    choose(browser, "show", "Defective parts")
    choose(browser, "order", "Highest score first")
    first = browser.find_element("css selector", ".card")
    images = {image["n"]: image for image in numbered(page[0])}
    one = images[int(first.get_attribute("data-n"))]
    assert first.find_elements("css selector", "canvas.heat")
    wait_for(browser, lambda: first.find_elements("css selector", "svg rect"))
    boxes = [
        [float(rect.get_attribute(name)) for name in ("x", "y", "width", "height")]
        for rect in first.find_elements("css selector", "svg rect")
    ]
    regions = model.predict(labelled / one["name"], save=False).regions
    sides = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (r.box for r in regions)]
    assert np.shape(boxes) == np.shape(sides)
    assert np.abs(np.array(sorted(boxes)) - sorted(sides)).max() <= 6
    browser.execute_script(
        "const e = document.getElementById('heat'); e.value = 0;"
        "e.dispatchEvent(new Event('input'));"
    )
    assert first.find_element("css selector", "canvas.heat").value_of_css_property("opacity") == "0"
    complete = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert browser.execute_script(complete)
    first.send_keys(Keys.ENTER)
    title = browser.find_element("id", "large-name").text
    assert title == one["name"]
    facts = browser.find_element("id", "large-facts").text
    assert f"{one['score']:.4f}" in facts and f"Label\n{one['kind']}" in facts
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element("id", "large-name").text != title
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert browser.find_element("id", "large-name").text == title
    for _ in range(len(images)):  # to the last one: the keys still work there
        browser.find_element("id", "after").click()
    last = browser.find_element("id", "large-name").text
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert browser.find_element("id", "large-name").text not in (title, last)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.find_element("id", "large").is_displayed()
    browser.find_element("id", "boxes").send_keys(Keys.SPACE)
    visible = browser.find_elements("css selector", ".card svg rect")
    assert visible and not any(rect.is_displayed() for rect in visible)
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


def test_images_without_labels(browser, model, labelled, tmp_path, capsys):
    folder = tmp_path / "today"
    shutil.copytree(labelled / "bar", folder)
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


def test_what_predict_has_written_is_inspected_again(model, labelled, tmp_path):
    model.predict(labelled / "speck", tmp_path / "out")
    model.predict(labelled / "bar", tmp_path / "out")
    counts = model.report(tmp_path / "out", tmp_path / "out" / "report.html")
    assert counts.total() == 8
    names = {image["name"] for image in data_of(tmp_path / "out" / "report.html")["images"]}
    assert "torn.png" in names and "0.png" not in names
    model.predict(np.stack([draw_part(1)]), tmp_path / "arrays")
    with pytest.raises(DataError, match="names no files"):
        model.report(tmp_path / "arrays", tmp_path / "r.html")


@pytest.mark.slow
def test_a_run_is_inspected_at_its_own_threshold(model, labelled, tmp_path, dataset):
    first = model.predict(labelled / "good", tmp_path / "out", thresh=0.01)
    counts = model.report(tmp_path / "out", tmp_path / "r.html")
    assert counts["anomalous"] == sum(bool(p.is_anomalous) for p in first) > 0
    assert data_of(tmp_path / "r.html")["threshold"] == 0.01
    model.report(tmp_path / "out", tmp_path / "r.html", thresh=0.9)
    assert data_of(tmp_path / "r.html")["threshold"] == 0.9
    assert "another model" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    record = tmp_path / "out" / "predictions.jsonl"
    text = record.read_text().replace(model.model.digest, "0" * 64)
    record.write_text(text.replace(model.model.detector, "0" * 64))
    model.report(tmp_path / "out", tmp_path / "r.html")
    assert "made with another model" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_table_of_labelled_images(model, labelled, tmp_path):
    rows = [f"{labelled}/good/{n}.png,good" for n in (100, 101)]
    rows += [f"{labelled}/bar/200.png,bent"]
    table = tmp_path / "labelled.csv"
    table.write_text("\n".join(["path,label", *rows]))
    found = model.report(table, tmp_path / "r.html")
    assert (found.n_good, found.kinds[0].name) == (2, "bent")
    with pytest.raises(OptionError, match="in the folder that it is about"):
        model.report(table, labelled / "bar" / "r.html")


def test_defects_without_masks_and_good_ones_are_not_mixed_with_the_training(model, tmp_path):
    write_parts(tmp_path / "set" / "train" / "good", 3)
    write_parts(tmp_path / "set" / "test" / "bar", 2, first=200, defect=True)
    assert model.report(tmp_path / "set", tmp_path / "r.html").total() == 2


@pytest.mark.slow
def test_a_limit_that_was_set_on_these_images_is_told(model, labelled, tmp_path):
    own = AD(model.model.directory, save_path=tmp_path / "own")
    folder = tmp_path / "labelled"
    shutil.copytree(labelled, folder, ignore=shutil.ignore_patterns("torn.png"))
    own.calibrate(defective=folder)
    own.report(folder, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "22 of these images have set the limit (best F1)" in text
    assert fact(tmp_path / "r.html", "Known to the model").startswith("0 were in its training, 22")
    limit = fact(tmp_path / "r.html", "Decision limit (0.8)")
    assert "best F1" in limit and "no false alarm rate is promised" in limit
    own.calibrate(limit=60.0)
    own.report(folder, tmp_path / "r.html")
    limit = fact(tmp_path / "r.html", "Decision limit (0.8)")
    assert "raw score 60 (" in limit and "no false alarm rate is promised for it (by hand)" in limit


def test_what_could_not_be_inspected_is_no_absence(model, tmp_path):
    for kind in ("good", "bar"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    (tmp_path / "set" / "good" / "torn.png").write_bytes(b"no image")
    write_parts(tmp_path / "set" / "bar", 2, first=200, defect=True)
    model.evaluate(tmp_path / "set", report=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No good parts could be inspected." in text


def test_images_of_the_training_are_told(model, tmp_path):
    folder = write_parts(tmp_path / "mixed" / "good", 3)
    write_parts(folder.parent / "bar", 2, first=200, defect=True)
    model.evaluate(folder.parent, report=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "3 of these images were in the training" in text


@pytest.mark.slow
def test_a_method_without_maps_has_photographs_only(browser, tmp_path):
    folder = write_parts(tmp_path / "good", 16)
    ad = AD("dfkde", folder, save_path=tmp_path, img_size=(64, 64)).train()
    write_parts(tmp_path / "new", 3, first=200, defect=True)
    ad.report(tmp_path / "new", tmp_path / "r.html")
    browser.get((tmp_path / "r.html").as_uri())
    assert len(browser.find_elements("css selector", ".card img.photo")) == 3
    assert not browser.find_elements("css selector", ".card canvas, .card svg *")
    framed = len(browser.find_elements("css selector", ".card .picture.framed"))
    assert framed == sum(p.is_anomalous for p in ad.predict(tmp_path / "new", save=False)) > 0


def test_where_a_report_may_not_go(model, labelled, tmp_path, monkeypatch):
    for target in (labelled / "report.html", labelled / "deeper" / "report.html"):
        with pytest.raises(OptionError, match="in the folder that it is about"):
            model.report(labelled, target)
    (tmp_path / "link").symlink_to(labelled)
    with pytest.raises(OptionError, match="in the folder that it is about"):
        model.report(labelled, tmp_path / "link" / "report.html")
    model.predict(labelled / "speck", tmp_path / "out")
    with pytest.raises(OptionError, match="in the folder that it is about"):
        model.report(tmp_path / "out", labelled / "speck" / "report.html")
    with pytest.raises(OptionError, match="The report is a path"):
        model.report(labelled, None)
    with pytest.raises(OutputError, match="cannot be written"):
        model.report(labelled, tmp_path / f"{'x' * 300}.html")
    with pytest.raises(OptionError, match=r"ends in \.html"):
        model.report(labelled, tmp_path / "report.png")
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(probe, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.report(labelled, tmp_path / "report.html")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.slow
def test_the_command(model, labelled, tmp_path):
    from conftest import run_command as run

    out, err = run(
        "report", model.model.directory, labelled, "--output", tmp_path / "r.html", code=1
    )
    assert out == f"{tmp_path / 'r.html'}\n" and "good parts" in err
    target = tmp_path / "e.html"
    run("evaluate", model.model.directory, labelled, "--report", target, code=1)
    assert data_of(target)["images"] == data_of(tmp_path / "r.html")["images"]


def test_speed_that_cannot_be_measured_is_none(model, labelled, tmp_path, monkeypatch):
    image = labelled / "good" / "100.png"
    assert probe.measure(tmp_path / "none", [image]) is None
    assert probe.measure(model.model.directory, []) is None
    monkeypatch.setattr(sys, "executable", None)
    assert probe.measure(model.model.directory, [image]) is None


def test_nothing_of_the_current_folder_is_run(model, labelled, tmp_path, monkeypatch):
    for name in ("statistics", "json", "cv2"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    assert probe.measure(model.model.directory, [labelled / "good" / "100.png"]) is not None
    assert not (tmp_path / "ran").exists()


def entry(kind, raw, threshold=0.8):
    limit = Limit(0, 1, 100, 0.01, 0.01)
    no_boxes = np.empty((0, 4), np.int32)
    said = Prediction("x", (8, 8), float(limit.score(raw)), raw, threshold, raw > 1, None, no_boxes)
    return thumbnails.Entry(Path("x"), kind, said, 0, (0, 0))


def test_of_too_many_the_wrong_ones_are_shown_first():
    entries = [entry("good", 0.1), entry("good", 3), entry("bar", 0.5), entry("bar", 5)]
    assert thumbnails.chosen(entries, 2) == {1, 2}
    assert thumbnails.chosen(entries, 3) == {1, 2, 3}
    assert thumbnails.chosen(entries) == {0, 1, 2, 3}
    torn = thumbnails.Entry(Path("t"), "good", Prediction.failed("t", 0.8, "torn"), 0, (0, 0))
    assert thumbnails.chosen([*entries, torn], 3) == {1, 2, 4}


def test_pictures_of_many_images_are_small(model):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (512, 512, 3), np.uint8)
    many = thumbnails.Thumbnails(model.model, 5000)
    size = thumbnails.fitted(noise.shape[:2], many.side)
    photo = thumbnails.photograph(noise, size, 34e6 / 5000)
    assert len(photo) < 60e6 / 5000 / 4 * 3
    side = thumbnails.Thumbnails(model.model, 10).side
    assert thumbnails.fitted((300, 600), side) == (200, 400)
    assert thumbnails.fitted((30, 60), side) == (30, 60)
