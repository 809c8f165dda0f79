"""The service as a process of its own: sockets, deadlines, signals, replaced models."""

import contextlib
import http.server
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from anomaly_ad.model.calibration import Calibration
from anomaly_ad.model.store import load

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "anomaly_ad", "serve"]


@contextlib.contextmanager
def running(model, *options, **variables):
    """A server; (process, port). Its log is read when it has ended."""
    process = subprocess.Popen(
        [*COMMAND, f"washer={model}", "--port", "0", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    # Read all the time: a full pipe would stop the server.
    process.log = []
    reader = threading.Thread(target=lambda: process.log.extend(process.stderr))
    reader.start()
    try:
        address = process.stdout.readline()
        assert address.startswith("http://127.0.0.1:"), process.log
        yield process, int(address.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait(timeout=60)
        reader.join()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def server(washer):
    with running(washer[0], "--timeout", 1, "--max-bytes", 300_000) as found:
        yield found


@pytest.fixture(scope="module")
def request_bytes(washer):
    return posted((washer[1] / "test" / "dent" / "000.jpg").read_bytes())


def posted(data, extra=""):
    head = '--XX\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + data + b"\r\n--XX--\r\n"
    lines = (
        "POST /predict HTTP/1.1",
        "host: x",
        "content-type: multipart/form-data; boundary=XX",
        f"content-length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + f"\r\n{extra}\r\n".encode() + body


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read(connection):
    """(status, body); (0, b"") where the connection is closed without an answer."""
    return read_last(connection)[:2]


def read_last(connection):
    """As `read`, and whether the server says that it closes the connection."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return 0, b"", True
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        sizes = [line for line in head.lower().split(b"\r\n") if b"content-length:" in line]
        # Without a length, as the server refuses what is not HTTP, it ends with the connection.
        size = int(sizes[0].split(b":")[1]) if sizes else 10**9
        while len(body) < size:
            chunk = connection.recv(65536)
            if not chunk and sizes:
                return 0, b"", True
            if not chunk:
                break
            body += chunk
        return int(head.split()[1]), body, b"connection: close" in head.lower()
    except ConnectionResetError:
        return 0, b"", True


def get(path):
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def exchange(port, data):
    with connect(port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return read(connection)


def test_it_answers_and_logs_lines_of_json(washer, request_bytes):
    with running(washer[0]) as (process, port):
        status, body = exchange(port, request_bytes)
        assert status == 200 and json.loads(body)["is_anomalous"] is True
        exchange(port, get("/nope%0ainjected"))
    assert process.returncode == 0
    lines = [json.loads(line) for line in process.log]
    assert [line["message"] for line in lines] == ["listening", "request", "request", "ended"]
    first = lines[1]
    assert first["path"] == "/predict" and first["status"] == 200 and first["images"] == 1
    assert first["model"] == "washer" and first["ms"] > 0 and first["level"] == "info"
    assert lines[2]["path"] == "/nope\ninjected" and lines[2]["status"] == 404


def test_the_log_is_json_whatever_libraries_print(washer):
    """OpenCV writes libtiff's warnings to stderr by itself: here of tags that nobody knows."""
    tiff = cv2.imencode(".tif", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (start,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, start)
    tags = tiff[start + 2 : start + 2 + 12 * count]
    tags += b"".join(struct.pack("<HHII", 40_000 + n, 4, 1, 7) for n in range(1000))
    directory = struct.pack("<H", count + 1000) + tags + bytes(4)
    tiff = tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory
    with running(washer[0]) as (process, port):
        assert exchange(port, posted(tiff))[0] == 200
    assert len([json.loads(line) for line in process.log]) == 3


@pytest.mark.parametrize("reader", ["asleep", "gone", "never there"])
def test_it_goes_on_where_nobody_reads_its_log(washer, request_bytes, reader):
    command = shlex.join([*COMMAND, f"washer={washer[0]}", "--port", "0"])
    process = subprocess.Popen(
        ["sh", "-c", "exec " + command + " 2>&-" * (reader == "never there")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        if reader == "gone":
            process.stderr.close()
        with connect(port) as connection:
            for _ in range(500):  # more lines than a pipe holds
                connection.sendall(get("/health"))
                assert read(connection)[0] == 200
            connection.sendall(request_bytes)
            assert read(connection)[0] == 200
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_it_runs_where_nobody_hears_it_at_all(washer):
    """What is opened in the places of stdin, stdout and stderr would get what goes there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = shlex.join([*COMMAND, f"washer={washer[0]}", "--port", str(port)])
    process = subprocess.Popen(["sh", "-c", f"exec {command} <&- >&- 2>&-"])
    with process:
        for _ in range(200):
            with contextlib.suppress(ConnectionRefusedError):
                assert exchange(port, get("/health"))[0] == 200
                break
            time.sleep(0.1)
        assert exchange(port, get("/metrics"))[0] == 200
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_the_second_signal_ends_it_at_once(washer, request_bytes):
    with running(washer[0]) as (process, port), connect(port) as slow:
        slow.sendall(request_bytes[:-9])
        assert exchange(port, get("/health"))[0] == 200
        process.terminate()
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=5) == 128 + signal.SIGTERM


def test_who_breaks_off_is_logged_and_counted(washer, request_bytes):
    with running(washer[0], "--timeout", 1) as (process, port):
        with connect(port) as late:
            late.sendall(request_bytes[:400])
            status, body, last = read_last(late)
            assert status == 408 and last and "longer than 1 s" in json.loads(body)["error"]
        with connect(port) as gone:
            gone.sendall(request_bytes[:400])
        time.sleep(0.2)
        counted = exchange(port, get("/metrics"))[1].decode()
    lines = [json.loads(line) for line in process.log]
    assert [(line["path"], line["status"]) for line in lines if line["message"] == "request"] == [
        ("/predict", 408),
        ("/predict", None),
        ("/metrics", 200),
    ]
    for status in ("408", "none"):
        assert f'requests_total{{path="/predict",status="{status}"}} 1.0' in counted


def test_a_trickle_does_not_move_the_deadline(server, request_bytes):
    begun = time.monotonic()
    with connect(server[1]) as connection:
        connection.sendall(request_bytes[:400])
        with contextlib.suppress(OSError):
            for byte in request_bytes[400:600]:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("extra", ["", "connection: close\r\n"])
def test_who_still_sends_gets_the_answer_to_what_is_refused(server, extra):
    """If it was left unread, the system would reset the connection."""
    length = 20_000_000
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\n{extra}content-length: {length}\r\n"
    with connect(server[1]) as connection:
        connection.sendall(head.encode() + b"content-type: multipart/form-data; boundary=X\r\n\r\n")
        connection.sendall(bytes(length))
        status, body, last = read_last(connection)
    assert status == 413 and last and "larger than 300,000 bytes" in json.loads(body)["error"]


def test_an_answer_that_nobody_takes_is_given_up(washer, tmp_path):
    """It holds its room in the queue no longer than that."""
    image = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    asking = posted(data).replace(b"/predict", b"/predict?heatmap=true", 1)
    options = ("--timeout", 2, "--max-bytes", len(data) + 500)
    with running(washer[0], *options) as (_, port), contextlib.ExitStack() as stack:
        for _ in range(8):
            idle = stack.enter_context(socket.socket())
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            idle.connect(("127.0.0.1", port))
            idle.sendall(asking)
        deadline = time.monotonic() + 20
        time.sleep(2)
        while (status := exchange(port, posted(data))[0]) != 200:
            assert status == 503 and time.monotonic() < deadline
            time.sleep(0.2)


def test_several_requests_on_one_connection(server, request_bytes):
    with connect(server[1]) as connection:
        for _ in range(3):
            connection.sendall(request_bytes)
            assert read(connection)[0] == 200
        connection.sendall(request_bytes[:-9])  # the last bytes come later
        time.sleep(0.2)
        connection.sendall(request_bytes[-9:])
        assert read(connection)[0] == 200


@pytest.fixture(scope="module")
def patient(washer):
    """A server that gives everybody time, but has little room."""
    with running(washer[0], "--queue", 2, "--max-bytes", 300_000) as found:
        yield found


def test_clients_that_send_headers_only_shut_nobody_out(patient, request_bytes):
    head = request_bytes[: request_bytes.index(b"\r\n\r\n") + 4]
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(patient[1])) for _ in range(20)]
        for connection in slow:
            connection.sendall(head)
        for _ in range(3):
            assert exchange(patient[1], request_bytes)[0] == 200
        assert exchange(patient[1], get("/ready"))[0] == 200
        slow[7].sendall(request_bytes[len(head) :])
        assert read(slow[7])[0] == 200


PART = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
FORM = b"content-type: multipart/form-data; boundary=XX\r\n"
CHUNKED = b"POST /predict HTTP/1.1\r\nhost: x\r\n" + FORM + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000, {400, 0}),
        (b"GET / HTTP/1.1\r\n" + b"x: a\r\n" * 20_000, {400, 0}),
        (b"GET /" + b"a" * 200_000, {400, 0}),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),
        (b"GET /\xe4 HTTP/1.1\r\n\r\n", {400}),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404, 405}),
        (posted(bytes(400_000)), {413}),
        (posted(b"x", "upgrade: h2c\r\nconnection: upgrade\r\n"), {422}),
        (posted(b"x", "upgrade: websocket\r\nconnection: upgrade\r\n"), {422}),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", {400}),
        (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n",
            {400, 413},
        ),
        (posted(b"x", "transfer-encoding: chunked\r\n"), {400, 0}),
        (CHUNKED + b"zz\r\n", {0, 400}),
        (CHUNKED + b"ffffff\r\n" + PART + bytes(400_000), {413}),
        (CHUNKED + b"0\r\n" + b"a: b\r\n" * 500_000, {400, 0}),
        (CHUNKED + b"0\r\na: " + b"b" * 3_000_000, {400, 0}),
    ],
)
def test_what_no_client_should_send(server, request_bytes, data, statuses):
    assert exchange(server[1], data)[0] in statuses
    assert exchange(server[1], request_bytes)[0] == 200


def test_the_token_is_not_where_others_can_read_it(washer, request_bytes):
    token = "0123456789abcdef"
    with running(washer[0], ANOMALY_AD_TOKEN=token) as (process, port):
        assert exchange(port, request_bytes)[0] == 401
        authorized = request_bytes.replace(
            b"host: x", b"host: x\r\nauthorization: Bearer " + token.encode()
        )
        assert exchange(port, authorized)[0] == 200
    assert token not in "".join(process.log)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing"], 1, "holds no model"),
        (["{model}", "{model}"], 2, "Two models are called"),
        (["{model}", "--root", "missing"], 2, "names a folder"),
        (["{model}", "--thresh", "7"], 2, "thresh is a score"),
        (["{model}", "--queue", "0"], 2, "queue is greater than 0"),
        (["{model}", "--timeout", "inf"], 2, "timeout is greater than 0 and finite"),
        (["{model}", "--host", "203.0.113.1"], 2, "cannot listen on 203.0.113.1"),
        (["{model}", "--port", "99999"], 2, "must be 0-65535. Choose"),
    ],
)
def test_wrong_usage_is_one_message(washer, arguments, code, message):
    filled = [word.format(model=washer[0]) for word in arguments]
    done = subprocess.run(
        [*COMMAND, "--port", "0", *filled], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code and message in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- under load


class Load:
    """Four clients that post until they are told to end, or until the server takes no more."""

    def __init__(self, port, data):
        self.port, self.data = port, data
        self.answers, self.digests, self.lost = Counter(), Counter(), []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._end.is_set():
            try:
                connection = connect(self.port)
            except OSError:
                return
            with connection:
                self._post(connection)

    def _post(self, connection):
        number = 0
        while not self._end.is_set():
            try:
                connection.sendall(self.data)
            except OSError:
                return  # closed by the server when nothing was under way
            status, body, last = read_last(connection)
            if not status:
                # What still lay in the system's queue was never accepted by the server.
                self.lost += ["lost"] if number else []
                return
            self.answers[status] += 1
            self.digests[json.loads(body).get("digest")] += 1
            number += 1
            if last:
                return

    def end(self):
        self._end.set()
        self.join()

    def join(self):
        for thread in self._threads:
            thread.join(timeout=30)


def test_sigterm_answers_what_was_accepted(washer, request_bytes):
    with running(washer[0]) as (process, port):
        load = Load(port, request_bytes)
        late = connect(port)
        late.sendall(request_bytes[:-9])  # half a request is accepted as well
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        late.sendall(request_bytes[-9:])
        assert read(late)[0] == 200
        late.close()
        load.join()
        assert process.wait(timeout=20) == 0
    assert load.answers[200] > 10 and set(load.answers) == {200} and not load.lost


def test_a_replaced_model_is_taken_up_without_dropping_a_request(washer, request_bytes, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(washer[0], directory)
    before = load(directory)
    with running(directory) as (_, port):
        clients = Load(port, request_bytes)
        time.sleep(0.5)
        limits = before.manifest.calibration
        moved = Calibration.moved(limits, limits.image.limit * 1.5, [0.0, 1.0], {"by": "hand"})
        after = before.with_limits(moved, directory)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not clients.digests[after.digest]:
            time.sleep(0.1)
        clients.end()
    assert set(clients.answers) == {200} and not clients.lost
    assert set(clients.digests) == {before.digest, after.digest}


def test_a_model_directory_that_is_written_over_in_place(washer, request_bytes, tmp_path):
    """Copying with cp empties files that the server has open; it must not fall."""
    directory = tmp_path / "model"
    shutil.copytree(washer[0], directory)
    with running(directory) as (process, port):
        clients = Load(port, request_bytes)
        for _ in range(20):
            for file in washer[0].iterdir():
                shutil.copyfile(file, directory / file.name)
            time.sleep(0.02)
        clients.end()
        assert process.poll() is None
        assert exchange(port, request_bytes)[0] == 200
    assert set(clients.answers) == {200} and not clients.lost


# --------------------------------------------------------- what the service's page shows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


@pytest.fixture
def as_on_the_page(washer, tmp_path, monkeypatch):
    """The page's own command in a folder as it expects; the port that was taken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Models").mkdir()
    (tmp_path / "Models" / "model").symlink_to(washer[0])
    shutil.copytree(washer[1], tmp_path / "Dataset" / "Washer")
    line = re.search(r"^anomaly-ad (serve .*)$", PAGE, re.MULTILINE).group(1)
    _, model, *options = line.split()
    with running(model, *options) as (_, port):
        yield port


def test_the_curl_line(as_on_the_page):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line = re.search(r"^curl .*$", PAGE, re.MULTILINE).group(0)
    command = [*shlex.split(line.replace(":8000/", f":{as_on_the_page}/")), "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["is_anomalous"] is True and answer["threshold"] == 0.8 and answer["boxes"]


def test_the_json_form(as_on_the_page):
    form = re.search(r'`(\{"data".*?\}\})`', PAGE).group(1).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    length = f"content-length: {len(form)}\r\n\r\n".encode()
    status, body = exchange(as_on_the_page, head + length + form)
    assert status == 200 and json.loads(body)["is_anomalous"] is True


def test_the_client(as_on_the_page, washer, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    test = Path("Dataset/Washer/test")
    images = [test / "good" / "000.jpg", tmp_path / "torn.jpg", test / "dent" / "000.jpg"]
    command = [sys.executable, ROOT / "examples" / "client.py"]
    address = ["--address", f"http://127.0.0.1:{as_on_the_page}"]
    done = subprocess.run([*command, *images, *address], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["good", "ERROR", "ANOMALOUS"]
    slash = [*address[:-1], address[-1] + "/"]
    done = subprocess.run([*command, images[0], *slash], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("good")
    odd = tmp_path / 'a "new"\nline é.jpg'
    shutil.copyfile(images[0], odd)
    proxied = {**os.environ, "http_proxy": "http://203.0.113.1:1"}
    done = subprocess.run([*command, odd, *address], capture_output=True, text=True, env=proxied)
    assert done.returncode == 0 and done.stdout.endswith("a _new__line é.jpg\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for arguments, message in (
        ([images[0], "--address", f"http://127.0.0.1:{port}"], "No service answers at http://127"),
        (["missing.jpg", *address], "missing.jpg"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_the_short_client(as_on_the_page, tmp_path, monkeypatch):
    pytest.importorskip("urllib3", reason="needs the extra 'line'")
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    monkeypatch.setenv("ANOMALY_AD_ADDRESS", f"http://127.0.0.1:{as_on_the_page}")
    test = Path("Dataset/Washer/test")
    images = [test / "good" / "000.jpg", tmp_path / "torn.jpg", test / "dent" / "000.jpg"]
    command = [sys.executable, ROOT / "examples" / "fastapi_client.py", *images]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["good", "ERROR", "ANOMALOUS"]


def load_client():
    framing = importlib.util.spec_from_file_location("client", ROOT / "examples" / "client.py")
    client = importlib.util.module_from_spec(framing)
    framing.loader.exec_module(client)
    return client


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", "IncompleteRead"),
        (b"rubbish\r\n\r\n", "rubbish"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "not an inspection service"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "not an inspection service"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\n<p>", "not an inspection service"),
        (
            b'HTTP/1.0 500 Oh\r\n\r\n{"is_anomalous": false, "score": 0, "name": "a"}',
            "not an inspection",
        ),
        (
            b'HTTP/1.0 200 OK\r\n\r\n{"is_anomalous": null, "score": 0, "name": "a"}',
            "not an inspection",
        ),
        (
            b'HTTP/1.0 200 OK\r\n\r\n{"is_anomalous": true, "score": NaN, "name": "a"}',
            "not an insp",
        ),
        (
            b'HTTP/1.0 200 OK\r\n\r\n{"is_anomalous": true, "score": "1", "name": "a"}',
            "not an insp",
        ),
        (
            b"HTTP/1.0 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
            "not an inspection service",
        ),
        (b'HTTP/1.0 200 OK\r\n\r\n{"predictions": null}', "not an inspection service"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"predictions": []}', "not an inspection service"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"predictions": ["error"]}', "not an inspection service"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"predictions": [{}]}', "not an inspection service"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"is_anomalous": true}', "not an inspection service"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\n\r\n" + 100_000 * b"[", "not an inspection service", id="nested"
        ),
        (None, "nonnumeric port"),
    ],
)
def test_the_client_says_what_is_no_answer(tmp_path, answer, message):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # what is left unread would reset the connection
                    pass

        port = "x"
        if answer is not None:
            threading.Thread(target=serve, daemon=True).start()
            port = listener.getsockname()[1]
        command = [sys.executable, ROOT / "examples" / "client.py", file]
        done = subprocess.run(
            [*command, "--address", f"http://127.0.0.1:{port}"], capture_output=True, text=True
        )
    assert done.returncode == 1 and not done.stdout and "Traceback" not in done.stderr
    assert done.stderr.startswith("There is no answer: ") and message in done.stderr


def test_the_client_wants_a_verdict_of_each_image(monkeypatch):
    """Else one that has no verdict passes for good."""
    client = load_client()
    verdict = {"is_anomalous": False, "score": 0.25, "name": "\ud800"}

    def findings(said, images):
        return client._findings(io.BytesIO(json.dumps(said).encode()), images)

    assert findings(verdict, 1) == [verdict]
    assert findings({"predictions": [verdict, {"error": "x"}]}, 2) == [verdict, {"error": "x"}]
    several = {"predictions": [verdict, verdict]}
    for said, images in (
        (verdict, 2),
        (several, 1),
        (several, 3),
        (verdict, 0),
        ([["error", 1]], 1),
    ):
        with pytest.raises(ValueError, match="not an inspection service"):
            findings(said, images)
    monkeypatch.setattr(client, "predict", lambda *_: [verdict])
    monkeypatch.setattr(sys, "argv", ["client.py", "a.jpg"])
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "utf-8"))
    with pytest.raises(SystemExit, match="0"):
        client.main()
    sys.stdout.flush()
    assert printed.getvalue().split() == [b"good", b"0.250", b"\\ud800"]


def test_the_client_comes_again(monkeypatch, server, tmp_path):
    """It is told when; a date is no number of seconds."""
    client = load_client()
    pauses = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    answers = [
        (503, {"Retry-After": "3"}),
        (408, {}),
        (503, {"Retry-After": "tomorrow"}),
        (503, {"Retry-After": "999999999999"}),
        (422, {}),
    ]

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            status, headers = answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b'{"error": "said"}')

        def log_message(self, *_):
            pass

    file = tmp_path / "a.jpg"
    file.write_bytes(bytes(20_000_000))
    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as busy:
        threading.Thread(target=busy.serve_forever, daemon=True).start()
        found = client.predict(f"http://127.0.0.1:{busy.server_port}", [file])
        busy.shutdown()
    assert found == [{"error": "said"}] and pauses == [3, 1, 1, 60]
    # What is too large is refused before it was sent, and the client hears of it.
    (found,) = client.predict(f"http://127.0.0.1:{server[1]}", [file])
    assert "larger than 300,000 bytes" in found["error"]


def test_every_option_is_described():
    from anomaly_ad.cli import app

    (command,) = (c for c in app.registered_commands if c.name == "serve")
    section = PAGE[PAGE.index("## Options") : PAGE.index("## Asking")]
    options = set(inspect.signature(command.callback).parameters) - {"model"}
    assert not {name for name in options if f"`--{name.replace('_', '-')}`" not in section}


def test_the_unit_starts_what_there_is(washer):
    unit = (ROOT / "examples" / "anomaly-ad.service").read_text()
    line = re.search(r"^ExecStart=\S*/anomaly-ad (.*)$", unit, re.MULTILINE).group(1)
    known = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    assert line.startswith("serve ")
    for option in re.findall(r"--[\w-]+", line):
        assert option in known
    if shutil.which("systemd-analyze"):
        path = ROOT / "examples" / "anomaly-ad.service"
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
        assert "Unknown" not in done.stderr


@contextlib.contextmanager
def proxied(port, folder, **changed):
    """The example's configuration in front of a port; the proxy's port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        front = free.getsockname()[1]
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    made = [*request, "-keyout", key, "-out", certificate, "-days", "1"]
    subprocess.run(made, check=True, capture_output=True)
    text = (ROOT / "examples" / "nginx.conf").read_text()
    for old, new in {
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        "listen 443 ssl": f"listen 127.0.0.1:{front} ssl",
        "/etc/ssl/certs/inspection.pem": str(certificate),
        "/etc/ssl/private/inspection.key": str(key),
        **changed,
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    temporary = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in temporary)
    (folder / "nginx.conf").write_text(
        # Started by root it would change to a user who may not read this folder.
        f"{'user root;' * (os.getuid() == 0)} daemon off; pid {folder}/pid; "
        f"error_log {folder}/error.log; events {{}} http {{ access_log off; {paths} {text} }}"
    )
    process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-p", folder])
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                connect(front).close()
                break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield front
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_proxy_of_the_example(washer, request_bytes, tmp_path):
    """It passes requests on, and ends clients that are slow, which the service does not."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    short = {"client_header_timeout 10s": "client_header_timeout 1s"}
    short["client_body_timeout 10s"] = "client_body_timeout 1s"
    with running(washer[0]) as (process, port), proxied(port, tmp_path, **short) as front:
        for _ in range(3):
            with trusting.wrap_socket(connect(front)) as client:
                client.sendall(request_bytes)
                status, body = read(client)
                assert status == 200 and json.loads(body)["is_anomalous"] is True
        with trusting.wrap_socket(connect(front)) as large:
            large.sendall(posted(bytes(32_500_000)))
            status, body = read(large)
            assert status == 413 and "larger than 32,000,000" in json.loads(body)["error"]
        for sent in (10, 400):  # half a head, half a body
            with trusting.wrap_socket(connect(front)) as slow:
                begun = time.monotonic()
                slow.sendall(request_bytes[:sent])
                assert read(slow)[0] in (0, 408) and time.monotonic() - begun < 10
    lines = [json.loads(line) for line in process.log]
    assert [line["status"] for line in lines if line["message"] == "request"] == [200] * 3 + [413]


WITHOUT = """
import sys
for name in ("tensorflow", "keras", "scipy", "sklearn", "matplotlib"):
    sys.modules[name] = None  # importing it raises ImportError
from anomaly_ad.cli import main
main()
"""


def test_it_needs_no_tensorflow(washer, request_bytes, monkeypatch):
    monkeypatch.setattr("test_service_process.COMMAND", [sys.executable, "-c", WITHOUT, "serve"])
    with running(washer[0]) as (_, port):
        assert exchange(port, request_bytes)[0] == 200
