"""The service within this process: what it answers, and what it refuses."""

import asyncio
import base64
import io
import json
import os
import shutil
import struct
import time
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import draw_part, write_image
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("httpx", reason="needs the extra 'test'")

import httpx

from anomaly_ad import AD, OptionError
from anomaly_ad.cli.serve import name_models, read_token
from anomaly_ad.images import read_image
from anomaly_ad.images.sources import find_sources
from anomaly_ad.inspection.inspector import Inspector
from anomaly_ad.model.calibration import Calibration
from anomaly_ad.model.store import load
from anomaly_ad.service.app import Service, create_app
from anomaly_ad.service.metrics import Metrics
from anomaly_ad.service.models import Models
from anomaly_ad.service.schema import Options, Refusal
from anomaly_ad.service.settings import Settings
from anomaly_ad.service.sources import Roots

KEYS = ["is_anomalous", "confidence", "score", "raw_score", "threshold", "boxes"]


class TestClient:
    """Requests to an ASGI application, without a socket."""

    __test__ = False

    def __init__(self, app):
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method, path, **options):
        async def ask():
            base = "http://testserver"
            async with httpx.AsyncClient(transport=self._transport, base_url=base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory, washer):
    """A mounted volume, with what should not be reachable next to it."""
    folder = tmp_path_factory.mktemp("files")
    volume = folder / "root" / "volume"
    shutil.copytree(washer[1] / "test", volume)
    write_image(folder / "secret.png", draw_part(0))
    (folder / "root" / "out.png").symlink_to(folder / "secret.png")
    (folder / "root" / "away").symlink_to(folder)
    (folder / "root" / "inside.png").symlink_to(volume / "good" / "000.jpg")
    os.mkfifo(folder / "root" / "pipe.png")
    (folder / "root" / "device.png").symlink_to("/dev/zero")
    (folder / "root" / "text.png").write_text("secret text")
    (folder / "root" / "large.png").write_bytes(bytes(2_000_001))
    return folder / "root"


@pytest.fixture(scope="module")
def service(washer, root):
    settings = Settings(roots=(root,), max_bytes=2_000_000, max_pixels=300_000, queue=8)
    found = Service(settings, Models({"washer": washer[0], "other": washer[0]}), Metrics())
    yield found
    found.close()


@pytest.fixture(scope="module")
def client(service):
    return TestClient(create_app(service))


@pytest.fixture(scope="module")
def files(washer):
    """Good and defective image files."""
    test = washer[1] / "test"
    return test / "good" / "000.jpg", test / "dent" / "000.jpg"


def upload(client, *files, **query):
    parts = [("image", (file.name, file.read_bytes())) for file in files]
    return client.post("/predict", files=parts, params=query)


def named(client, name, **query):
    return client.post("/predict", json={"data": {"image": name}}, params=query)


# ------------------------------------------------------------------------------- verdicts


def test_one_upload_is_answered_as_python_does(client, washer, files):
    ad = AD(washer[0])
    for file in files:
        expected = ad.predict(file, save=False)
        answer = upload(client, file)
        assert answer.status_code == 200
        found = answer.json()
        assert set(KEYS) <= set(found) and "heatmap" not in found
        assert found["is_anomalous"] is expected.is_anomalous is (file.parent.name == "dent")
        assert found["score"] == found["confidence"] == pytest.approx(expected.score, abs=1e-5)
        assert found["raw_score"] == pytest.approx(expected.raw_score, rel=1e-5)
        assert found["boxes"] == expected.boxes.tolist()
        assert found["threshold"] == 0.8 and found["image_size"] == [256, 256]
        assert found["name"] == file.name and found["digest"] == ad.model.digest


def test_a_file_on_a_volume_gets_the_same_answer(client, files):
    uploaded = upload(client, files[1]).json()
    answer = named(client, "volume/dent/000.jpg").json()
    assert answer.pop("name") == "volume/dent/000.jpg"
    uploaded.pop("name")
    assert answer == uploaded
    assert named(client, "inside.png").json()["is_anomalous"] is False  # a link that stays inside


def test_the_heatmap_is_what_predict_draws(client, washer, files):
    answer = upload(client, files[1], heatmap=True).json()
    png = np.frombuffer(base64.b64decode(answer["heatmap"]), np.uint8)
    overlay = cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    image = read_image(files[1])
    assert overlay.shape == (256, 256, 4)
    opacity = overlay[..., 3:] / 255
    blended = image * (1 - opacity) + overlay[..., :3] * opacity
    inspector = Inspector(load(washer[0]), draw=True)
    (one,) = inspector.run(find_sources([files[1]]))
    assert np.abs(one.picture - blended).max() <= 1.5
    good = base64.b64decode(upload(client, files[0], heatmap=True).json()["heatmap"])
    calm = cv2.imdecode(np.frombuffer(good, np.uint8), cv2.IMREAD_UNCHANGED)
    assert not calm[..., 3].any()


