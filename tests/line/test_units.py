"""What starts the line by itself: systemd units, Dockerfile, compose file."""

import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from anomaly_ad.cli import line

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def options(function):
    return {f"--{name.replace('_', '-')}" for name in inspect.signature(function).parameters}


def test_the_unit_starts_what_there_is(tmp_path):
    text = (EXAMPLES / "anomaly-ad-watch.service").read_text()
    (started,) = re.findall(r"^ExecStart=\S*/anomaly-ad (.*)$", text, re.MULTILINE)
    assert started.startswith("watch ")
    assert set(re.findall(r"--[\w-]+", started)) <= options(line.watch)
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze: units are not verified")
    program = tmp_path / "anomaly-ad"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("anomaly-ad-watch.service", "anomaly-ad.service"):
        unit = tmp_path / name
        text = (EXAMPLES / name).read_text()
        unit.write_text(text.replace("/opt/anomaly-ad/bin/anomaly-ad", str(program)))
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
        said = [row for row in done.stderr.splitlines() if name in row or "Unknown" in row]
        assert not said, done.stderr


def test_the_image_is_lean_and_not_root():
    text = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [row.split(None, 1) for row in text.splitlines() if row and row[0] not in "# "]
    names = [name for name, _ in steps]
    known = ["FROM", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
    assert set(names) <= set(known)
    assert "[serve,line]" in text and "train" not in text.replace("TensorFlow", "")
    assert names.index("USER") < names.index("ENTRYPOINT") and "HEALTHCHECK" in names
    for name, rest in steps:
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list)
        if name == "HEALTHCHECK":
            code = json.loads(rest[rest.index("[") :])[2]
            compile(code, "HEALTHCHECK", "exec")


def test_the_compose_file_starts_what_there_is():
    found = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    services = found["services"]
    assert set(services) == {"serve", "watch", "broker"}
    for name in ("serve", "watch"):
        assert services[name]["read_only"] is True and services[name]["cap_drop"] == ["ALL"]
    command = services["watch"]["command"]
    assert command[0] == "watch"
    assert {word for word in command if word.startswith("--")} <= options(line.watch)
    build = services["serve"]["build"]
    assert (EXAMPLES / build["context"] / build["dockerfile"]).is_file()
    topic = command[command.index("--mqtt") + 1]
    assert topic.split("/")[0] in services
    assert "listener 1883" in found["configs"]["mosquitto"]["content"]


def test_every_option_is_described():
    text = (ROOT / "docs" / "line.md").read_text(encoding="utf-8")
    renamed = {"--as-json": "--json", "--model": "MODEL", "--inbox": "INBOX", "--source": "SOURCE"}
    for function in (line.watch, line.camera):
        for name in options(function):
            wanted = renamed.get(name, name)
            assert wanted in text or wanted in ("MODEL", "INBOX", "SOURCE"), name
