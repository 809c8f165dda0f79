"""The page of the service, in headless Chromium."""

import contextlib
import csv
import re
import shutil

import cv2
import numpy as np
import pytest
from test_service_process import running

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("selenium", reason="chromium is driven by selenium, which is not installed")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from anomaly_ad import AD
from anomaly_ad.model.calibration import Calibration
from anomaly_ad.model.store import load


@pytest.fixture(scope="module")
def address(washer):
    with running(washer[0]) as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(browser, address):
    browser.get(address)
    wait(browser, lambda: text(browser, "reset"))
    return browser


def wait(browser, what):
    return WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: what())


def find(browser, name):
    return browser.find_element(By.ID, name)


def text(browser, name):
    return find(browser, name).get_attribute("textContent")


def send(browser, *files):
    """Choose files, and wait for the verdict of the last."""
    find(browser, "files").send_keys("\n".join(map(str, files)))
    wait(browser, lambda: text(browser, "name").startswith(files[-1].name))


def move(browser, name, value):
    """Move a slider as a hand does."""
    browser.execute_script(
        "arguments[0].value = arguments[1];"
        "for (const kind of ['input', 'change']) arguments[0].dispatchEvent(new Event(kind));",
        find(browser, name),
        value,
    )


def boxes(browser):
    """(x, y, width, height) of each."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#boxes rect')].map("
        "(rect) => ['x', 'y', 'width', 'height'].map((side) => +rect.getAttribute(side)))"
    )


def is_coloured(browser):
    """Whether any pixel of the heatmap is."""
    return browser.execute_script(
        "return [...heat.getContext('2d').getImageData(0, 0, heat.width, heat.height).data]"
        ".some((value, n) => n % 4 === 3 && value > 0)"
    )


def assert_boxes_are(browser, expected, within=6):
    """Those of the regions that Python finds, but for what gray levels of 8 bits cannot tell."""
    found = sorted(boxes(browser))
    sides = sorted(
        [x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (r.box for r in expected.regions)
    )
    assert np.shape(found) == np.shape(sides)
    assert np.abs(np.array(found) - np.array(sides)).max(initial=0) <= within


def look(browser, selector="#picture"):
    """What is shown there, RGB."""
    browser.execute_script("scrollTo(0, 0)")
    data = browser.find_element(By.CSS_SELECTOR, selector).screenshot_as_png
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)


@pytest.fixture(scope="module")
def files(washer):
    test = washer[1] / "test"
    return test / "good" / "000.jpg", test / "dent" / "000.jpg"


def test_a_good_and_a_defective_image(page, washer, files):
    for file, word in zip(files, ("Good", "Anomalous"), strict=True):
        expected = AD(washer[0]).predict(file, save=False)
        send(page, file)
        # One name for both files: wait for the words as well.
        wait(page, lambda word=word: text(page, "verdict") == word)
        assert 0 <= expected.score - float(text(page, "score")) < 0.001 + 1e-5
        assert_boxes_are(page, expected)
        assert bool(expected.regions) == (word == "Anomalous")
    assert text(page, "counts") == "1 of 2 anomalous"


def test_the_overlays_lie_where_the_defect_is(page, washer, files):
    prediction = AD(washer[0]).predict(files[1], save=False)
    send(page, files[1])
    wait(page, lambda: boxes(page))
    find(page, "show-boxes").click()
    with_heat = look(page)
    move(page, "opacity", 0)
    without = look(page)
    changed = np.abs(with_heat - without).sum(axis=2)
    y, x = np.unravel_index(np.argmax(prediction.anomaly_map), prediction.anomaly_map.shape)
    height, width = changed.shape
    at = changed[int((y + 0.5) / 96 * height), int((x + 0.5) / 96 * width)]
    assert at > 60  # red over what is there
    assert np.median(changed) == 0  # and nothing over the rest
    find(page, "show-boxes").click()
    x1, y1, x2, _ = np.array(prediction.regions[0].box) / 256
    top, middle = round(y1 * height), round((x1 + x2) / 2 * width)
    frame = look(page)[max(0, top - 2) : top + 3, middle]
    assert ((frame[:, 0] > 200) & (frame[:, 1] < 110)).any()


def test_the_threshold_decides_as_the_service_does(page, washer, files):
    """Verdict, raw threshold and marks for any threshold."""
    send(page, files[1])
    wait(page, lambda: boxes(page))
    ad, limit = AD(washer[0]), load(washer[0]).manifest.calibration.image
    score = ad.predict(files[1], save=False).score
    for threshold in (0, 0.3, 0.8, 0.85, round(score - 0.005, 3), 0.995, 1):
        move(page, "limit", threshold)
        shown = float(text(page, "limit-value"))
        expected = ad.predict(files[1], save=False, thresh=shown)
        assert text(page, "verdict") == ("Anomalous" if expected.is_anomalous else "Good")
        assert bool(boxes(page)) == expected.is_anomalous == bool(expected.regions)
        assert is_coloured(page) == expected.is_anomalous
    find(page, "reset").click()
    assert text(page, "limit-value") == "0.8" and not find(page, "reset").is_enabled()
    raws = np.linspace(0, 1, 41)
    shown = page.execute_script(
        "const [thresholds, median, limit] = arguments;"
        "return thresholds.map((one) => rawThreshold({median, limit}, one))",
        raws.tolist(),
        limit.median,
        limit.limit,
    )
    assert shown[:-1] == [limit.raw(t) for t in raws.tolist()[:-1]] and shown[-1] is None


def test_recent_results_by_keyboard(page, files, washer):
    good = sorted((washer[1] / "test" / "good").iterdir())
    send(page, *good)
    cards = page.find_elements(By.CSS_SELECTOR, "#gallery .card")
    assert [card.get_attribute("title") for card in cards] == [f.name for f in reversed(good)]
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.ARROW_RIGHT)
    assert text(page, "name") == good[1].name
    body.send_keys(Keys.ARROW_LEFT)
    assert text(page, "name") == good[2].name
    # Every control is reached with the tabulator, in the order of the page.
    page.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.switch_to.active_element.get_attribute("id"))
    order = [name for name in reached if name in ("choose", "limit", "opacity", "show-boxes")]
    assert order[:4] == ["choose", "limit", "opacity", "show-boxes"]


def test_a_file_that_cannot_be_inspected_is_said_and_the_next_one_goes_on(page, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    send(page, broken, files[1])
    wait(page, lambda: text(page, "verdict") == "Anomalous")
    # The browser says on its console what the server has refused; that is no error of the page.
    assert all("422" in entry["message"] for entry in page.get_log("browser"))
    assert not text(page, "message")  # it is said with the image, once
    assert "Not inspected" in text(page, "gallery")
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
    assert "broken.png" in text(page, "reason") and "not an image" in text(page, "reason")


def test_no_verdict_of_one_image_stands_for_another(page, files, tmp_path):
    """What could not be inspected takes the place of the verdict before it."""
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    send(page, files[0], broken)
    assert text(page, "verdict") == "Not inspected" and "not an image" in text(page, "reason")
    assert {"bad", "failed"} <= set(find(page, "result").get_attribute("class").split())
    for name in ("picture", "score", "limit", "opacity", "show-boxes"):
        assert not find(page, name).is_displayed()
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.ARROW_RIGHT)
    assert text(page, "verdict") == "Good" and find(page, "picture").is_displayed()
    assert not find(page, "reason").is_displayed() and find(page, "limit").is_displayed()
    set_size(page, 390, 844)
    page.execute_script("scrollTo(0, document.body.scrollHeight)")
    card = page.find_element(By.CSS_SELECTOR, "#gallery .card")
    page.execute_script("arguments[0].click()", card)
    assert text(page, "verdict") == "Not inspected"
    top = page.execute_script("return verdict.getBoundingClientRect().top")
    assert 0 <= top < 844
    move(page, "limit", 0.5)
    assert text(page, "verdict") == "Not inspected"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.get_log("browser")


def test_an_image_can_be_dropped_anywhere(page, files):
    data = list(files[1].read_bytes())
    page.execute_script(
        "const given = new DataTransfer();"
        "given.items.add(new File([new Uint8Array(arguments[0])], 'dropped.jpg'));"
        "document.body.dispatchEvent("
        "new DragEvent('drop', {dataTransfer: given, bubbles: true, cancelable: true}));",
        data,
    )
    wait(page, lambda: text(page, "name") == "dropped.jpg")
    assert text(page, "verdict") == "Anomalous"


@pytest.mark.slow
def test_more_images_than_the_page_keeps_are_all_inspected(page, files, tmp_path):
    """The first one is defective: it is shown, whatever has to go."""
    kept = page.execute_script("return KEPT")
    chosen = [tmp_path / f"{number:03d}.jpg" for number in range(kept + 10)]
    for file in chosen:
        shutil.copyfile(files[file is chosen[0]], file)
    find(page, "files").send_keys("\n".join(map(str, chosen)))
    wait(page, lambda: text(page, "counts") == f"1 of {len(chosen)} anomalous")
    cards = page.find_elements(By.CSS_SELECTOR, "#gallery .card")
    titles = [card.get_attribute("title") for card in cards]
    assert titles == [*(file.name for file in reversed(chosen[11:])), chosen[0].name]
    assert text(page, "gone").startswith("10 earlier results are counted but")
    move(page, "limit", 1)
    assert text(page, "counts") == f"0 of {len(chosen)} anomalous"


def test_the_focus_stays_where_it_is(page, files):
    send(page, files[1])
    wait(page, lambda: text(page, "verdict") == "Anomalous")
    card = page.find_element(By.CSS_SELECTOR, "#gallery .card")
    page.execute_script("arguments[0].focus()", card)
    send(page, files[0])
    wait(page, lambda: text(page, "verdict") == "Good")
    assert page.switch_to.active_element == card
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert text(page, "verdict") == "Anomalous" and page.switch_to.active_element == card


@pytest.mark.slow
def test_a_threshold_between_two_steps_of_the_slider(browser, washer, files):
    with running(washer[0], "--thresh", 0.998) as (_, port):
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: text(browser, "reset"))
        send(browser, files[1])
        assert text(browser, "limit-value") == "0.998" and text(browser, "reset").endswith(" 0.998")
        assert not find(browser, "reset").is_enabled()
        asked = browser.execute_script(
            "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        )
        sent = [name for name in asked if "/predict?" in name]
        assert sent and all("thresh=0.998&" in name for name in sent)
        move(browser, "limit", 0.5)
        assert text(browser, "limit-value") == "0.5"
        find(browser, "reset").click()
        assert text(browser, "limit-value") == "0.998"
        browser.get("about:blank")


@pytest.mark.slow
def test_a_service_that_goes_away_and_comes_back(browser, washer, files):
    """What is chosen meanwhile waits; marks follow the threshold all the same."""
    with running(washer[0], f"second={washer[0]}") as (_, port):
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: text(browser, "reset"))
        find(browser, "model").send_keys("second")
        send(browser, files[1])
        wait(browser, lambda: boxes(browser))
    move(browser, "limit", 0.81)
    assert boxes(browser)
    find(browser, "files").send_keys(str(files[0]))
    wait(browser, lambda: "1 image waits" in text(browser, "message"))
    assert text(browser, "counts") == "1 of 1 anomalous · 1 waiting"
    with running(washer[0], "--port", port):
        # It goes on by itself, and the model that was chosen is not there any more.
        wait(browser, lambda: "There is no model 'second'" in text(browser, "reason"))
        assert text(browser, "counts") == "1 of 1 anomalous · 1 not inspected"
        find(browser, "again").click()
        wait(browser, lambda: text(browser, "counts") == "1 of 2 anomalous")
        assert not find(browser, "again").is_displayed()
        assert not find(browser, "message").is_displayed()
        browser.get("about:blank")
    browser.get_log("browser")  # the browser's own word on what did not answer


# What a proxy says while the service behind it starts.
AWAY = "new Response('<h1>Bad Gateway</h1>', {status: 502})"


@contextlib.contextmanager
def fetching(browser, script):
    """Every page's `fetch` is replaced; the script has `real` and `path`, and `asked` to count."""
    source = (
        "const real = window.fetch; let asked = 0;"
        "window.fetch = async (path, options) => {" + script + "return real(path, options); };"
    )
    command = "Page.addScriptToEvaluateOnNewDocument"
    added = browser.execute_cdp_cmd(command, {"source": source})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        browser.get("about:blank")


