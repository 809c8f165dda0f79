import hashlib
import os
import time

import pytest

from anomaly_ad.line import transfers as module
from anomaly_ad.line.journal import Journal, Row, read_rows
from anomaly_ad.line.transfers import LINK, Transfers


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "output", "inbox") as journal:
        yield journal


@pytest.fixture
def bad(tmp_path):
    return tmp_path / "bad"


@pytest.fixture
def seen(tmp_path, journal, bad):
    """Write a file and its row."""

    def make(name, content=b"x"):
        path = tmp_path / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        status, digest = path.stat(), hashlib.sha256(content).hexdigest()
        row = Row(
            *(name, status.st_size, status.st_mtime_ns, digest, "anomalous", {}, "m", None),
            *(0, 0, time.time(), str(bad)),
        )  # fmt: skip
        journal.add([row])
        return path

    return make


def where(tmp_path):
    return [row["transferred"] for row in read_rows(tmp_path / "output")]


def test_a_file_moves_with_its_folders(tmp_path, journal, seen, bad):
    path = seen("sub/a.png")
    assert Transfers(journal, tmp_path / "inbox").round()[1] is False
    assert not path.exists() and (bad / "sub" / "a.png").read_bytes() == b"x"
    assert where(tmp_path) == [str(bad / "sub" / "a.png")]
    assert os.listdir(path.parent) == []


def test_a_linked_file_stays(tmp_path, journal, seen, bad):
    path = seen("a.png")
    assert Transfers(journal, tmp_path / "inbox", LINK).round()[1] is False
    assert path.samefile(bad / "a.png")


def test_a_file_that_is_away_with_its_drive_is_moved_later(
    tmp_path, journal, seen, bad, monkeypatch
):
    seen("a.png")
    moving = Transfers(journal, tmp_path / "inbox")
    (tmp_path / "inbox").rename(tmp_path / "away")
    (tmp_path / "inbox").mkdir()  # where a drive was mounted there is an empty folder
    assert moving.round()[1] is False and where(tmp_path) == [None]
    (tmp_path / "inbox").rmdir()
    (tmp_path / "away").rename(tmp_path / "inbox")
    assert moving.round()[1] is False and where(tmp_path) == [str(bad / "a.png")]
    seen("b.png").unlink()
    monkeypatch.setattr(module, "_GONE", -1.0)
    assert moving.round()[1] is False and where(tmp_path)[1] == ""


def test_nothing_is_replaced(tmp_path, journal, seen, bad):
    bad.mkdir()
    (bad / "a.png").write_bytes(b"older")
    seen("a.png")
    Transfers(journal, tmp_path / "inbox").round()
    assert (bad / "a.png").read_bytes() == b"older"
    (other,) = set(os.listdir(bad)) - {"a.png"}
    assert (bad / other).read_bytes() == b"x" and other.startswith("a-")


def test_another_file_of_the_same_size_and_time_is_not_taken_for_it(tmp_path, journal, seen, bad):
    path = seen("a.png", b"one")
    bad.mkdir()
    (bad / "a.png").write_bytes(b"two")
    os.utime(bad / "a.png", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert Transfers(journal, tmp_path / "inbox").round() == (1, False)
    assert (bad / "a.png").read_bytes() == b"two"
    (other,) = set(os.listdir(bad)) - {"a.png"}
    assert (bad / other).read_bytes() == b"one"


def test_a_move_that_was_cut_off_is_finished_where_files_are_linked_now(
    tmp_path, journal, seen, bad
):
    path = seen("a.png")
    (one,) = journal.transfers(1)
    path.rename(path.with_name(f".{one.key}.moving"))
    assert Transfers(journal, tmp_path / "inbox", LINK).round() == (1, False)
    assert (bad / "a.png").read_bytes() == b"x" and os.listdir(path.parent) == []


def test_a_file_that_was_replaced_stays_and_is_told(tmp_path, journal, seen, bad):
    path = seen("a.png")
    path.write_bytes(b"newer")
    back = []
    assert Transfers(journal, tmp_path / "inbox", came_back=back.append).round()[1] is False
    assert path.read_bytes() == b"newer" and not bad.exists() and where(tmp_path) == [""]


def test_a_file_that_is_replaced_in_that_moment_gets_its_name_back(
    tmp_path, journal, seen, monkeypatch
):
    path = seen("a.png")
    real = module._is
    calls = []

    def replaced(place, one):
        found = real(place, one)
        if not calls:
            path.unlink()
            path.write_bytes(b"newer")
        calls.append(place)
        return found

    monkeypatch.setattr(module, "_is", replaced)
    back = []
    Transfers(journal, tmp_path / "inbox", came_back=back.append).round()
    assert path.read_bytes() == b"newer" and back == ["a.png"]
    assert os.listdir(path.parent) == ["a.png"]


@pytest.mark.parametrize("step", ["rename", "link", "unlink", "transferred"])
def test_a_kill_after_any_step_loses_nothing(tmp_path, journal, seen, bad, monkeypatch, step):
    path = seen("a.png")

    class KilledError(BaseException):
        pass

    def killed(real):
        def run(*arguments):
            real(*arguments)
            raise KilledError

        return run

    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(module.Path, "rename", killed(module.Path.rename))
        elif step == "link":
            patch.setattr(module.os, "link", killed(os.link))
        elif step == "unlink":
            patch.setattr(module.Path, "unlink", killed(module.Path.unlink))
        else:
            patch.setattr(journal, "transferred", killed(lambda *values: None))
        with pytest.raises(KilledError):
            Transfers(journal, tmp_path / "inbox").round()
    assert Transfers(journal, tmp_path / "inbox").round()[1] is False
    assert os.listdir(bad) == ["a.png"] and os.listdir(path.parent) == []
    assert where(tmp_path) == [str(bad / "a.png")]


def test_another_file_system(tmp_path, journal, seen, bad, monkeypatch):
    real = os.link

    def link(source, target):
        if "inbox" in str(source):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(module.os, "link", link)
    path = seen("a.png", b"content")
    times = path.stat().st_mtime_ns
    assert Transfers(journal, tmp_path / "inbox").round()[1] is False
    assert (bad / "a.png").read_bytes() == b"content"
    assert (bad / "a.png").stat().st_mtime_ns == times
    assert os.listdir(bad) == ["a.png"] and os.listdir(path.parent) == []


def test_a_copy_replaces_nothing_and_leaves_nothing_behind(
    tmp_path, journal, seen, bad, monkeypatch
):
    def link(source, target):
        raise OSError(1, "no links here")

    monkeypatch.setattr(module.os, "link", link)
    bad.mkdir()
    (bad / "a.png").write_bytes(b"older")
    seen("a.png", b"content")
    assert Transfers(journal, tmp_path / "inbox").round()[1] is False
    assert (bad / "a.png").read_bytes() == b"older"
    (other,) = set(os.listdir(bad)) - {"a.png"}
    assert (bad / other).read_bytes() == b"content"


def test_what_cannot_be_moved_waits(tmp_path, journal, seen, bad):
    seen("a.png")
    bad.write_text("a file is in the way")
    moving = Transfers(journal, tmp_path / "inbox")
    assert moving.round()[1] and moving.trouble
    bad.unlink()
    assert moving.round()[1] is False and not moving.trouble
    assert (bad / "a.png").exists()