@pytest.mark.parametrize("thresh", [0.3, 0.8, 0.95])
def test_marks_follow_the_threshold(client, washer, files, thresh):
    """Every anomalous image has a region and a colour, no good one has."""
    for file in files:
        answer = upload(client, file, heatmap=True, thresh=thresh).json()
        png = np.frombuffer(base64.b64decode(answer["heatmap"]), np.uint8)
        colours = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)[..., 3]
        expected = AD(washer[0]).predict(file, save=False, thresh=thresh)
        assert answer["regions"] == [region.to_dict() for region in expected.regions]
        assert bool(answer["regions"]) == bool(colours.any()) == answer["is_anomalous"]


def test_the_map_is_for_clients_that_colour_it(client, washer, files):
    answer = upload(client, files[1], anomaly_map=True).json()
    png = np.frombuffer(base64.b64decode(answer["anomaly_map"]), np.uint8)
    levels = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
    expected = AD(washer[0]).predict(files[1], save=False).anomaly_map
    assert levels.shape == expected.shape
    above = levels > 64
    assert np.abs((levels[above].astype(int) - 64) / 191 - expected[above]).max() < 0.003
    assert (expected[~above] < 0.003).all()


@pytest.mark.parametrize(
    ("kind", "disposition", "name"),
    [
        ("", 'filename="a b.jpg"', "a b.jpg"),
        ("", 'filename="na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve.jpg"', "na\xefve.jpg"),
        ("", "filename=a.jpg; filename*=utf-8''b.jpg", "a.jpg"),
        ("", 'filename=""', ""),
        ("; charset=raw_unicode_escape", r'filename="a\ud800.jpg"', "a?.jpg"),
        ("; charset=nonsense", 'filename="a.jpg"', "a.jpg"),
        ("", "filename*=utf-8''a.jpg", None),
        ("", "x=y", None),
    ],
)
def test_names_of_files(client, files, kind, disposition, name):
    head = f'--XX\r\nContent-Disposition: form-data; name="image"; {disposition}\r\n\r\n'
    body = head.encode() + files[0].read_bytes() + b"\r\n--XX--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=XX{kind}"}
    answer = client.post("/predict", content=body, headers=headers)
    if name is None:
        assert answer.status_code == 400 and "has no filename" in answer.json()["error"]
    else:
        assert answer.json()["name"] == name


def test_several_come_back_in_order_and_one_that_is_broken_ends_no_other(client, files, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(files[0].read_bytes()[:500])
    answer = upload(client, files[1], broken, files[0])
    assert answer.status_code == 200
    first, second, third = answer.json()["predictions"]
    assert first["is_anomalous"] and not third["is_anomalous"]
    assert second["status"] == 422 and "'broken.jpg': the image is damaged" in second["error"]
    assert set(second) == {"name", "status", "error"}
    assert upload(client, broken).status_code == 422  # alone it is the request that fails


def test_thresh_and_model_are_the_clients_choice(client, files):
    low = upload(client, files[0], thresh=0).json()
    high = upload(client, files[1], thresh=1, model="other").json()
    assert low["threshold"] == 0 and high["threshold"] == 1
    assert high["is_anomalous"] is False and high["boxes"] == [] and high["model"] == "other"


# -------------------------------------------------------------------------------- refusals


def png(width, height):
    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(9)))


def deep_tiff():
    """12 bits, for a model of 8."""
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    return cv2.imencode(".tif", values)[1].tobytes()


def test_a_stack_is_refused_and_its_page_is_not(client, files):
    pages = [Image.open(file).convert("RGB") for file in files[:2]]
    for some, status in ((pages, 422), (pages[:1], 200)):
        out = io.BytesIO()
        some[0].save(out, "TIFF", save_all=True, append_images=some[1:])
        answer = client.post("/predict", files={"image": ("s.tif", out.getvalue())})
        assert answer.status_code == status
        if status == 422:
            assert "'s.tif' has 2 pages. Send each page as an image" in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "data", "status", "message"),
    [
        ("a.jpg", b"", 422, "is empty"),
        ("a.jpg", b"no image", 422, "not an image that can be read"),
        ("a.png", png(64, 64), 422, "damaged or cut off"),
        ("a.png", png(30_000, 30_000), 413, "at most 300,000 are decoded"),
        ("a.png", png(2**31 - 1, 2**31 - 1), 413, "at most 300,000 are decoded"),
        ("a.png", png(8, 8), 422, "at least 16"),
        (
            "a.tif",
            deep_tiff(),
            422,
            "'a.tif' has more than 8 bits, and",
        ),
        ("a.jpg", bytes(2_000_000), 413, "larger than 2,000,000 bytes"),
        ("a.jpg", b"\xff\xd8" + b"\xff" * 1_000_000, 422, "not an image that can be read"),
    ],
)
def test_files_that_cannot_be_inspected(client, name, data, status, message):
    answer = client.post("/predict", files={"image": (name, data)})
    assert answer.status_code == status and message in answer.json()["error"]


