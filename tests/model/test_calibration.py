import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.model.calibration import Calibration, Limit, images_needed

numbers = st.floats(-1e6, 1e6)


@st.composite
def limits(draw):
    values = draw(st.lists(numbers, min_size=2, max_size=60))
    return Limit.from_good(values, draw(st.floats(0.001, 0.5)))


@given(limits(), st.lists(numbers, min_size=2, max_size=20))
def test_score_is_monotone_and_within_its_range(limit, raw):
    scores = limit.score(np.sort(raw))
    assert (np.diff(scores) >= 0).all()
    assert (scores >= 0).all() and (scores < 1).all()


@given(limits(), st.floats(0.1, 1e4), st.floats(1.001, 10))
def test_order_is_kept_above_the_median(limit, t, factor):
    span = limit.limit - limit.median
    low, high = limit.median + t * span, limit.median + t * factor * span
    assume(high > low)
    assert limit.score(low) < limit.score(high)


@given(limits())
def test_score_is_continuous_and_smooth_at_the_limit(limit):
    span = limit.limit - limit.median
    step = 1e-6
    below, at, above = limit.score(limit.median + span * np.array([1 - step, 1, 1 + step]))
    assert at == pytest.approx(0.8, abs=1e-9)
    assert (at - below) / step == pytest.approx(0.8, rel=1e-2)
    assert (above - at) / step == pytest.approx(0.8, rel=1e-2)


@given(limits(), st.floats(0.01, 0.99))
def test_raw_inverts_score(limit, threshold):
    assert limit.score(limit.raw(threshold)) == pytest.approx(threshold, abs=1e-6)


@given(limits())
def test_the_ends_of_the_threshold(limit):
    assert limit.raw(0.8) == limit.limit
    assert limit.raw(0) == limit.median
    assert limit.raw(1) == math.inf
    assert limit.score(limit.median) == 0


def test_one_is_never_reached():
    assert Limit(0, 1, 100, 0.01, 0.01).score([1e30])[0] < 1


@pytest.mark.parametrize(
    ("count", "rate", "rank", "stated"),
    [
        (99, 0.01, 99, 0.01),  # just enough images
        (98, 0.01, 98, 1 / 99),  # too few: the largest, and its rate is stated
        (199, 0.01, 198, 0.01),
        (10, 0.01, 10, 1 / 11),
        (99, 0.05, 95, 0.05),
        (9, 0.1, 9, 0.1),
        (99, 0.07, 93, 0.07),
    ],
)
def test_the_limit_is_the_order_statistic(count, rate, rank, stated):
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    limit = Limit.from_good(values, rate)
    assert limit.limit == rank
    assert limit.stated_rate == pytest.approx(stated, rel=1e-12)
    assert (limit.stated_rate <= rate) == (count >= images_needed(rate))
    assert limit.n_images == count and limit.asked_rate == rate


def test_the_realised_false_alarm_rate_is_below_the_stated_one():
    random = np.random.default_rng(0)
    alarms = []
    for _ in range(2000):
        values = random.gamma(3, size=60)
        limit = Limit.from_good(values[:59], 0.05)
        alarms.append(values[59] > limit.raw(0.8))
    error = 2 * math.sqrt(0.05 * 0.95 / len(alarms))
    assert np.mean(alarms) <= limit.stated_rate + error
    assert np.mean(alarms) >= 0.05 - 1 / 60 - error  # and not far below it: the limit is not slack


def test_images_that_are_all_alike_keep_a_distance_between_median_and_limit():
    limit = Limit.from_good([5.0] * 50, 0.01)
    assert limit.limit == pytest.approx(5.005)
    assert Limit.from_good([0.0] * 50, 0.01).limit > 0


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_values_that_give_no_limit(values):
    with pytest.raises(DataError, match="at least 2"):
        Limit.from_good(values, 0.01)


@pytest.mark.parametrize("rate", [0, 1, -0.1, math.nan, "0.1", True])
def test_rates_that_are_none(rate):
    with pytest.raises(OptionError, match="false_alarm_rate"):
        Limit.from_good([1, 2, 3], rate)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, "0.8", None, True])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(OptionError, match="thresh"):
        Limit.from_good([1, 2, 3], 0.1).raw(threshold)


def test_a_calibration_survives_the_manifest():
    calibration = Calibration.from_good([1, 2, 3], [4, 5, 6], 0.1)
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    without_map = Calibration.from_good([1, 2, 3], None, 0.1)
    assert Calibration.from_dict(without_map.to_dict()).map is None


@pytest.mark.parametrize("change", [{"median": 9.0}, {"limit": math.nan}, {"limit": "3"}])
def test_a_calibration_that_cannot_be_is_refused(change):
    values = Calibration.from_good([1, 2, 3], None, 0.1).to_dict()
    values["image"].update(change)
    with pytest.raises(DataError):
        Calibration.from_dict(values)
