"""What limits for other false alarm rates would do."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import run_command, write_parts

from anomaly_ad.errors import ModelError
from anomaly_ad.evaluation.rates import A_LIST, RATES, AtRate, at_rates, next_step, table
from anomaly_ad.model import GoodScores


def stored(scores, rate=0.01, record=None, later=None, groups=None):
    """As much of a model as has the scores of its good images."""
    training = GoodScores(np.asarray(scores), None, groups=groups)
    used = training if later is None else GoodScores(np.asarray(later), None)
    calibration = replace(used.calibration(rate), record=record or {})
    return SimpleNamespace(
        directory=Path("Models") / "my model",
        manifest=SimpleNamespace(calibration=calibration),
        good_scores=lambda *, of_training: training if of_training else used,
    )


def row(rate, rejected, found, stated=None):
    command = f"anomaly-ad calibrate Models/model --false-alarm-rate {rate:g}"
    return AtRate(rate, 1.0, stated or rate, 99, rejected, 30, found, 48, False, command, False)


def test_rows_are_what_limits_of_these_rates_would_do():
    unseen = np.arange(200.0)
    rows = at_rates(stored(unseen), np.array([150.0, 197.5]), np.array([100.0, 196.5, 500.0]))
    assert [one.rate for one in rows] == list(RATES)
    # Number ceil(201 (1 - rate)) of 200 in ascending order, counted from 1.
    assert [one.limit for one in rows] == [199, 198, 196, 190, 180]
    assert [(one.rejected, one.found) for one in rows] == [(0, 1), (0, 1), (1, 2), (1, 2), (1, 2)]
    assert all(one.n_good == 2 and one.n_defective == 3 for one in rows)
    assert [one.images_needed for one in rows] == [199, 99, 49, 19, 9]
    assert all(one.stated_rate <= one.rate for one in rows)
    few = at_rates(stored(unseen[:30]), np.empty(0), np.array([50.0]))
    assert few[0].stated_rate == pytest.approx(1 / 31) and few[0].rate == 0.005
    lines = "\n".join(table(few))
    assert "needs 199 good images" in lines and "rejected" not in lines and "1 of 1 found" in lines


def test_rates_of_groups_count_groups():
    rows = at_rates(stored(np.arange(60.0), groups=np.repeat(np.arange(30), 2)))
    assert rows[0].in_groups and rows[0].stated_rate == pytest.approx(1 / 31)
    assert "needs 199 groups of good images" in table(rows)[1]


def test_a_model_that_did_not_keep_its_scores_has_no_rows():
    def missing(**_):
        raise ModelError("not kept")

    model = stored(np.arange(9.0))
    model.good_scores = missing
    assert at_rates(model, np.ones(2), np.ones(2)) == ()
    assert table(()) == []


def test_the_table_of_a_model_marks_its_own_limit():
    lines = table(at_rates(stored(np.arange(60.0))))
    assert lines == [
        "Limits for other false alarm rates (anomaly-ad calibrate 'Models/my model' "
        "--false-alarm-rate RATE):",
        "    0.5%  limit 59  needs 199 good images",
        "    1.0%  limit 59  needs 99 good images  <- this model",
        "    2.0%  limit 59",
        "    5.0%  limit 57",
        "   10.0%  limit 54",
    ]
    lines = table(at_rates(stored(np.arange(60.0), rate=0.3)))
    assert lines[-1] == "   30.0%  limit 42  <- this model"  # a rate of the user's own
    by_hand = stored(np.arange(60.0), record={"by": "by hand"})
    assert "this model" not in "".join(table(at_rates(by_hand)))


@pytest.mark.parametrize(("source", "named"), [("Good 2", "'Good 2'"), (A_LIST, "DIR")])
def test_the_limits_are_from_the_good_images_of_the_calibration(source, named):
    """And so are those that the command sets."""
    record = {"by": "good images", "source": source, "digests": ["a"]}
    others = np.arange(100.0, 160)
    rows = at_rates(stored(np.arange(60.0), record=record, later=others))
    assert [one.limit for one in rows] == [159, 159, 159, 157, 154]
    assert [one.is_present for one in rows] == [False, True, False, False, False]
    assert rows[0].command == (
        f"anomaly-ad calibrate 'Models/my model' --good {named} --false-alarm-rate 0.005"
    )
    by_hand = {"by": "by hand", "source": "the user", "good_source": source}
    assert at_rates(stored(np.arange(60.0), record=by_hand, later=others))[0].limit == 159


def test_the_next_step_is_the_limit_that_finds_more_for_what_it_rejects():
    rows = [row(0.01, 0, 28), row(0.02, 0, 40), row(0.05, 0, 45), row(0.1, 6, 48)]
    step = next_step(rows, 0, 28)
    assert step == (
        "A limit for 5.0% would find 45 of 48 and reject 0 of 30: anomaly-ad calibrate "
        "Models/model --false-alarm-rate 0.05. Up to 5.0% of good parts may then be rejected."
    )
    assert "2.0% would" in next_step([row(0.02, 0, 45), row(0.05, 0, 45)], 0, 28)
    assert next_step(rows, 0, 45) is None  # it is as good already
    assert next_step([row(0.1, 20, 30)], 0, 28) is None  # it rejects more than it finds
    assert next_step([], 0, 1) is None
    assert (
        next_step([AtRate(0.1, 1.0, 0.1, 9, 0, 0, 5, 5, False, "", False)], 0, 1) is None
    )  # no good images


@pytest.mark.slow
def test_evaluate_shows_them_and_the_command_that_sets_the_better_one(tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad import AD

    ad = AD("dfkde", write_parts(tmp_path / "parts", 40), save_path=tmp_path, img_size=(64, 64))
    ad.train()
    write_parts(tmp_path / "set" / "good", 5, first=100)
    write_parts(tmp_path / "set" / "bar", 5, first=200, defect=True)
    scores = [p.raw_score for p in ad.predict(tmp_path / "set", save=False)]
    ad.calibrate(limit=max(scores) + 1)
    found = ad.evaluate(tmp_path / "set")
    assert found.found == 0 and found.rates[-1].found == 5
    out, _ = run_command("evaluate", ad.model.directory, tmp_path / "set")
    assert "Limits for other false alarm rates" in out and found.next_step in out
    command = found.next_step.split(": anomaly-ad ")[1].split(". Up to")[0].split()
    run_command(*command)
    assert AD(ad.model.directory).evaluate(tmp_path / "set").found == 5
