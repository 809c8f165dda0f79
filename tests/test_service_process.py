"""The service as a process of its own: sockets, deadlines, signals, replaced models."""

import contextlib
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from anomaly_ad.calibration import Calibration
from anomaly_ad.model_store import load

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
        size = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        while len(body) < size:
            chunk = connection.recv(65536)
            if not chunk:
                return 0, b"", True
            body += chunk
        return int(head.split()[1]), body, b"connection: close" in head.lower()
    except ConnectionResetError:
        return 0, b"", True


def exchange(port, data):
    with connect(port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return read(connection)


def test_it_answers_and_logs_lines_of_json(washer, request_bytes):
    with running(washer[0]) as (process, port):
        status, body = exchange(port, request_bytes)
        assert status == 200 and json.loads(body)["is_anomalous"] is True
        exchange(port, b"GET /nope%0ainjected HTTP/1.1\r\nhost: x\r\n\r\n")
    assert process.returncode == 0
    lines = [json.loads(line) for line in process.log]
    assert [line["message"] for line in lines] == ["listening", "request", "request", "ended"]
    first = lines[1]
    assert first["path"] == "/predict" and first["status"] == 200 and first["images"] == 1
    assert first["model"] == "washer" and first["ms"] > 0 and first["level"] == "info"
    assert lines[2]["path"] == "/nope\ninjected" and lines[2]["status"] == 404


def test_several_requests_on_one_connection(server, request_bytes):
    with connect(server[1]) as connection:
        for _ in range(3):
            connection.sendall(request_bytes)
            assert read(connection)[0] == 200
        connection.sendall(request_bytes[:-9])  # the last bytes come later
        time.sleep(0.2)
        connection.sendall(request_bytes[-9:])
        assert read(connection)[0] == 200


def test_a_client_that_has_closed_its_half_is_answered(server, request_bytes):
    with connect(server[1]) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        assert read(connection)[0] == 200 and connection.recv(1) == b""


@pytest.mark.parametrize("sent", [0, 10, 400])
def test_slow_clients_get_no_more_than_the_timeout(server, request_bytes, sent):
    begun = time.monotonic()
    with connect(server[1]) as connection:
        connection.sendall(request_bytes[:sent])
        assert read(connection)[0] == 408 and connection.recv(1) == b""
    assert 0.8 < time.monotonic() - begun < 5


def test_a_trickle_does_not_move_the_deadline(server, request_bytes):
    begun = time.monotonic()
    with connect(server[1]) as connection, contextlib.suppress(OSError):
        for byte in request_bytes[:200]:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    assert time.monotonic() - begun < 5


def test_a_client_that_does_not_take_its_answer_is_dropped(server):
    process, port = server
    with connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(OSError):
            for _ in range(3000):  # answers pile up until the server reads no more
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and connections(process) > 0:
            time.sleep(0.1)
        assert connections(process) == 0


def connections(process):
    """Established ones of a process, as the system counts them."""
    sockets = 0
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets += str(file.readlink()).startswith("socket:")
    return sockets - 3  # the one that listens, and the event loop's own pair


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000, {431, 0}),
        (b"GET / HTTP/1.1\r\n" + b"x: a\r\n" * 20_000, {431, 0}),
        (b"GET /" + b"a" * 200_000, {431, 0}),
        (b"\x16\x03\x01\x02\x00\x01\x00", {400}),
        (b"GET /\xe4 HTTP/1.1\r\n\r\n", {400}),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404, 0}),
        (posted(bytes(400_000)), {413}),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", {400}),
        (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n",
            {400, 413},
        ),
        (posted(b"x", "transfer-encoding: chunked\r\n"), {400}),
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
        (["{model}", "--host", "203.0.113.1"], 2, "cannot listen on 203.0.113.1"),
        (["{model}", "--port", "99999"], 2, "cannot listen on"),
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


# ------------------------------------------------------------------- what the README shows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def as_in_the_readme(washer, tmp_path, monkeypatch):
    """The README's own command in a folder as it expects; the port that was taken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Models").mkdir()
    (tmp_path / "Models" / "model").symlink_to(washer[0])
    shutil.copytree(washer[1], tmp_path / "Dataset" / "Washer")
    line = re.search(r"^anomaly-ad (serve .*)$", README, re.MULTILINE).group(1)
    _, model, *options = line.split()
    with running(model, *options) as (_, port):
        yield port


def test_the_curl_line(as_in_the_readme):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line = re.search(r"^curl .*$", README, re.MULTILINE).group(0)
    command = [*shlex.split(line.replace(":8000/", f":{as_in_the_readme}/")), "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["is_anomalous"] is True and answer["threshold"] == 0.8 and answer["boxes"]


def test_the_json_form(as_in_the_readme):
    form = re.search(r'`(\{"data".*?\}\})`', README).group(1).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    length = f"content-length: {len(form)}\r\n\r\n".encode()
    status, body = exchange(as_in_the_readme, head + length + form)
    assert status == 200 and json.loads(body)["is_anomalous"] is True


def test_the_client(as_in_the_readme, washer, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    test = Path("Dataset/Washer/test")
    images = [test / "good" / "000.jpg", tmp_path / "torn.jpg", test / "dent" / "000.jpg"]
    command = [sys.executable, ROOT / "examples" / "client.py"]
    address = ["--address", f"http://127.0.0.1:{as_in_the_readme}"]
    done = subprocess.run([*command, *images, *address], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["good", "ERROR", "ANOMALOUS"]
    done = subprocess.run([*command, images[0], *address], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("good")


def test_every_option_is_described():
    from anomaly_ad.cli import app

    (command,) = (c for c in app.registered_commands if c.name == "serve")
    section = README[README.index("## Serve") : README.index("## Folders")]
    for name in set(inspect.signature(command.callback).parameters) - {"model"}:
        assert f"`--{name.replace('_', '-')}`" in section


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
