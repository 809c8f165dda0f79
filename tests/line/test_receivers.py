import base64
import collections
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import write_parts
from patience import until

from anomaly_ad.errors import OptionError
from anomaly_ad.line import receivers as module
from anomaly_ad.line.journal import Journal, Row
from anomaly_ad.line.mqtt import Mqtt
from anomaly_ad.line.receivers import Sender
from anomaly_ad.line.webhook import Webhook, read_secret

SECRET = "0123456789abcdef-secret"


class HttpReceiver:
    """A real server on loopback that can be ended and started again on its port."""

    def __init__(self):
        self.got = collections.defaultdict(list)  # bodies by key
        self.headers = []
        self.answers = []  # of the next requests; 204 where there are none
        self.port = 0
        self.start()

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = outer.answers.pop(0) if outer.answers else 204
                if status == 204:
                    outer.got[self.headers["idempotency-key"]].append(json.loads(body))
                    outer.headers.append((dict(self.headers), body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/verdicts"


@pytest.fixture
def http():
    receiver = HttpReceiver()
    yield receiver
    receiver.end()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_SOONEST", 0.05)
    monkeypatch.setattr(module, "_LATEST", 0.2)


def row(path, number=0):
    answer = {"name": path, "is_anomalous": False, "number": number}
    now = time.time()
    return Row(path, 1, number, None, "good", answer, "m", None, now, now, now)


def numbers(http, path="a.png"):
    bodies = [body for bodies in http.got.values() for body in bodies]
    return [body["number"] for body in bodies if body["name"] == path]


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal", "inbox") as journal:
        yield journal


def test_a_verdict_is_sent_as_the_service_answers_with_its_key(
    http, watching, inbox, rows, trained
):
    write_parts(inbox, 1)
    write_parts(inbox, 1, defect=True, first=200)
    (inbox / "broken.png").write_bytes(b"no image")
    with watching(receivers=[Webhook(http.url)]):
        until(lambda: len(http.got) == 3)
    for found in rows():
        ((sent,),) = (http.got[found["key"]],)
        assert sent == {"key": found["key"], **found["answer"]}
        if found["verdict"] == "error":
            assert "not an image" in sent["error"] and "score" not in sent
            continue
        pytest.importorskip("pydantic", reason="the service needs the extra 'serve'")
        from anomaly_ad.service.schema import Verdict

        answer = Verdict.model_validate(sent)
        assert answer.is_anomalous == (found["verdict"] == "anomalous")


def test_a_signature_can_be_checked(http, journal, tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    sender = Sender(journal, Webhook(http.url, read_secret(file)))
    journal.add([row("a.png")], ["webhook"])
    sender.start()
    until(lambda: http.headers)
    sender.end()
    headers, body = http.headers[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert headers["webhook-id"] == headers["idempotency-key"] == json.loads(body)["key"]


def test_secrets_that_are_none(tmp_path):
    file = tmp_path / "secret"
    with pytest.raises(OptionError, match="cannot be read"):
        read_secret(file)
    file.write_text("short")
    with pytest.raises(OptionError, match="has 5 characters"):
        read_secret(file)
    file.write_text("whsec_not base64 at all!")
    with pytest.raises(OptionError, match="is not base64"):
        read_secret(file)
    file.write_text("whsec_" + base64.b64encode(SECRET.encode()).decode())
    assert read_secret(file) == SECRET.encode()


def test_nothing_is_lost_while_the_receiver_is_away(http, journal):
    sender = Sender(journal, Webhook(http.url))
    http.end()
    journal.add([row("a.png", n) for n in range(3)], ["webhook"])
    sender.start()
    until(lambda: sender.trouble)
    assert journal.undelivered() == {"webhook": 3}
    http.start()
    until(lambda: numbers(http) == [0, 1, 2])
    until(lambda: not sender.trouble and journal.undelivered() == {})
    sender.end()


def test_what_is_refused_is_sent_again_and_files_keep_their_order(http, journal):
    http.answers = [422, 503, 422]
    sender = Sender(journal, Webhook(http.url))
    journal.add([row("a.png", 0), row("a.png", 1), row("b.png", 5), row("a.png", 2)], ["webhook"])
    sender.start()
    until(lambda: journal.undelivered() == {})
    sender.end()
    assert numbers(http) == [0, 1, 2] and numbers(http, "b.png") == [5]


def test_after_days_it_is_given_up_and_counted(http, journal, monkeypatch):
    monkeypatch.setattr(module, "DAYS", 0.0)
    http.answers = [422] * 50
    sender = Sender(journal, Webhook(http.url))
    journal.add([row("a.png")], ["webhook"])
    sender.start()
    until(lambda: journal.given_up() == 1)
    sender.end()
    assert journal.undelivered() == {}


def test_what_was_left_is_sent_by_the_next_process(http, watching, inbox, rows):
    http.end()
    write_parts(inbox, 3)
    hook = lambda: [Webhook(http.url)]  # noqa: E731
    with watching(receivers=hook()):
        until(lambda: len(rows()) == 3)
    assert not http.got
    http.start()
    with watching(receivers=hook()):
        until(lambda: len(http.got) == 3)
    assert {row["key"] for row in rows()} == set(http.got)


@pytest.mark.parametrize("url", ["", "verdicts", "ftp://host/x", "http://"])
def test_urls_that_are_none(url):
    with pytest.raises(OptionError, match="A webhook is an http or https URL"):
        Webhook(url)


@pytest.mark.parametrize("address", ["", "broker", "broker/", "broker/a/#", "b:x/t", "http://b/t"])
def test_mqtt_addresses_that_are_none(address):
    with pytest.raises(OptionError, match="An MQTT address is HOST/TOPIC"):
        Mqtt(address)


class Broker:
    """Mosquitto on loopback, and a subscriber of everything."""

    def __init__(self, program, folder):
        import paho.mqtt.client as client

        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        )
        self.program = program
        self.got = collections.defaultdict(list)
        self.reader = client.Client(client.CallbackAPIVersion.VERSION2)
        self.reader.on_connect = lambda c, *_: c.subscribe("line4/#", qos=1)
        self.subscribed = threading.Event()
        self.reader.on_subscribe = lambda *_: self.subscribed.set()
        self.reader.on_message = self._message
        self.reader.reconnect_delay_set(1, 1)
        self.start()
        self.reader.connect_async("127.0.0.1", self.port)
        self.reader.loop_start()

    def _message(self, client, data, message):
        body = json.loads(message.payload)
        self.got[body["key"]].append((message.topic, message.qos, body))

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "-c", str(self.config)], stderr=subprocess.DEVNULL
        )

    def end(self):
        self.subscribed.clear()
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def broker(tmp_path):
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no mosquitto: no MQTT broker to test with")
    broker = Broker(program, tmp_path)
    yield broker
    broker.reader.disconnect()
    broker.reader.loop_stop()
    broker.end()


def test_mqtt_with_a_broker_that_goes_away(broker, journal, monkeypatch):
    monkeypatch.setattr("anomaly_ad.line.mqtt._SECONDS", 1.0)
    until(broker.subscribed.is_set)
    sender = Sender(journal, Mqtt(f"127.0.0.1:{broker.port}/line4/verdicts"))
    journal.add([row("a.png", 0)], ["mqtt"])
    sender.start()
    until(lambda: len(broker.got) == 1)
    broker.end()
    journal.add([row("a.png", n) for n in (1, 2)], ["mqtt"])
    sender.wake()
    until(lambda: sender.trouble)
    broker.start()
    until(broker.subscribed.is_set)
    until(lambda: journal.undelivered() == {})
    sender.end()
    until(lambda: len(broker.got) >= 1)
    (first,) = {body["number"] for bodies in broker.got.values() for *_, body in bodies} - {1, 2}
    assert first == 0
    topics = {topic for bodies in broker.got.values() for topic, *_ in bodies}
    assert topics == {"line4/verdicts"}


def test_mqtt_names_the_broker_that_is_not_there(journal, monkeypatch):
    monkeypatch.setattr("anomaly_ad.line.mqtt._SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sender = Sender(journal, Mqtt(f"127.0.0.1:{port}/line4"))
    journal.add([row("a.png")], ["mqtt"])
    sender.start()
    assert f"127.0.0.1:{port}" in until(lambda: sender.trouble)
    sender.end()
    assert journal.undelivered() == {"mqtt": 1}
