import sqlite3
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad.errors import OptionError, OutputError, PathError
from anomaly_ad.line.journal import Journal, Reader, Row, key_of, read_rows


def row(path="a.png", *, verdict="good", modified=1, model="m", ended=10.0, **values):
    answer = {"score": 0.1, "raw_score": 2.5, "is_anomalous": verdict == "anomalous"}
    return Row(
        path, 3, modified, "d" * 64, verdict, answer, model, None, ended - 2, ended - 1, ended,
        **values,
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "output", "inbox") as journal:
        yield journal


def test_a_file_has_one_row_however_often_it_is_added(journal):
    journal.add([row(), row()], ["webhook"])
    journal.add([row()], ["webhook"])
    assert journal.knows("a.png", 3, 1) and not journal.knows("a.png", 3, 2)
    assert journal.counts() == {"good": 1}
    assert journal.undelivered() == {"webhook": 1}
    journal.add([row(modified=2)])  # a newer file of this name
    assert journal.counts() == {"good": 2}


def test_rows_tell_all_that_was_kept(journal, tmp_path):
    journal.add([row("sub/ä b.png", verdict="anomalous", destination="/bad")])
    (found,) = read_rows(tmp_path / "output")
    assert (found["path"], found["verdict"], found["size"]) == ("sub/ä b.png", "anomalous", 3)
    assert (found["score"], found["raw_score"], found["answer"]["is_anomalous"]) == (0.1, 2.5, True)
    assert found["destination"] == "/bad" and found["transferred"] is None
    assert found["arrived"] < found["begun"] < found["ended"]


def test_a_name_that_is_no_text_is_kept(journal):
    name = b"ol\xe9.png".decode("utf-8", "surrogateescape")
    journal.add([row(name, destination="/bad")], ["webhook"])
    assert journal.knows(name, 3, 1)
    assert journal.transfers(1)[0].path == name
    assert journal.deliveries("webhook", time.time(), 1)[0].path == name


def test_a_transaction_that_fails_adds_nothing(journal):
    broken = row("b.png")
    broken.answer["score"] = object()
    with pytest.raises(TypeError):
        journal.add([row(), broken])
    assert not journal.knows("a.png", 3, 1) and journal.counts() == {}
    journal.add([row()])
    assert journal.counts() == {"good": 1}


def test_a_full_disk_adds_nothing_and_can_be_tried_again(journal):
    pages = journal._base.execute("PRAGMA page_count").fetchone()[0]
    journal._base.execute(f"PRAGMA max_page_count = {pages}")
    many = [row(f"{n}.png") for n in range(500)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        journal.add(many, ["webhook"])
    journal._base.execute("PRAGMA max_page_count = 100000")
    journal.add(many, ["webhook"])
    assert journal.counts() == {"good": 500} and journal.undelivered() == {"webhook": 500}


def test_one_process_writes_and_others_read(journal, tmp_path):
    with pytest.raises(OptionError, match=r"Another process writes to .*output"):
        Journal(tmp_path / "output", "inbox").__enter__()
    journal.add([row()])
    with Reader(tmp_path / "output") as reader:
        assert reader.counts() == {"good": 1} and reader.is_written
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.add([row("b.png")])


def test_a_journal_belongs_to_one_source(tmp_path):
    with Journal(tmp_path, "one"):
        pass
    with pytest.raises(OptionError, match="belongs to one"), Journal(tmp_path, "other"):
        pass
    with Journal(tmp_path, "one"):
        pass


def test_what_is_no_journal_is_refused(tmp_path):
    with pytest.raises(PathError, match="holds no journal"), Reader(tmp_path):
        pass
    (tmp_path / "journal.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(OutputError, match="cannot be opened"), Journal(tmp_path, "one"):
        pass
    with pytest.raises(PathError, match="cannot be read"), Reader(tmp_path):
        pass


def test_a_journal_of_another_format_is_refused(tmp_path):
    with Journal(tmp_path, "one") as journal:
        journal.note(format=99)
    with pytest.raises(OptionError, match="format 99"), Journal(tmp_path, "one"):
        pass


def test_later_verdicts_on_a_file_wait_for_earlier_ones(journal):
    journal.add([row(), row(modified=2), row("b.png")], ["webhook"])
    now = time.time()
    first, other = journal.deliveries("webhook", now, 10)
    assert (first.path, other.path) == ("a.png", "b.png")
    journal.put_off(first.id, now + 100, "refused")
    assert [one.path for one in journal.deliveries("webhook", now, 10)] == ["b.png"]
    other, again = journal.deliveries("webhook", now + 200, 10)  # what is new comes first
    assert again.id == first.id and again.tries == 1
    journal.delivered([first.id])
    assert {one.path for one in journal.deliveries("webhook", now, 10)} == {"a.png", "b.png"}
    journal.put_off(first.id + 1, now, "refused", give_up=True)
    assert journal.given_up() == 1 and journal.undelivered() == {"webhook": 1}


def test_what_nobody_takes_is_given_up_at_last(journal):
    journal.add([row(f"{n}.png", ended=n) for n in range(10)], ["webhook", "mqtt"])
    assert journal.give_up(4.0) == 8
    assert journal.undelivered() == {"webhook": 6, "mqtt": 6} and journal.given_up() == 8


def test_what_is_asked_at_every_tick_reads_no_whole_table(journal):
    """Rows may be millions: each statement that is run again and again has its index."""
    asked = []
    journal._base.set_trace_callback(asked.append)
    journal.add([row()], ["webhook"])
    journal.knows("a.png", 3, 1)
    journal.transfers(5)
    journal.deliveries("webhook", 1.0, 5)
    journal.undelivered()
    journal.scores("m", 5)
    journal.since(1.0)
    journal.older(1.0, 5)
    journal._base.set_trace_callback(None)
    for statement in asked:
        if statement.startswith("SELECT"):
            plan = journal._base.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            for *_, step in plan:
                whole = step.startswith("SCAN") and "INDEX" not in step
                # The last rows are read by their id, as many as are wanted.
                assert not whole or "ORDER BY id DESC LIMIT" in statement, (statement, step)


def test_scores_are_those_of_the_model(journal):
    journal.add([row(), row("b.png", model="other"), row("c.png")])
    assert journal.scores("m", 10) == [2.5, 2.5]
    assert journal.scores("m", 2) == [2.5]
    assert journal.since(9.0) == 3 and journal.since(10.0) == 0


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_keys_tell_files_apart(files):
    keys = {key_of(path, size, modified, None) for path, size, modified in files}
    assert len(keys) == len(set(files))
    assert all(len(key) == 32 for key in keys)
