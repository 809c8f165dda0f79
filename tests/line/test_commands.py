"""The commands as processes: started, killed, asked, ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from conftest import run_command, write_parts
from patience import until


@pytest.fixture
def start(trained, inbox, output):
    running = []

    def begin(*more):
        command = [sys.executable, "-m", "anomaly_ad", "watch", trained, inbox]
        command += ["--output", output, "--settle", "0.2", *more]
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell ignores it for what it runs in the background, and so would the process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_killed_at_any_moment_it_goes_on(start, inbox, rows, output):
    write_parts(inbox, 60)
    for count in (5, 30, 60):
        process = start()
        until(lambda count=count: len(rows()) >= count)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len({row["path"] for row in rows()}) == len(rows()) == 60
    pictures = sorted(path.name for path in (output / "pictures").iterdir())
    assert pictures == sorted(row["picture"].split("/")[1] for row in rows())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(start, inbox, rows, output, number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    write_parts(inbox, 2)
    process = start("--json", "--metrics", port)
    until(lambda: len(rows()) == 2)
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'anomaly_ad_images_total{model="model",verdict="good"} 2.0' in text
    out, _ = run_command("watch", "--status", output)
    assert "running" in out and "2: 2 good, 0 anomalous, 0 not inspected" in out
    _, words = run_command("watch", process.args[4], inbox, "--output", output, code=2)
    assert "Another process writes to" in words
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert {json.loads(line)["key"] for line in printed.splitlines()} == {r["key"] for r in rows()}
    status = json.loads(run_command("watch", "--status", output, "--json")[0])
    assert status["running"] is False and status["good"] == 2 and status["source"].endswith("inbox")


def test_wrong_usage(trained, inbox, output, tmp_path):
    for arguments, words in (
        ((), "takes a MODEL and an INBOX"),
        ((trained,), "takes a MODEL and an INBOX"),
        ((trained, inbox, "--secret-file", tmp_path), "needs --webhook"),
        ((trained, inbox, "--webhook", "nowhere"), "A webhook is an http or https URL"),
        ((trained, inbox, "--mqtt", "nowhere"), "An MQTT address is HOST/TOPIC"),
        ((trained, inbox, "--output", inbox / "out"), "lies in the inbox"),
        ((trained, inbox, "--output", output, "--metrics", 99999), "Choose another --metrics"),
        ((trained, inbox, "--keep", 0), "Days are greater than 0"),
    ):
        _, said = run_command("watch", *arguments, code=2)
        assert words in said
    _, said = run_command("watch", "--status", tmp_path, code=1)
    assert "holds no journal" in said
    _, said = run_command("watch", trained, tmp_path / "nothing", code=1)
    assert "there is no such folder" in said


def test_a_folder_that_may_not_be_written(trained, inbox, tmp_path):
    if os.name == "nt" or os.geteuid() == 0:
        (tmp_path / "out").write_text("a file")
    else:
        (tmp_path / "out").mkdir(mode=0o500)
    _, said = run_command("watch", trained, inbox, "--output", tmp_path / "out", code=1)
    assert "cannot be" in said
