import os
import threading
import time

import pytest
from patience import until

from anomaly_ad.line.arrivals import Arrivals, below, counts


@pytest.fixture
def known():
    return set()


@pytest.fixture
def arrivals(tmp_path, known):
    made = Arrivals(tmp_path, 0.15, lambda *file: file in known)
    thread = threading.Thread(target=made.settle_all)
    thread.start()
    yield made
    made.end()
    thread.join()


def write(folder, name, content=b"x", *, age=0.0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def taken(arrivals, count):
    out = []
    while len(out) < count:
        one = arrivals.take(5)
        assert one is not None
        out.append(one)
    assert arrivals.take(0.3) is None
    return out


def test_files_that_lay_there_come_first_in_the_order_of_their_times(arrivals, tmp_path):
    for name, age in (("a.png", 10), ("b.jpg", 30), ("sub/c.bmp", 20)):
        write(tmp_path, name, age=age)
    arrivals.look()
    write(tmp_path, "0.png")
    arrivals.notice("0.png")
    until(lambda: arrivals.waiting == 4)
    assert [one.path for one in taken(arrivals, 4)] == ["b.jpg", "sub/c.bmp", "a.png", "0.png"]


def test_a_file_that_grows_is_not_taken_before_it_is_complete(arrivals, tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        for _ in range(10):
            file.write(b"x" * 100)
            file.flush()
            arrivals.notice("a.png")
            assert arrivals.take(0.05) is None
    (one,) = taken(arrivals, 1)
    assert one.size == 1000


def test_a_file_that_was_renamed_into_place_is_complete_at_once(tmp_path):
    patient = Arrivals(tmp_path, 1000, lambda *file: False)
    write(tmp_path, "a.png")
    patient.notice("a.png")
    assert patient.take(0.1) is None
    patient.notice("a.png", is_renamed=True)
    assert patient.take(1).path == "a.png"
    patient.notice("a.png", is_renamed=True)  # told once more while it is inspected
    assert patient.take(0.1) is None


def test_a_file_is_taken_once_and_again_when_it_is_replaced(arrivals, tmp_path, known):
    write(tmp_path, "a.png", age=5)
    arrivals.look()
    arrivals.notice("a.png", is_written=True)
    (one,) = taken(arrivals, 1)
    arrivals.look()
    assert arrivals.take(0.3) is None  # it is being inspected
    write(tmp_path, "a.png", b"newer")
    known.add((one.path, one.size, one.modified))
    arrivals.done(one)
    (newer,) = taken(arrivals, 1)
    assert newer.size == 5
    known.add((newer.path, newer.size, newer.modified))
    arrivals.done(newer)
    arrivals.look()
    assert arrivals.take(0.3) is None and len(arrivals) == 0
    # With coarse times the content may be new although size and time are not.
    arrivals.notice("a.png", is_written=True)
    assert taken(arrivals, 1)[0].path == "a.png"


def test_a_name_that_was_renamed_away_is_not_missed(arrivals, tmp_path):
    write(tmp_path, "a.png").rename(tmp_path / "b.png")
    arrivals.notice("a.png")
    write(tmp_path, "a.png")
    arrivals.notice("a.png")
    arrivals.gone("a.png")
    assert arrivals.take(0.4) is None and len(arrivals) == 0


def test_what_is_no_image_is_passed_over(arrivals, tmp_path):
    for name in ("notes.txt", ".hidden.png", ".tmp/a.png", "a.png.part"):
        write(tmp_path, name)
        arrivals.notice(name)
        assert not counts(name)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    arrivals.notice("pipe.png")
    arrivals.look()
    assert arrivals.take(0.4) is None


def test_a_link_that_leads_back_up_ends(tmp_path):
    write(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert sorted(below(tmp_path)) == ["sub/a.png"]


def test_more_files_than_are_known_at_a_time(arrivals, tmp_path, known, monkeypatch):
    monkeypatch.setattr("anomaly_ad.line.arrivals._MOST", 4)
    for number in range(10):
        write(tmp_path, f"{number}.png", age=100 - number)
    found = []
    while len(found) < 10:
        arrivals.look()
        assert len(arrivals) == 10 - len(found)
        while (one := arrivals.take(0.5)) is not None:
            found.append(one.path)
            known.add((one.path, one.size, one.modified))
            arrivals.done(one)
    assert found == [f"{number}.png" for number in range(10)]
