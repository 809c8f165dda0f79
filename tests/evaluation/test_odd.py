"""Good images that look odd: by which rule, and when a line is worth saying."""

import numpy as np
import pytest

from anomaly_ad.evaluation.odd import OddImages, stand_out
from anomaly_ad.model import Calibration, GoodScores


def drawn(count=200, seed=0):
    return np.exp(np.random.default_rng(seed).normal(3, 0.1, count))


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_what_stands_out_does_not_hang_on_the_unit(scale):
    scores = np.concatenate([drawn(), [40, 35]]) * scale  # exp(3) is 20
    assert np.flatnonzero(stand_out(scores)).tolist() == [200, 201]


def test_low_scores_do_not_stand_out():
    assert not stand_out(np.concatenate([drawn(), [1e-3]])).any()


def test_scores_that_may_be_negative_are_taken_as_they_are():
    scores = np.concatenate([np.random.default_rng(0).normal(0, 1, 200), [12.0]])
    assert np.flatnonzero(stand_out(scores)).tolist() == [200]


def found(scores, rate=0.01):
    good = GoodScores(scores, None)
    odd = stand_out(scores)
    image = good.calibration(rate).image
    rest = Calibration.from_good(scores[~odd], None, rate)
    n_odd = int(odd.sum())
    return OddImages(good, (), n_odd, rate, image.limit, image.median, rest)


def test_the_line_names_count_and_limits():
    scores = np.concatenate([drawn(), [40, 35]])
    limit = np.sort(drawn())[-2]
    assert str(found(scores)) == (
        "2 of 202 good images look odd and set the limit. Without them it would fall from 35 to "
        f"{limit:.3g}."
    )
    one = str(found(np.concatenate([drawn(50), [40]])))
    assert one.startswith(
        "1 of 51 good images looks odd and sets the limit. Without it the limit would fall from"
    )


def test_no_line_where_nothing_stands_out_or_the_limit_hardly_changes():
    assert not str(found(drawn()))
    many = np.concatenate([drawn(2000), [40]])  # the limit is number 1,982 of 2,001
    assert stand_out(many)[-1] and not found(many).set_the_limit
