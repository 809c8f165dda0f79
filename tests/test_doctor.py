import importlib.metadata
import json
import os
from pathlib import Path

import pytest
from conftest import run_command

from anomaly_ad import doctor

NEEDS = [
    "numpy>=1.26",
    'tensorflow>=2.18; extra == "train"',
    'nowhere-to-be-found>=1; extra == "line"',
    'ray[data]>=2.51; extra == "ray"',
    'numpy>=99.1; extra == "eval"',
    'pytest>=8; extra == "test"',
]


@pytest.fixture
def needs(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: NEEDS)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("needs", "elsewhere")
def test_what_is_missing_comes_with_its_command(monkeypatch):
    installed = {"numpy": "1.26.4", "tensorflow": "2.18.0rc1", "ray": "2.60.0"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = doctor.diagnose()
    missing = {extra.name: extra.missing for extra in found.extras}
    assert missing == {
        "train": (),
        "line": ("nowhere-to-be-found",),
        "ray": (),
        "eval": ("numpy 99.1 (1.26.4 is installed)",),
    }
    assert 'line: lacks nowhere-to-be-found: python -m pip install "anomaly-ad[line]"' in str(found)
    assert found.versions["tensorflow"] == "2.18.0rc1"
    assert not found.problems  # extras are offers
    monkeypatch.setitem(installed, "numpy", "1.25.9")
    found = doctor.diagnose()
    assert found.missing == ("numpy 1.26 (1.25.9 is installed)",)
    assert "pip install --upgrade anomaly-ad" in found.problems[0]


@pytest.mark.usefixtures("elsewhere")
def test_where_there_is_no_package():
    """As in a folder of sources."""
    assert doctor.diagnose().devices


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="anybody may write anywhere")
def test_a_folder_that_cannot_be_written(elsewhere):
    (elsewhere / "closed").mkdir(mode=0o500)
    found = doctor.diagnose(models=Path("closed/Models"))
    assert "closed/Models cannot be written. Use another folder." in found.problems


def test_folders_that_fail(elsewhere, monkeypatch):
    monkeypatch.setattr(doctor, "_is_writable", lambda folder: False)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("U", (), {"free": 1e8}))
    found = doctor.diagnose()
    assert "Models cannot be written. Use another folder." in found.problems
    assert any("Set TMPDIR to another folder" in each for each in found.problems)
    monkeypatch.setattr(doctor, "_is_writable", lambda folder: True)
    assert any("has 0.1 GB free" in each for each in doctor.diagnose().problems)
    assert [*elsewhere.iterdir()] == []


def test_the_command(elsewhere):
    printed, _ = run_command("doctor", "--json")
    found = json.loads(printed)
    assert found["devices"]["CPU"] and found["processors"]["usable"] >= 1
    assert [folder["purpose"] for folder in found["folders"]] == [
        "models",
        "results",
        "temporary files",
    ]
    printed, _ = run_command("doctor")
    assert printed.startswith("Versions\n  anomaly-ad")


def test_a_problem_is_status_1(elsewhere, monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda: ({}, ["OpenVINO does not start: why"]))
    printed, _ = run_command("doctor", code=1)
    assert "OpenVINO does not start: why" in printed


def test_help_is_by_task_with_examples():
    from anomaly_ad.cli import app

    printed, _ = run_command("--help")
    for command in app.registered_commands:
        assert f"\n  {command.name} " in printed
    for line in [line for line in printed.splitlines() if line.startswith("  $ ")]:
        _, name, *_ = line.removeprefix("  $ ").split()
        assert name in {command.name for command in app.registered_commands}
    assert printed.count("\n  $ anomaly-ad ") == 7