@pytest.mark.slow
def test_a_service_that_is_not_there_yet(browser, address, files):
    """What is chosen before the models are known waits for them, and so does the verdict."""
    script = f"if (path === '/models' && (asked += 1) < 3) return {AWAY};"
    with fetching(browser, script):
        browser.get(address)
        wait(browser, lambda: "Status 502" in text(browser, "message"))
        find(browser, "files").send_keys("\n".join(map(str, files)))
        wait(browser, lambda: "2 images wait" in text(browser, "message"))
        assert text(browser, "counts") == "2 waiting" or not text(browser, "counts")
        wait(browser, lambda: text(browser, "counts") == "1 of 2 anomalous")
        assert not find(browser, "message").is_displayed()


@pytest.mark.slow
def test_what_is_no_answer_of_the_service_is_no_verdict(browser, address, files):
    script = (
        "if (path.startsWith('/predict') && (asked += 1) < 3)"
        f"return asked === 1 ? {AWAY} : new Response('<p>', {{status: 200}});"
    )
    with fetching(browser, script):
        browser.get(address)
        wait(browser, lambda: text(browser, "reset"))
        find(browser, "files").send_keys(str(files[1]))
        wait(browser, lambda: "1 image waits" in text(browser, "message"))
        wait(browser, lambda: text(browser, "counts") == "1 of 1 anomalous")


