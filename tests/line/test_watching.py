import errno
import os
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts
from patience import until

from anomaly_ad import AD
from anomaly_ad.errors import OptionError, PathError
from anomaly_ad.inspection.records import cannot_write
from anomaly_ad.line import keeper as keeping
from anomaly_ad.line.journal import Journal
from anomaly_ad.line.line import Pruner, Settings
from anomaly_ad.line.watching import Inbox, _has_events, watch

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def test_every_image_has_one_row_and_the_verdict_of_predict(
    watching, inbox, output, rows, trained, tmp_path
):
    write_parts(inbox, 3)
    with watching():
        until(lambda: len(rows()) == 3)
        write_parts(inbox / "sub", 3, defect=True, first=200)
        until(lambda: len(rows()) == 6)
    expected = {p.path: p for p in AD(trained).predict(inbox, save=False)}
    for row in rows():
        one = expected[str(inbox / row["path"])]
        assert row["verdict"] == ("anomalous" if one.is_anomalous else "good")
        assert row["score"] == pytest.approx(one.score, abs=1e-6)
        assert row["answer"]["boxes"] == one.boxes.tolist()
        assert row["answer"]["name"] == row["path"]
        assert cv2.imread(str(output / row["picture"])) is not None
        assert row["arrived"] <= row["begun"] <= row["ended"]
    assert len({row["picture"] for row in rows()}) == 6
    assert sorted(os.listdir(inbox)) == ["000.png", "001.png", "002.png", "sub"]


def test_nothing_is_inspected_twice_after_a_restart(watching, inbox, rows):
    write_parts(inbox, 2)
    with watching():
        until(lambda: len(rows()) == 2)
    before = rows()
    write_parts(inbox, 1, first=50)
    with watching():
        until(lambda: len(rows()) == 3)
    assert rows()[:2] == before


def test_unfinished_pictures_of_a_killed_process_are_removed(watching, inbox, output, rows):
    left = output / ".unfinished" / ".0123.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a picture")
    write_parts(inbox, 2)
    with watching():
        until(lambda: len(rows()) == 2)
    assert not left.exists()
    assert sorted(f"pictures/{name}" for name in os.listdir(output / "pictures")) == sorted(
        row["picture"] for row in rows()
    )


@pytest.mark.parametrize("poll", [False, True])
def test_a_file_under_the_same_name_is_another_one(watching, inbox, rows, poll):
    with watching(poll=poll):
        write_image(inbox / "latest.png", draw_part(1))
        until(lambda: len(rows()) == 1)
        write_image(inbox / ".next.png", draw_part(2, defect=True)).rename(inbox / "latest.png")
        until(lambda: len(rows()) == 2)
    assert [row["verdict"] for row in rows()] == ["good", "anomalous"]
    assert len({row["picture"] for row in rows()}) == 2


