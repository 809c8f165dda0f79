import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad.choosing.merit import Scored, differences, merit
from anomaly_ad.statistics.ranking import partial_auroc

SCORES = st.lists(st.floats(-100, 100), min_size=2, max_size=30).map(np.array)


def test_all_found_and_told_apart_is_one_and_nothing_is_zero():
    good, defective = np.arange(10.0), np.arange(20.0, 25.0)
    assert merit(Scored(good, defective, 9.5)) == 1
    assert merit(Scored(defective, good, 30.0)) == 0


def test_it_is_the_mean_of_the_share_found_and_the_partial_auroc():
    scored = Scored(np.array([0.0, 1, 2, 3]), np.array([2.5, 4, 5]), 3.5)
    share = partial_auroc(scored.good, scored.defective, 0.05)
    assert merit(scored) == pytest.approx((2 / 3 + share) / 2)
    assert scored.found == 2 and scored.rejected == 0


@given(SCORES, SCORES, st.floats(-100, 100))
def test_it_lies_between_0_and_1(good, defective, limit):
    assert 0 <= merit(Scored(good, defective, limit)) <= 1


def test_equal_models_cannot_be_told_apart():
    random = np.random.default_rng(0)
    one = Scored(random.normal(size=30), random.normal(2, 1, 30), 2.0)
    (behind,) = differences(one, [one], 0)
    assert (behind.value, behind.low, behind.high) == (0, 0, 0)


def test_one_defect_more_of_63_leaves_open_which_is_better():
    good = np.linspace(0, 1, 20)
    best = Scored(good, np.full(63, 3.0), 2.0)
    other = Scored(good, np.append(np.full(62, 3.0), 1.5), 2.0)
    (behind,) = differences(best, [other], 0)
    assert behind.value == pytest.approx(merit(best) - merit(other)) and behind.value > 0
    assert behind.low <= 0 < behind.high


def test_a_clear_difference_is_one():
    good = np.linspace(0, 1, 20)
    best = Scored(good, np.full(60, 3.0), 2.0)
    other = Scored(good, np.append(np.full(30, 3.0), np.full(30, 0.5)), 2.0)
    (behind,) = differences(best, [other], 0)
    assert 0 < behind.low < behind.value < behind.high


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_images_never_prove_a_difference(count):
    good = np.linspace(0, 1, 20)
    best = Scored(good, np.full(count, 3.0), 2.0)
    other = Scored(good, np.full(count, 1.5), 2.0)
    (behind,) = differences(best, [other], 0)
    assert behind.value > 0 and behind.high - behind.low > 0.5
    if count < 3:
        assert behind.low <= 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # Two models of the same quality, correlated as two models on the same images are.
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(40):
        base_good, base_bad = random.normal(size=60), random.normal(1.5, 1, 60)
        models = [
            Scored(base_good + random.normal(0, 0.5, 60), base_bad + random.normal(0, 0.5, 60), 2.0)
            for _ in range(2)
        ]
        (behind,) = differences(models[0], [models[1]], seed)
        covered += behind.low <= 0 <= behind.high
    assert covered >= 34
