"""Progress where stderr is a log: plain lines, few, from the first second; and no false hopes."""

import os
import pty
import re
import subprocess
import sys
import termios
import time

import pytest

from anomaly_ad.support import progress


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.05)
    monkeypatch.setattr(progress, "BETWEEN_LINES", 0.1)


def test_what_is_over_at_once_says_nothing(capsys):
    with progress.bar(3, "Reading") as step:
        for _ in range(3):
            step("")
    assert capsys.readouterr().err == ""


def test_lines_from_the_beginning_also_while_a_step_takes_long(quick, capsys):
    with progress.bar(5, "Training") as step:
        time.sleep(0.08)
        for n in range(4):
            step(f"loss {n}")
        time.sleep(0.15)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Training: 0 of 5"  # no estimate before anything is known
    assert re.fullmatch(r"Training: 4 of 5, loss 3, about \d+ s left", lines[1])
    assert len(lines) <= 3


def test_where_notes_tell_the_time_the_first_is_said_at_once(capsys):
    with progress.bar(5, "Training", is_timed=False) as step:
        step("at most 2 min left")
        said = capsys.readouterr().err
        for _ in range(4):
            step("later")
    assert said == "Training: 1 of 5, at most 2 min left\n"
    assert capsys.readouterr().err == ""


def test_of_an_unknown_number_what_was_done_is_said(quick, capsys):
    with progress.bar(None, "Inspecting") as step:
        for _ in range(7):
            step("")
        time.sleep(0.08)
    assert capsys.readouterr().err.startswith("Inspecting: 7\n")


def test_an_error_ends_the_lines(quick, capsys):
    with pytest.raises(KeyError), progress.bar(5, "Training"):
        raise KeyError
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with progress.bar(5, "Training", shown=False) as step:
        step("")
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_durations():
    said = [progress.duration(seconds) for seconds in (0.4, 61, 300, 7200)]
    assert said == ["0 s", "61 s", "5 min", "2.0 h"]


AT_A_TERMINAL = """
import time
from anomaly_ad.support.progress import bar
with bar(6, "Training") as step:
    time.sleep(0.2)
    for n in range(6):
        time.sleep(0.15)
        step("")
"""


@pytest.mark.slow
def test_a_bar_at_a_terminal_estimates_from_the_third_step_on():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    process = subprocess.Popen([sys.executable, "-c", AT_A_TERMINAL], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is gone
        pass
    assert process.wait() == 0
    shown = [line for line in shown.decode().split("\r") if "/6" in line]
    assert all("left" not in line for line in shown if re.search(r" [01]/6", line))
    assert any("left" in line for line in shown if re.search(r" [45]/6", line))
