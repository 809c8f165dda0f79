"""What limits for other false alarm rates would do."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import run_command, write_parts

from anomaly_ad.errors import ModelError
from anomaly_ad.evaluation.rates import RATES, AtRate, at_rates, next_step, table
from anomaly_ad.model import GoodScores


def stored(scores):
    """As much of a model as has the scores of its good images."""
    return SimpleNamespace(good_scores=lambda **_: GoodScores(np.asarray(scores), None))


def row(rate, rejected, found, stated=None):
    return AtRate(rate, 1.0, stated or rate, 99, rejected, 30, found, 48)


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
    scores = GoodScores(np.arange(60.0), None, groups=np.repeat(np.arange(30), 2))
    rows = at_rates(SimpleNamespace(good_scores=lambda **_: scores), np.empty(0), np.empty(0))
    assert rows[0].in_groups and rows[0].stated_rate == pytest.approx(1 / 31)
    assert "needs 199 groups of good images" in table(rows)[1]


def test_a_model_that_did_not_keep_its_scores_has_no_rows():
    def missing(**_):
        raise ModelError("not kept")

    assert at_rates(SimpleNamespace(good_scores=missing), np.ones(2), np.ones(2)) == ()


def test_the_next_step_is_the_limit_that_finds_more_for_what_it_rejects():
    rows = [row(0.01, 0, 28), row(0.02, 0, 40), row(0.05, 0, 45), row(0.1, 6, 48)]
    step = next_step(rows, 0, 28, "Models/model")
    assert step == (
        "A limit for 5.0% would find 45 of 48 and reject 0 of 30: anomaly-ad calibrate "
        "Models/model --false-alarm-rate 0.05. Up to 5.0% of good parts may then be rejected."
    )
    assert "2.0% would" in next_step([row(0.02, 0, 45), row(0.05, 0, 45)], 0, 28, "m")
    assert next_step(rows, 0, 45, "m") is None  # it is as good already
    assert next_step([row(0.1, 20, 30)], 0, 28, "m") is None  # it rejects more than it finds
    assert next_step([], 0, 1, "m") is None
    assert next_step([AtRate(0.1, 1.0, 0.1, 9, 0, 0, 5, 5)], 0, 1, "m") is None  # no good images


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