@pytest.mark.slow
def test_what_failed_is_tried_again_with_its_own_model(browser, washer, files, tmp_path):
    """Also those that are too many to keep their cards."""
    script = (
        "if (path.startsWith('/predict') && (asked += 1) <= KEPT + 4)"
        'return new Response(\'{"error": "It failed."}\', {status: 500});'
    )
    with running(washer[0], f"second={washer[0]}") as (_, port), fetching(browser, script):
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: text(browser, "reset"))
        find(browser, "model").send_keys("second")
        count = browser.execute_script("return KEPT") + 4
        chosen = [tmp_path / f"{number:03d}.jpg" for number in range(count)]
        for file in chosen:
            shutil.copyfile(files[0], file)
        find(browser, "files").send_keys("\n".join(map(str, chosen)))
        wait(browser, lambda: text(browser, "counts") == f"{count} not inspected")
        find(browser, "model").send_keys("washer")
        find(browser, "again").click()
        wait(browser, lambda: text(browser, "counts") == f"0 of {count} anomalous")
        assert text(browser, "name").endswith("· second")
        assert not find(browser, "again").is_displayed()


@pytest.mark.slow
def test_another_model_inspects_again(browser, washer, files, tmp_path):
    """Each image is counted once, and the one that is looked at stays."""
    directory = tmp_path / "model"
    shutil.copytree(washer[0], directory)
    before = load(directory)
    limits = before.manifest.calibration
    far = limits.image.median + 1000 * (limits.image.limit - limits.image.median)
    before.with_limits(Calibration.moved(limits, far, [0.0, 1.0], {"by": "hand"}), directory)
    with running(washer[0], f"lenient={directory}") as (_, port):
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: text(browser, "reset"))
        send(browser, files[1], files[0])
        wait(browser, lambda: text(browser, "counts") == "1 of 2 anomalous")
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
        wait(browser, lambda: text(browser, "verdict") == "Anomalous")
        find(browser, "model").send_keys("lenient")
        wait(browser, lambda: text(browser, "counts") == "0 of 2 anomalous")
        wait(browser, lambda: text(browser, "verdict") == "Good")
        assert text(browser, "name") == f"{files[1].name} · lenient"
        assert not boxes(browser) and not is_coloured(browser)
        browser.get("about:blank")