def test_a_jpeg_of_very_many_scans_is_not_decoded(client, files):
    """Each scan is a pass over all pixels: a small file could keep a thread busy for minutes."""
    image = cv2.imread(str(files[0]))
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert client.post("/predict", files={"image": data}).status_code == 200
    last = data.rindex(b"\xff\xda")
    scans = data[:last] + data[last:-2] * 200 + b"\xff\xd9"
    answer = client.post("/predict", files={"image": scans})
    assert answer.status_code == 422 and "damaged" in answer.json()["error"]


FORM = "multipart/form-data; boundary=XX"
FIELD_PART = b'--XX\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
PART = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "message"),
    [
        (FORM, b"", 400, "cut off"),
        (FORM, PART, 400, "cut off"),
        (FORM, PART + b"x\r\n" + PART + b"y", 400, "cut off"),
        (FORM, b"nonsense", 400, "cannot be read"),
        (FORM, PART.replace(b"image", b"file") + b"x\r\n--XX--", 400, "'file' is not a field"),
        (FORM, PART.replace(b"Disposition", b"\xff") + b"x\r\n--XX--", 400, "cannot be read"),
        (FORM, (PART + b"x\r\n") * 9 + b"--XX--", 400, "number of files is 8"),
        (FORM, b"--XX\r\n\r\nx\r\n--XX--", 400, "cannot be read"),
        (FORM, FIELD_PART * 99 + b"--XX--", 400, "number of fields is 16"),
        ("multipart/form-data", PART, 400, "Missing boundary"),
        ("multipart/form-data; boundary=" + "X" * 999, PART, 400, "cannot be read"),
        ("application/json", b"", 400, "cannot be read"),
        ("application/json", b"[" * 60_000, 400, "cannot be read"),
        ("application/json", b"\xff", 400, "cannot be read"),
        ("application/json", b'{"data": {"image": 3}}', 400, "data.image: "),
        ("application/json", b'{"data": {"image": ""}}', 400, "data.image: "),
        ("application/json", b'{"data": ' + b" " * 70_000, 413, "larger than 65,536"),
        ("image/jpeg", b"x", 415, "Received: image/jpeg"),
        ("", b"x", 415, "no content type"),
    ],
)
def test_bodies_that_cannot_be_read(client, kind, body, status, message):
    answer = client.post("/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == status and message in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../secret.png", 403),
        ("volume/../../secret.png", 403),
        ("/etc/passwd", 403),
        ("out.png", 403),
        ("away/secret.png", 403),
        ("away/root/volume/good/000.jpg", 200),  # a link out and in again is inside
        ("device.png", 403),
        ("nul\0.png", 403),
        (".", 403),
        ("pipe.png", 422),
        ("volume", 422),
        ("text.png", 422),
        ("large.png", 413),
        ("missing.png", 404),
        ("volume/good/000.jpg/more", 404),
        ("x" * 300, 404),
        ("\ud800.png", 400),
        ("%2e%2e/secret.png", 404),
    ],
)
def test_files_below_the_roots_only(client, root, name, status):
    body = json.dumps({"data": {"image": name}})
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert str(root) not in answer.text and "secret text" not in answer.text


def test_roots(client, washer, tmp_path):
    with pytest.raises(OptionError, match="names a folder"):
        Roots([tmp_path / "none"])
    with pytest.raises(Refusal, match="without --root"):
        Roots([]).read("a.png", 1)
    write_image(tmp_path / "b" / "one.png", draw_part(0))
    (tmp_path / "a").mkdir()
    assert Roots([tmp_path / "a", tmp_path / "b"]).read("one.png", 10**6)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"thresh": "nan"}, 422, "thresh: Input should be a finite number"),
        ({"thresh": "1.5"}, 422, "thresh: Input should be less than or equal to 1"),
        ({"thresh": "high"}, 422, "thresh: "),
        ({"thresh": ["0.1", "0.9"]}, 422, "An option is given more than once"),
        ({"heatmap": "blue"}, 422, "heatmap: "),
        ({"model": "none"}, 404, "Models: washer, other"),
    ],
)
def test_options_of_a_request(client, files, query, status, message):
    answer = upload(client, files[0], **query)
    assert answer.status_code == status and message in answer.json()["error"]


