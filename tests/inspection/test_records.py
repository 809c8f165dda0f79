import csv
import json

import numpy as np
import pytest

from anomaly_ad.errors import OutputError
from anomaly_ad.inspection.prediction import Prediction
from anomaly_ad.inspection.records import COLUMNS, CSV, JSONL, RunRecord, file_state, read_records

NO_FILE = file_state(None)


def prediction(score=0.5):
    return Prediction(
        "ä, b.png", (10, 20), score, 3.0, 0.8, score > 0.8, None, np.array([[1, 2, 3, 4]], np.int32)
    )


def read_csv(folder):
    with (folder / CSV).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_lines_are_there_at_once_and_the_table_at_the_end(tmp_path):
    with RunRecord(tmp_path / "out", {"model": "abc"}) as record:
        record.append("ä, b.png", prediction(), NO_FILE)
        record.append("c.png", Prediction.failed("c.png", 0.8, "cut\noff"), NO_FILE)
        lines = list(read_records(tmp_path / "out" / JSONL))
        assert [line["path"] for line in lines] == ["ä, b.png", "c.png"]
        assert lines[0]["model"] == "abc" and lines[0]["run"] == record.run_id
        assert lines[0]["boxes"] == [[1, 2, 3, 4]] and lines[0]["time"].endswith("Z")
        assert not (tmp_path / "out" / CSV).exists()
    rows = read_csv(tmp_path / "out")
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["path"] == "ä, b.png" and rows[0]["n_boxes"] == "1"
    assert rows[1]["error"] == "cut\noff" and rows[1]["score"] == ""


def test_the_record_keeps_all_runs_and_the_table_shows_the_last(tmp_path):
    for score in (0.1, 0.9):
        with RunRecord(tmp_path, {"model": "abc"}) as record:
            record.append("a.png", prediction(score), NO_FILE)
    assert len(list(read_records(tmp_path / JSONL))) == 2
    assert [row["score"] for row in read_csv(tmp_path)] == ["0.9"]


def test_an_interrupted_run_leaves_its_lines_and_its_table(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunRecord(tmp_path, {"model": "abc"}) as record:
        record.append("a.png", prediction(), NO_FILE)
        raise KeyboardInterrupt
    assert len(read_csv(tmp_path)) == 1


def test_a_line_that_a_crash_cut_off_does_not_corrupt_the_next(tmp_path):
    (tmp_path / JSONL).write_text('{"run": "old", "path": "x.png"}\n{"run": "old", "pa')
    with RunRecord(tmp_path, {"model": "abc"}) as record:
        record.append("a.png", prediction(), NO_FILE)
    assert [line["path"] for line in read_records(tmp_path / JSONL)] == ["x.png", "a.png"]
    assert json.loads((tmp_path / JSONL).read_text().splitlines()[-1])["path"] == "a.png"


def test_two_records_in_one_folder_do_not_mix_their_lines(tmp_path):
    with (
        RunRecord(tmp_path, {"model": "one"}) as first,
        RunRecord(tmp_path, {"model": "two"}) as second,
    ):
        for n in range(20):
            first.append(f"{n}.png", prediction(), NO_FILE)
            second.append(f"{n}.png", prediction(), NO_FILE)
    lines = list(read_records(tmp_path / JSONL))
    assert len(lines) == 40 and sum(line["model"] == "one" for line in lines) == 20


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        RunRecord(tmp_path / "file" / "out", {"model": "abc"}).__enter__()


def test_names_that_are_no_text_come_out_as_they_went_in(tmp_path):
    name = b"\xfc.png".decode("utf-8", "surrogateescape")
    with RunRecord(tmp_path, {"model": "abc"}) as record:
        record.append(name, prediction(), NO_FILE)
    assert b"\xfc.png,0.5" in (tmp_path / CSV).read_bytes()
    (line,) = read_records(tmp_path / JSONL)
    assert line["path"] == name


ODD = {
    "nested": "[" * 100_000,
    "path": '{"path": []}',
    "boxes": '{"boxes": [[99999999999999, 0, 1, 1]]}',
    "score": '{"score": %s}' % ("9" * 400),
    "size": '{"image_size": []}',
    "run": '{"run": "../x"}',
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_lines_of_a_record_harm_nobody(tmp_path, kind):
    about = {"model": "abc"}
    with RunRecord(tmp_path, about) as record:
        record.append("a.png", prediction(), ("/a.png", 1, 2))
    (line,) = read_records(tmp_path / JSONL)
    odd = ODD[kind]
    if odd.startswith("{"):
        odd = json.dumps(line | {"file": "/b.png"} | json.loads(odd))
    with (tmp_path / JSONL).open("a") as file:
        file.write(odd + "\n")
    with RunRecord(tmp_path, about, resume=True) as resumed:
        assert ("/a.png", 1, 2) in resumed.done
        assert resumed.run_id == record.run_id


def test_a_file_that_was_replaced_is_another_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    before = file_state(path)
    assert before == file_state(path) and before[0] == str(path)
    path.write_bytes(b"22")
    assert file_state(path) != before
    assert file_state(tmp_path / "missing") == (str(tmp_path / "missing"), None, None)


def test_what_was_recorded_before_is_not_read_again(tmp_path, monkeypatch):
    """The cost of a run does not grow with the history; only `resume` searches it."""
    with RunRecord(tmp_path, {"model": "abc"}) as record:
        for n in range(200):
            record.append(f"{n}.png", prediction(), NO_FILE)
    parsed = []
    real = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or real(text))
    with RunRecord(tmp_path, {"model": "abc"}) as record:
        record.append("new.png", prediction(), NO_FILE)
    assert len(parsed) == 1 and [row["path"] for row in read_csv(tmp_path)] == ["new.png"]


def test_runs_that_write_at_the_same_time_keep_their_tables_apart(tmp_path):
    first = RunRecord(tmp_path, {"model": "abc"}).__enter__()
    first.append("a.png", prediction(), NO_FILE)
    with RunRecord(tmp_path, {"model": "abc"}) as second:
        first.append("b.png", prediction(), NO_FILE)
        second.append("c.png", prediction(), NO_FILE)
        first.append("d.png", prediction(), NO_FILE)
    assert [row["path"] for row in read_csv(tmp_path)] == ["c.png"]
    first.__exit__(None, None, None)
    assert [row["path"] for row in read_csv(tmp_path)] == ["a.png", "b.png", "d.png"]