def test_the_threshold_as_a_command(page, files, washer):
    send(page, files[1])
    wait(page, lambda: boxes(page))
    assert not find(page, "set-it").is_displayed()
    move(page, "limit", 0.85)
    raw = load(washer[0]).manifest.calibration.image.raw(0.85)
    assert text(page, "command") == f"anomaly-ad calibrate washer --limit {raw}"


def test_original_raw_map_export_and_clear(page, files):
    page.execute_script("window.saved = []; download = (blob, name) => saved.push([blob, name]);")
    send(page, *files)
    wait(page, lambda: text(page, "counts") == "1 of 2 anomalous")
    body = page.find_element(By.TAG_NAME, "body")
    marked = look(page)
    body.send_keys("o")
    original = look(page)
    body.send_keys("o")
    assert (marked != original).any() and (look(page) == marked).all()
    find(page, "raw-map").click()
    assert is_coloured(page)
    find(page, "raw-map").click()
    find(page, "export").click()
    table = page.execute_async_script("saved.pop()[0].text().then(arguments[0])")
    rows = list(csv.DictReader(table.lstrip("\ufeff").splitlines()))
    assert [row["verdict"] for row in rows] == ["good", "anomalous"]
    assert rows[1]["name"] == files[1].name and float(rows[1]["score"]) > 0.8
    find(page, "save").click()
    wait(page, lambda: page.execute_script("return saved.length"))
    size, name = page.execute_async_script(
        "createImageBitmap(saved[0][0]).then("
        "(image) => arguments[0]([[image.width, image.height], saved[0][1]]))"
    )
    assert size == [256, 256] and name == "000-inspected.png"
    find(page, "clear").click()
    assert not find(page, "result").is_displayed() and not find(page, "recent").is_displayed()
    assert text(page, "counts") == ""
    send(page, files[0])
    assert text(page, "counts") == "0 of 1 anomalous"