def test_paths_that_do_not_exist(client):
    for method, path, status in (("GET", "/nope", 404), ("GET", "/predict", 405)):
        answer = client.request(method, path)
        assert answer.status_code == status and "/docs" in answer.json()["error"]


def test_a_full_queue_says_when_to_come_again(client, service, files):
    with service.places(service.settings.queue):
        answer = upload(client, files[0])
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200
    assert service.images == 0
    assert upload(client, files[0]).status_code == 200


def test_a_failure_is_one_line_in_the_log_and_no_path_in_the_answer(
    client, service, files, monkeypatch, caplog
):
    def fail(*args, **options):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("anomaly_ad.service.app.answer", fail)
    with caplog.at_level("ERROR"):
        made = TestClient(create_app(service))
        answer = upload(made, files[0])
    assert answer.status_code == 500 and "/secret" not in answer.text
    assert "its log says why" in answer.json()["error"]
    assert any(record.exc_info for record in caplog.records)


def test_a_verdict_has_a_deadline(service, files, monkeypatch):
    monkeypatch.setattr("anomaly_ad.service.app.answer", lambda *_, **__: time.sleep(0.3))
    hurried = Service(replace(service.settings, timeout=0.05), service.models, Metrics())
    answer = upload(TestClient(create_app(hurried)), files[0])
    assert answer.status_code == 503 and "no verdict within 0.05 s" in answer.json()["error"]
    hurried.close()


# ---------------------------------------------------------------------- status and access


def test_status_pages(client, washer):
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/ready").json()["models"] == ["washer", "other"]
    facts = client.get("/models").json()
    first = facts["models"][0]
    limit = load(washer[0]).manifest.calibration.image
    assert first["limit"] == limit.limit and first["median"] == limit.median
    assert first["method"] == "padim" and facts["threshold"] == 0.8
    assert str(washer[0]) not in json.dumps(facts)


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/models", "/metrics", "/docs"])
def test_whoever_asks_with_head_gets_the_same_head(client, path, caplog):
    with caplog.at_level("INFO"):
        assert client.request("HEAD", path).status_code == 200
    said = [record for record in caplog.records if record.getMessage() == "request"]
    assert [record.method for record in said] == ["HEAD"]
    assert client.request("HEAD", "/predict").status_code == 405


def test_metrics_count(client, service, files):
    upload(client, files[1])
    client.get("/made-up-path")
    text = client.get("/metrics").text
    assert 'anomaly_ad_images_total{model="washer",verdict="anomalous"}' in text
    assert 'anomaly_ad_requests_total{path="/predict",status="200"}' in text
    assert "anomaly_ad_images_accepted_limit 8.0" in text and "made-up" not in text
    assert "process_resident_memory_bytes" in text


def test_openapi_and_its_page_need_no_network(client):
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    assert {p["name"] for p in schema["paths"]["/predict"]["post"]["parameters"]} == {
        "model",
        "thresh",
        "heatmap",
        "anomaly_map",
    }
    page = client.get("/docs").text
    assert "POST /predict" in page and "http://" not in page and "https://" not in page


def test_the_answer_is_as_the_schema_says(client, files):
    fields = client.get("/openapi.json").json()["components"]["schemas"]["Verdict"]["properties"]
    answer = upload(client, files[0], heatmap=True, anomaly_map=True).json()
    assert set(answer) == set(fields)


def test_a_token_is_asked_for_everywhere_but_where_nothing_is_told(washer, service, files):
    from dataclasses import replace

    token = "0123456789abcdef"
    locked = Service(replace(service.settings, token=token), service.models, Metrics())
    client = TestClient(create_app(locked))
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    for path in ("/models", "/metrics", "/nope"):
        assert client.get(path).status_code == 401
    for given in ("", "Bearer", "Bearer wrong", f"Basic {token}", f"Bearer {token}x", "Bearer é"):
        answer = upload_with(client, files[0], given)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"].startswith("The token is wrong." if given else "Send the")
    assert upload_with(client, files[0], f"Bearer {token}").status_code == 200
    locked.close()


def upload_with(client, file, authorization):
    headers = {"authorization": authorization.encode()}
    return client.post("/predict", files={"image": file.read_bytes()}, headers=headers)


