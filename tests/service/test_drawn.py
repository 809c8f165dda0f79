"""The page of `anomaly-ad roi`."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from conftest import draw_part, run_command, write_image

from anomaly_ad.errors import OptionError, OutputError, PathError
from anomaly_ad.images.roi import mask_of, resolve_region
from anomaly_ad.service.drawn import DrawnRegion

SQUARE = [[10, 12], [40, 12], [40, 50], [10, 50]]


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / 'part <b>"1".png', draw_part(0))


def post(url, values):
    data = values if isinstance(values, bytes) else json.dumps(values).encode()
    request = urllib.request.Request(url, data, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_saves_a_region(image, tmp_path):
    output = tmp_path / "roi.json"
    with DrawnRegion(image, output) as page:
        with urllib.request.urlopen(page.url, timeout=10) as answer:
            html = answer.read().decode()
            policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "{{" not in html and "<b>" not in html
        assert not page.saved.is_set()
        status, said = post(page.url, {"inspect": [SQUARE], "ignore": []})
        assert status == 200 and "roi.json" in said and page.saved.is_set()
    values = json.loads(output.read_text())
    assert values == {"image_size": [64, 64], "inspect": [SQUARE], "ignore": []}
    mask = mask_of(resolve_region(output, None, [(64, 64)]))
    assert mask.sum() == 30 * 38 and mask[12, 10]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["roi.json"]
    with DrawnRegion(image, output) as page, urllib.request.urlopen(page.url) as answer:
        assert "[[10, 12], [40, 12]" in answer.read().decode()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inspect": [], "ignore": []}, "Draw it again"),
        ({"inspect": [[[0, 0], [9, 9], [9, 0], [0, 9]]]}, "cross each other"),
        ({"inspect": [[[0, 0], [99, 0], [99, 9]]]}, "must lie within"),
        ({"inspect": 3}, "lists of corners"),
        (b"no json", "cannot be read"),
        (b"[1]", "cannot be read"),
    ],
)
def test_what_is_no_region_is_refused_and_nothing_written(image, tmp_path, values, message):
    with DrawnRegion(image, tmp_path / "roi.json") as page:
        status, said = post(page.url, values)
        assert status == 422 and message in said and not page.saved.is_set()
        root = page.url.rsplit("/", 2)[0]
        assert post(f"{root}/", {"inspect": [SQUARE]})[0] == 404
    assert not (tmp_path / "roi.json").exists()


def test_files_that_are_there_are_not_lost(image, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}')
    with pytest.raises(OptionError, match="anomaly-ad roi"):
        DrawnRegion(image, other)
    with pytest.raises(PathError):
        DrawnRegion(tmp_path / "none.png", tmp_path / "roi.json")
    with DrawnRegion(image, tmp_path / "roi.json") as page:
        port = int(page.url.split(":")[2].split("/")[0])
        with pytest.raises(OutputError, match="--port"):
            DrawnRegion(image, tmp_path / "roi.json", port)
    assert other.read_text() == '{"a": 1}'


def test_deep_images_are_shown(tmp_path):
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), draw_part(0).astype(np.uint16) * 16)
    with DrawnRegion(path, tmp_path / "roi.json") as page:
        assert page.size == (64, 64)


def test_the_command_prints_the_file(image, tmp_path):
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "anomaly_ad", "roi", str(image), "--output", str(output)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline()
        url = next(word for word in line.split() if word.startswith("http"))
        assert post(url, {"inspect": [], "ignore": [SQUARE]})[0] == 200
        stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and stdout.strip() == str(output) and output.exists()
    _, stderr = run_command("roi", tmp_path / "none.png", code=1)
    assert "none.png" in stderr


def test_drawing_by_hand(browser, image, tmp_path):
    output = tmp_path / "roi.json"
    with DrawnRegion(image, output) as page:
        browser.set_window_size(900, 1400)
        browser.get(page.url)
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        drawing = browser.find_element(By.ID, "drawing")
        side = int(drawing.rect["width"])
        browser.execute_script("arguments[0].scrollIntoView()", drawing)
        pull = ActionChains(browser).move_to_element_with_offset(drawing, -side // 4, -side // 4)
        pull.click_and_hold().move_by_offset(side // 2, side // 4).release().perform()
        browser.find_element(By.ID, "save").click()
        assert page.saved.wait(10)
    ((low, _, high, _),) = json.loads(output.read_text())["inspect"]
    assert np.abs(np.array([*low, *high]) - [16, 16, 48, 32]).max() <= 2