def test_text_can_be_dragged(page):
    """Into the field of the token, for instance; only files are the page's own."""
    prevented = page.execute_script(
        "return [(d) => d.setData('text/plain', 'x'), (d) => d.items.add(new File(['x'], 'x'))]"
        ".map((fill) => { const dataTransfer = new DataTransfer(); fill(dataTransfer);"
        "const options = {dataTransfer, bubbles: true, cancelable: true};"
        "return !document.body.dispatchEvent(new DragEvent('dragover', options)); })"
    )
    assert prevented == [False, True]


def test_nothing_from_elsewhere_can_run_in_it(page, address):
    html = page.page_source
    assert not re.findall(r'(?:src|href)="https?:', html)
    refused = page.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (e) => done(e.violatedDirective));"
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.head.append(script);"
    )
    assert refused.startswith("script-src") and page.execute_script("return window.ran") is None
    page.get_log("browser")  # the refusal itself


def test_wide_and_narrow_nothing_hangs_over(page, files):
    send(page, files[1])
    for width, height in ((1280, 1000), (768, 1000), (390, 844)):
        set_size(page, width, height)
        over = page.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert over <= 0, width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def set_size(browser, width, height):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.slow
def test_a_token_is_asked_for(browser, washer, files):
    token = "0123456789abcdef"
    with running(washer[0], ANOMALY_AD_TOKEN=token) as (_, port):
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: find(browser, "login").is_displayed())
        assert all("401" in entry["message"] for entry in browser.get_log("browser"))
        assert text(browser, "message") == "The service needs a token."
        find(browser, "token").send_keys("another" + Keys.ENTER)
        wait(browser, lambda: text(browser, "message") == "The token is wrong.")
        browser.get_log("browser")
        find(browser, "token").clear()
        find(browser, "token").send_keys(token + Keys.ENTER)
        wait(browser, lambda: not find(browser, "login").is_displayed())
        send(browser, files[1])
        assert text(browser, "verdict") == "Anomalous"
        browser.get("about:blank")


def test_the_page_of_the_api(browser, address):
    browser.get(address + "docs")
    assert "POST /predict" in browser.page_source
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()


@pytest.mark.slow
def test_a_camera_and_a_method_without_maps(browser, washer, tmp_path):
    model = AD("dfkde", washer[1], save_path=tmp_path, img_size=(96, 96)).train().model
    with running(model.directory) as (_, port):
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: text(browser, "reset"))
        find(browser, "camera").click()
        wait(browser, lambda: browser.execute_script("return video.videoWidth") > 2)
        find(browser, "shoot").click()
        wait(browser, lambda: text(browser, "name").startswith("camera"))
        assert text(browser, "verdict") == "Anomalous"  # it shows no washer
        assert find(browser, "no-map").is_displayed()
        assert not find(browser, "heat-setting").is_displayed()
        find(browser, "camera").click()
        assert not find(browser, "live-view").is_displayed()
        browser.get("about:blank")
