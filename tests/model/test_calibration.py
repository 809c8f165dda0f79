import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.model.calibration import (
    GROUPS,
    MOST_MAPS,
    Calibration,
    GoodScores,
    Limit,
    images_needed,
)

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


@given(st.lists(numbers, min_size=2, max_size=60), st.floats(0.001, 0.999))
def test_groups_of_one_image_give_the_limit_without_groups(values, rate):
    """And that is number ceil((n + 1) (1 - rate)) in ascending order."""
    alone = Limit.from_good(values, rate)
    assert Limit.from_good(values, rate, np.arange(len(values))) == alone
    count = len(values)
    rank = min(max(math.ceil((count + 1) * (1 - rate) - 1e-9), 1), count)
    expected = max(sorted(values)[rank - 1], alone.median + 1e-3 * abs(alone.median))
    assert alone.limit == pytest.approx(expected, rel=1e-12, abs=2e-9)
    assert alone.stated_rate == (count + 1 - rank) / (count + 1) and alone.n_groups is None


@given(st.data(), st.floats(0.02, 0.6))
def test_the_limit_of_groups_is_the_quantile_of_weighted_scores(data, rate):
    """Of the distribution that gives each group 1 / (G + 1), and infinity the rest."""
    groups = np.array(data.draw(st.lists(st.integers(0, 12), min_size=2, max_size=50)))
    values = np.random.default_rng(len(groups)).permutation(len(groups)) * 100.0
    limit = Limit.from_good(values, rate, groups)
    sizes = np.bincount(groups)
    count = np.count_nonzero(sizes)
    weights = 1 / ((count + 1) * sizes[groups])
    above = weights[values > limit.limit].sum() + 1 / (count + 1)
    at = limit.limit in values  # and not at the least distance from the median
    assert limit.stated_rate >= above - 1e-8
    assert limit.stated_rate <= above + 1e-8 or not at
    if count >= images_needed(rate):
        assert above <= rate + 1e-8
        if at:  # and no smaller score would do
            assert above + weights[values == limit.limit].sum() > rate - 1e-8
    elif at:
        assert limit.limit == values.max() and above == pytest.approx(1 / (count + 1))
    fewer = count < len(groups)
    assert limit.n_groups == (count if fewer else None)
    words = f"{images_needed(rate)} " + ("groups of good images" if fewer else "good images")
    assert limit.needed == words
    order = np.random.default_rng(0).permutation(len(groups))
    assert Limit.from_good(values[order], rate, groups[order] + 3) == limit


def test_with_groups_the_realised_rate_is_below_the_stated_one():
    """Photographs of one part share most of what they score. Their sizes vary with it, too."""
    random = np.random.default_rng(0)
    rate, alarms = 0.1, {"groups": [], "images": []}
    for _ in range(3000):
        shared = random.gamma(2, size=20)
        sizes = np.where(shared > 2, 2, 12)  # odd parts are photographed less
        groups = np.repeat(np.arange(20), sizes)
        values = shared[groups] + random.normal(0, 0.05, len(groups))
        seen, unseen = groups < 19, values[groups == 19][0]
        limit = Limit.from_good(values[seen], rate, groups[seen])
        alarms["groups"].append(unseen > limit.limit)
        alarms["images"].append(unseen > Limit.from_good(values[seen], rate).limit)
    error = 2 * math.sqrt(rate * (1 - rate) / 3000)
    assert np.mean(alarms["groups"]) <= rate + error
    assert np.mean(alarms["groups"]) >= rate - 1 / 20 - error
    assert np.mean(alarms["images"]) > 1.5 * rate  # as if each image was a part of its own


def test_the_promise_names_groups():
    groups = np.repeat(np.arange(9), 2)
    calibration = Calibration.from_good(np.arange(18), np.arange(18), 0.1, groups)
    text = "at most 10.0% of good parts like these exceed it (18 images of 9 groups)"
    assert calibration.promise == text
    values = calibration.to_dict()
    assert values["image"]["n_groups"] == values["map"]["n_groups"] == 9
    assert Calibration.from_dict(values) == calibration
    alone = Calibration.from_good(np.arange(18), None, 0.1)
    assert "groups" not in alone.promise and "n_groups" not in alone.to_dict()["image"]


def test_scores_keep_their_groups():
    scores = GoodScores(np.arange(4.0), np.arange(4.0), groups=np.array([0, 0, 1, 1]))
    again = GoodScores.from_arrays(scores.arrays())
    np.testing.assert_array_equal(again.groups, scores.groups)
    np.testing.assert_array_equal(again.with_margin.groups, scores.groups)
    alone = GoodScores(np.arange(3.0), np.arange(3.0))
    assert alone.joined(alone).groups is None and GROUPS not in alone.arrays()
    np.testing.assert_array_equal(scores.joined(again).groups, [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(scores.joined(alone).groups, [0, 0, 1, 1, 2, 3, 4])
    np.testing.assert_array_equal(alone.joined(scores).groups, [0, 1, 2, 3, 3, 4, 4])
    assert scores.calibration(0.4).image.n_groups == 2


@pytest.mark.parametrize("groups", [[0, 0, 1], [0.0, 0, 1, 1], [0, 0, 1, -1]])
def test_stored_groups_that_cannot_be_used(groups):
    arrays = GoodScores(np.arange(4.0), None).arrays()
    with pytest.raises(ValueError, match="groups"):
        GoodScores.from_arrays({**arrays, GROUPS: np.array(groups)})


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


def test_the_promise_names_what_was_kept():
    good = GoodScores(np.arange(24.0) + 1, None, n_kept=185)
    calibration = good.calibration(0.1)
    assert calibration.promise == "at most 8.0% of good parts like the 185 kept exceed it"
    values = calibration.to_dict()
    assert values["n_kept"] == 185 and Calibration.from_dict(values) == calibration
    plain = GoodScores(np.arange(24.0) + 1, None).calibration(0.1).to_dict()
    assert "n_kept" not in plain and Calibration.from_dict(plain).n_kept is None
    with pytest.raises(TypeError, match="the images kept are counted"):
        Calibration.from_dict({**values, "n_kept": "many"})


def test_maps_of_the_highest_scores_are_kept_and_joined():
    maps = {n: np.full((2, 3), n, np.float32) for n in range(MOST_MAPS)}
    first = GoodScores(np.arange(30.0), None, maps=maps)
    second = GoodScores(np.array([100.0, -1.0]), None, maps={0: np.ones((2, 3), np.float32)})
    joined = first.joined(second)
    assert sorted(joined.maps) == [*range(1, MOST_MAPS), 30]  # the lowest went
    again = GoodScores.from_arrays(joined.arrays())
    assert again.maps.keys() == joined.maps.keys()
    np.testing.assert_array_equal(again.maps[30], second.maps[0])
    assert not joined.subset(np.arange(5)).maps
    plain = GoodScores(np.arange(3.0), None).arrays()
    assert GoodScores.from_arrays(plain).maps == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"held_out_mapped": np.array([7])},  # there are 3 scores
        {"held_out_mapped": np.array([0, 1])},
        {"held_out_maps": np.full((1, 2, 2), np.nan, np.float32)},
        {"held_out_maps": np.ones((1, 2, 2))},
        {"held_out_maps": np.ones((2, 2), np.float32)},
    ],
)
def test_maps_that_cannot_be_used(changed):
    good = GoodScores(np.arange(3.0), None, maps={1: np.ones((2, 2), np.float32)})
    with pytest.raises(ValueError, match="its maps of good images cannot be used"):
        GoodScores.from_arrays({**good.arrays(), **changed})