def test_a_file_that_is_written_slowly_is_read_when_it_is_whole(watching, inbox, rows, tmp_path):
    data = write_image(tmp_path / "a.png", draw_part(1)).read_bytes()
    with watching(settle=0.4), (inbox / "a.png").open("wb") as file:
        for start in range(0, len(data), len(data) // 8):
            file.write(data[start : start + len(data) // 8])
            file.flush()
            time.sleep(0.1)
        file.close()
        until(rows)
    assert [row["verdict"] for row in rows()] == ["good"]


def test_a_pause_in_writing_is_no_error_yet(watching, inbox, rows, tmp_path):
    data = write_image(tmp_path / "a.png", draw_part(1)).read_bytes()
    with watching(settle=0.1, give_up=30):
        (inbox / "a.png").write_bytes(data[:500])
        time.sleep(0.6)
        assert rows() == []
        with (inbox / "a.png").open("ab") as file:
            file.write(data[500:])
        until(rows)
    assert [row["verdict"] for row in rows()] == ["good"]


def test_what_never_becomes_readable_is_an_error(watching, inbox, rows):
    cv2.imwritemulti(str(inbox / "two.tif"), [draw_part(1), draw_part(2)])
    (inbox / "broken.png").write_bytes(b"no image")
    (inbox / "empty.jpg").touch()
    with watching():
        until(lambda: len(rows()) == 3)
    errors = {row["path"]: row["answer"]["error"] for row in rows()}
    assert "2 pages" in errors["two.tif"]
    assert "not an image" in errors["broken.png"] and errors["empty.jpg"]
    assert {row["verdict"] for row in rows()} == {"error"}
    assert all(row["score"] is None and row["picture"] is None for row in rows())


def test_a_file_that_is_removed_before_its_turn_is_recorded(watching, inbox, rows, monkeypatch):
    gate = threading.Event()
    real = keeping.Keeper.keep

    def slow(self, *arguments, **options):
        gate.wait(20)
        return real(self, *arguments, **options)

    monkeypatch.setattr(keeping.Keeper, "keep", slow)
    write_parts(inbox, 30)
    with watching():
        until((inbox.parent / "output" / "journal.sqlite").exists)
        time.sleep(2)  # they are complete, and the first ones under way
        (inbox / "029.png").unlink()
        (inbox / "028.png").rename(inbox / "zzz.png")
        gate.set()
        until(lambda: len(rows()) == 30)
    found = {row["path"]: row for row in rows()}
    assert "removed before" in found["029.png"]["answer"]["error"]
    assert found["zzz.png"]["verdict"] == "good" and "028.png" not in found


def test_files_go_where_their_verdict_says(watching, inbox, rows, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    write_parts(inbox / "sub", 2)
    write_parts(inbox, 2, defect=True, first=200)
    (inbox / "broken.png").write_bytes(b"no image")
    with watching(good=good, bad=bad):
        until(lambda: len(rows()) == 5)
        until(lambda: all(r["transferred"] for r in rows() if r["verdict"] != "error"))
        # Cameras begin again at one: another file of a name that was there before.
        write_image(inbox / "200.png", draw_part(7, defect=True))
        until(lambda: len(rows()) == 6 and rows()[-1]["transferred"])
    assert sorted(os.listdir(good / "sub")) == ["000.png", "001.png"]
    assert len(os.listdir(bad)) == 3
    assert os.listdir(inbox / "sub") == [] and (inbox / "broken.png").exists()


def test_without_an_action_nothing_touches_the_inbox(watching, inbox, rows):
    path = write_image(inbox / "a.png", draw_part(1, defect=True))
    before = path.read_bytes(), path.stat().st_mtime_ns
    with watching(pictures="none"):
        until(rows)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert os.listdir(inbox) == ["a.png"]


def test_pictures_of_some(watching, inbox, output, rows):
    write_parts(inbox, 2)
    write_parts(inbox, 1, defect=True, first=200)
    with watching(pictures="anomalous"):
        until(lambda: len(rows()) == 3)
    (picture,) = (output / "pictures").iterdir()
    assert picture.name.startswith("200-")


def no_space():
    error = OSError(errno.ENOSPC, "No space left on device")
    raise cannot_write(Path("out"), error) from error


def test_a_full_disk_stops_it_and_it_goes_on_by_itself(watching, inbox, rows, monkeypatch, caplog):
    caplog.set_level("INFO", "anomaly_ad.line")
    full = threading.Event()
    full.set()
    real_picture, real_add = keeping.write_picture, Journal.add
    monkeypatch.setattr(keeping, "_PAUSE", 0.05)

    def picture(*arguments):
        if full.is_set():
            no_space()
        real_picture(*arguments)

    def add(self, *arguments):
        if full.is_set():
            import sqlite3

            raise sqlite3.OperationalError("database or disk is full")
        real_add(self, *arguments)

    monkeypatch.setattr(keeping, "write_picture", picture)
    monkeypatch.setattr(Journal, "add", add)
    write_parts(inbox, 40)
    states = []
    with watching(show=states.append):
        until(lambda: any("No space left" in state.trouble for state in states))
        assert rows() == []
        # Each worker holds one at most; all others were not taken.
        assert states[-1].waiting == 40
        full.clear()
        until(lambda: len(rows()) == 40)
        until(lambda: not states[-1].trouble)
    assert "error" not in {row["verdict"] for row in rows()}
    assert "nothing is taken until results can be written" in caplog.text
    assert "results can be written again" in caplog.text


def test_it_can_be_ended_while_the_disk_is_full(watching, inbox, rows, monkeypatch):
    def picture(*arguments):
        no_space()

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "write_picture", picture)
        write_parts(inbox, 10)
        states = []
        with watching(show=states.append):
            until(lambda: any(state.trouble for state in states))
    assert rows() == []
    with watching():
        until(lambda: len(rows()) == 10)


def test_a_fault_of_the_program_is_an_error_of_that_image(watching, inbox, rows, monkeypatch):
    from anomaly_ad.inspection import Inspector

    real = Inspector.inspect

    def inspect(self, photo, path, **options):
        if path.endswith("001.png"):
            raise ZeroDivisionError("division by zero")
        return real(self, photo, path, **options)

    monkeypatch.setattr(Inspector, "inspect", inspect)
    write_parts(inbox, 3)
    with watching():
        until(lambda: len(rows()) == 3)
    found = {row["path"]: row for row in rows()}
    assert found["001.png"]["answer"]["error"] == "ZeroDivisionError: division by zero"
    assert found["000.png"]["verdict"] == found["002.png"]["verdict"] == "good"


def test_old_rows_and_pictures_are_removed(watching, inbox, output, rows):
    write_parts(inbox, 3)
    with watching():
        until(lambda: len(rows()) == 3)
    (inbox / "000.png").unlink()
    with Journal(output, str(inbox)) as journal:
        there = lambda path, *state: (inbox / path).exists()  # noqa: E731
        pruner = Pruner(journal, there, threading.Event())
        assert pruner.prune(0.0) == (0, 0)
        assert pruner.prune(time.time()) == (3, 1)
        assert pruner.prune(time.time()) == (0, 0)
        assert journal.counts().total() == 3
    assert sorted((row["path"], row["picture"]) for row in rows()) == [
        ("001.png", None),
        ("002.png", None),
    ]
    assert list((output / "pictures").iterdir()) == []
    with watching():  # what lies there is not inspected once more
        time.sleep(0.5)
    assert len(rows()) == 2


def test_drift_is_shown(watching, inbox, rows):
    for number in range(60):
        image = np.clip(draw_part(number).astype(int) + 25, 0, 255).astype(np.uint8)
        write_image(inbox / f"{number}.png", image)
    states = []
    with watching(show=states.append, pictures="none"):
        until(lambda: len(rows()) == 60)
        until(lambda: states and states[-1].drift != "not known yet")
    assert "scores are higher than in the calibration" in states[-1].drift
    assert "60 images" in str(states[-1]) and "0 waiting" in str(states[-1])


@pytest.mark.parametrize("name", ["output", "good", "bad"])
def test_folders_that_would_come_in_again_are_refused(stored, inbox, tmp_path, name):
    inner = inbox / "inner"
    folders = {name: inner} if name != "output" else {}
    output = inner if name == "output" else tmp_path / "output"
    with pytest.raises(OptionError, match=f"--{name} .*inner is or lies in the inbox"):
        watch(stored, Inbox(inbox, **folders), Settings(output), threading.Event())
    assert not inner.exists()


def test_an_inbox_in_the_output_is_refused(stored, inbox):
    with pytest.raises(OptionError, match="The inbox lies in the output folder"):
        watch(stored, Inbox(inbox), Settings(inbox.parent), threading.Event())


def test_bad_arguments(inbox, tmp_path):
    with pytest.raises(PathError, match="there is no such folder"):
        Inbox(tmp_path / "nothing")
    with pytest.raises(OptionError, match="settle is a number of seconds"):
        Inbox(inbox, settle=-1)
    with pytest.raises(OptionError, match="pictures is one of all, anomalous, none"):
        Settings(tmp_path, pictures="some")
    with pytest.raises(OptionError, match="Days are greater than 0"):
        Settings(tmp_path, keep_days=0)


def test_network_drives_have_no_events(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    own = os.path.realpath(tmp_path)
    mounts.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / {own}/drive\\040one rw - cifs //pc/x rw\n"
    )
    from anomaly_ad.line import watching as module

    class Fake(type(tmp_path)):
        def read_text(self, *arguments):
            return mounts.read_text() if str(self) == "/proc/self/mountinfo" else ""

    monkeypatch.setattr(module, "Path", Fake)
    assert not _has_events(tmp_path / "drive one" / "inbox")
    assert _has_events(tmp_path / "elsewhere")


def test_an_inbox_that_is_away_for_a_while(watching, inbox, rows):
    states = []
    with watching(poll=True, show=states.append):
        write_parts(inbox, 1)
        until(rows)
        away = inbox.with_name("away")
        inbox.rename(away)
        until(lambda: states and "not there" in states[-1].trouble)
        away.rename(inbox)
        write_parts(inbox, 1, first=5)
        until(lambda: len(rows()) == 2)
        until(lambda: not states[-1].trouble)
    shutil.rmtree(inbox)


def test_names_that_are_too_long_for_a_picture(watching, inbox, output, rows):
    name = "n" * 240 + ".png"
    write_image(inbox / "a.png", draw_part(1)).rename(inbox / name)
    with watching():
        until(rows)
    (row,) = rows()
    assert row["path"] == name and (output / row["picture"]).exists()


def test_a_picture_that_cannot_be_drawn_leaves_the_verdict(watching, inbox, rows, monkeypatch):
    from anomaly_ad.inspection import Inspector

    def picture(*arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Inspector, "picture", picture)
    write_parts(inbox, 1)
    with watching():
        until(rows)
    assert rows()[0]["verdict"] == "good" and rows()[0]["picture"] is None


def test_a_name_of_a_picture_that_is_taken_by_a_folder(watching, inbox, output, rows):
    (output / "pictures" / "sub").mkdir(parents=True)
    write_image(inbox / "sub" / "a.png", draw_part(1))
    (output / "pictures" / "sub").rmdir()
    (output / "pictures" / "sub").write_text("in the way")
    with watching():
        until(rows)
    assert rows()[0]["verdict"] == "good" and rows()[0]["picture"] is None


def test_whoever_reads_the_verdicts_may_go_away(watching, inbox, rows, caplog):
    told = []

    def tell(row):
        told.append(row)
        raise BrokenPipeError(32, "Broken pipe")

    write_parts(inbox, 5)
    with watching(tell=tell):
        until(lambda: len(rows()) == 5)
    assert len(told) == 1 and "verdicts are not printed any more" in caplog.text


def test_a_journal_that_cannot_be_written_for_a_fault_ends_it(watching, inbox, monkeypatch):
    def add(*arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Journal, "add", add)
    write_parts(inbox, 100)
    with pytest.raises(ZeroDivisionError), watching() as stop:
        until(stop.is_set)


def test_a_link_to_an_inbox_has_events(watching, inbox, rows, tmp_path):
    inbox.rename(tmp_path / "real")
    inbox.symlink_to(tmp_path / "real")
    with watching(settle=0.1):
        time.sleep(1.5)  # behind the first look
        write_parts(inbox, 1)
        until(rows, 15)


def test_rows_stay_while_the_drive_is_away(watching, inbox, output, rows, monkeypatch):
    monkeypatch.setattr("anomaly_ad.line.line._PRUNE", 0.2)
    write_parts(inbox, 2)
    with watching(poll=True, keep_days=1e-9):
        until(lambda: len(rows()) == 2)
        away = inbox.with_name("away")
        inbox.rename(away)
        inbox.mkdir()  # the empty folder that a drive was mounted on
        time.sleep(1)
        assert len(rows()) == 2
        inbox.rmdir()
        away.rename(inbox)
        time.sleep(1)
        assert len(rows()) == 2


def test_a_retried_file_that_is_removed_is_recorded(watching, inbox, rows):
    (inbox / "broken.png").write_bytes(b"no image")
    with watching(give_up=60):
        time.sleep(1)
        (inbox / "broken.png").unlink()
        until(rows)
    assert "removed before" in rows()[0]["answer"]["error"]