def test_an_option_that_would_be_overlooked_is_refused(client, files):
    """The verdict would be for another threshold than was asked for."""
    image = files[0].read_bytes()
    answer = client.post("/predict", files={"image": image}, params={"threshold": 0.1})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("threshold: Extra inputs are not permitted.")
    assert answer.json()["error"].endswith(" Options: model, thresh, heatmap, anomaly_map.")
    for content in (
        {"data": {"image": "a.png", "thresh": 0.2}},
        {"data": {"image": "a.png"}, "model": "x"},
    ):
        answer = client.post("/predict", json=content)
        assert answer.status_code == 400 and "in the query" in answer.json()["error"]
    answer = client.post("/predict", files=[("image", image), ("threshold", b"0.1")])
    assert answer.status_code == 400 and "'threshold' is not a field" in answer.json()["error"]
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["parameters"]
    assert tuple(one["name"] for one in described) == tuple(Options.model_fields)


def test_nobody_is_sent_elsewhere(client, files):
    """A redirect would name the host that the client has named, and no TLS."""
    for path in ("/predict/", "/models/"):
        answer = client.post(path, files={"image": files[0].read_bytes()})
        assert answer.status_code == 404 and "location" not in answer.headers


# ------------------------------------------------------------------------------- settings


def test_names_of_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert name_models(["Models/bottle", "x=Models/cap"]).keys() == {"bottle", "x"}
    with pytest.raises(OptionError, match="Two models are called 'model'"):
        name_models(["A/model", "B/model"])
    for wrong in ("=path", "a b=path", "a=b", "../=x"):
        with pytest.raises(OptionError, match="NAME=MODEL"):
            name_models([wrong])


def test_tokens(tmp_path):
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert read_token(file, {}) == "0123456789abcdef"
    assert read_token(None, {}) is None
    assert read_token(None, {"ANOMALY_AD_TOKEN": "f" * 32}) == "f" * 32
    for wrong in ("", "short", "x" * 20 + "\n" + "y"):
        with pytest.raises(OptionError, match="at least 16"):
            read_token(None, {"ANOMALY_AD_TOKEN": wrong})
    with pytest.raises(OptionError, match="cannot be read"):
        read_token(tmp_path / "none", {})


@pytest.mark.parametrize("wrong", [{"queue": 0}, {"timeout": float("nan")}, {"threshold": 2}])
def test_settings_are_checked(wrong):
    with pytest.raises(OptionError):
        Settings(**wrong)


# ------------------------------------------------------------------------- replaced models


@pytest.fixture
def watched(washer, tmp_path):
    """A model of its own; (directory, Models, what they have said)."""
    directory = tmp_path / "model"
    shutil.copytree(washer[0], directory)
    changes = []
    models = Models({"m": directory}, lambda *change: changes.append(change))
    return directory, models, changes


def test_a_replaced_model_is_taken_up_and_a_damaged_one_is_not(watched, caplog):
    directory, models, changes = watched
    before = models.get("m")
    models.look()
    assert models.get("m") is before and not changes
    limits = before.stored.manifest.calibration
    moved = Calibration.moved(limits, limits.image.limit * 2, [0.0, 1.0], {"by": "hand"})
    before.stored.with_limits(moved, directory)
    models.look()
    after = models.get("m")
    assert after.stored.digest != before.stored.digest and changes == [("m", True)]
    assert after.stored.manifest.calibration.image.limit == pytest.approx(2 * limits.image.limit)
    manifest = (directory / "manifest.json").read_text()
    with caplog.at_level("ERROR"):
        for _ in range(3):  # said once, tried each time
            (directory / "manifest.json").write_text(manifest.replace("padim", "padem"))
            models.look()
    assert models.get("m") is after and changes == [("m", True), ("m", False)]
    (damaged,) = caplog.records
    assert "manifest was changed" in damaged.error and not damaged.exc_info
    (directory / "manifest.json").unlink()
    models.look()
    (directory / "manifest.json").write_text(manifest)
    models.look()
    assert models.get("m").stored.digest == after.stored.digest


def test_a_model_that_is_gone_is_said_once_and_serves_on(watched, tmp_path, caplog):
    directory, models, changes = watched
    before = models.get("m")
    directory.rename(tmp_path / "away")
    models.look()
    assert not changes  # it may be on its way
    for _ in range(3):
        models.look()
    assert changes == [("m", False)] and models.get("m") is before
    (gone,) = caplog.records
    assert gone.error == f"{directory} no longer holds a model." and gone.model == "m"
    (tmp_path / "away").rename(directory)
    models.look()
    assert models.get("m") is before and changes == [("m", False)]
